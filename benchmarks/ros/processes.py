"""The processes that benchmarks of the node share: a camera, the node with a script, a client."""

from __future__ import annotations

import array
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

SIZE_WH: Final = (640, 480)
RATE_HZ: Final = 30.0
PAUSE_S: Final = 2.0
TIMEOUT_S: Final = 120.0
REPLY: Final = (
    "<think>The mug is on the left.</think>"
    '<answer>[{"bbox_2d": [20, 20, 60, 70], "point_2d": [40, 45]}]</answer>'
)
CAMERA_ENVIRONMENT: Final = {
    "FASTRTPS_DEFAULT_PROFILES_FILE": str(Path(__file__).parents[2] / "config" / "fastdds.xml"),
    "RMW_FASTRTPS_PUBLICATION_MODE": "SYNCHRONOUS",
}
"""What lets every image arrive; see docs/ros.md."""


class TimedPipeline:
    """Notes how long each answer spends inside the core."""

    def __init__(self, pipeline: Any, log: Path) -> None:
        self.identity = pipeline.identity
        self._pipeline = pipeline
        self._log = log

    def stream(self, image: Any, query: str, **options: Any) -> Iterator[Any]:
        """Pass on what the pipeline tells."""
        spent_s, events = 0.0, self._pipeline.stream(image, query, **options)
        while True:
            began_s = time.perf_counter()
            event = next(events, None)
            spent_s += time.perf_counter() - began_s
            if event is None:
                break
            if type(event).__name__ == "Finished":
                with self._log.open("a") as log:
                    log.write(f"{query}\t{spent_s * 1e3}\n")
            yield event


def node_main(log: str, delay_s: float = 0.0) -> None:
    """Run the node with a scripted reasoner and the bundled segmenter.

    Args:
        log: File for the time inside the core of each query; empty: none.
        delay_s: Of each chunk of the reasoner's text [s].
    """
    from segzero_core import SegZero
    from segzero_core.checkpoints.registry import find_model
    from segzero_core.cpu_threads import CpuThreads
    from segzero_core.encoders.base import CachingEncoder
    from segzero_core.segmenter.sam2 import load_segmenter
    from segzero_core.testing.fakes import ScriptedReasoner
    from segzero_core.types import ModelIdentity
    from segzero_ros.main import run_process

    def load(_: Any) -> Any:
        sam = load_segmenter(find_model("tabletop").segmenter, "cpu")
        identity = ModelIdentity("scripted", sam.weights_hash, sam.encoder.backend)
        reasoner = ScriptedReasoner(REPLY, delay_s=delay_s)
        reasoner.queries = deque(maxlen=1)  # a hundred thousand would count as the node's memory
        encoder = CachingEncoder(sam.encoder, CpuThreads())  # as `SegZero.load` does
        pipeline = SegZero(reasoner, encoder, sam.segmenter, identity)
        return TimedPipeline(pipeline, Path(log)) if log else pipeline

    run_process(load)


def camera_main(
    size_wh: tuple[int, int] = SIZE_WH, *, depth: bool = False, log: str = os.devnull
) -> None:
    """Publish images until the process is ended, every 10 s others; pause for 2 s at SIGUSR1.

    Args:
        size_wh: Of the images [px].
        depth: Publish depth and camera_info too, with every thirtieth image.
        log: File for the time when each image was sent [s].
    """
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import CameraInfo, Image

    rclpy.init()
    node, (width, height), dice = Node("camera"), size_wh, np.random.default_rng(7)
    kinds = {"/image": Image, "/depth/image": Image, "/camera_info": CameraInfo}
    publishers = [node.create_publisher(k, name, QoSProfile(depth=1)) for name, k in kinds.items()]
    image = Image(width=width, height=height, step=width * 3, encoding="rgb8")
    far = Image(width=width, height=height, step=width * 2, encoding="16UC1")
    far.data = array.array("B", np.full(width * height, 800, "<u2").tobytes())
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    info.k = [600.0, 0.0, width / 2, 0.0, 600.0, height / 2, 0.0, 0.0, 1.0]
    messages = [image, far, info]
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(PAUSE_S))
    sent = Path(log).open("w", buffering=1)  # noqa: SIM115 - until the process is ended
    next_s = time.monotonic()
    for number in range(sys.maxsize):
        if number % round(10 * RATE_HZ) == 0:
            noise = dice.integers(0, 255, height * width * 3, np.uint8)
            image.data = array.array("B", noise.tobytes())
        stamp = node.get_clock().now().to_msg()
        count = 3 if depth and number % 30 == 0 else 1
        for publisher, msg in zip(publishers[:count], messages[:count], strict=True):
            msg.header.stamp, msg.header.frame_id = stamp, "camera"
            publisher.publish(msg)
        sent.write(f"{time.perf_counter()}\n")
        next_s = max(next_s + 1 / RATE_HZ, time.monotonic())
        time.sleep(max(0.0, next_s - time.monotonic()))


class Client:
    """Asks, and hears results and diagnostics."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import ChangeState
        from rclpy.action import ActionClient
        from rclpy.node import Node
        from std_msgs.msg import String

        from segzero_ros import qos
        from segzero_ros.action import Segment
        from segzero_ros.executor import ExecutorThread
        from segzero_ros.msg import SegmentationResult, Status

        rclpy.init()
        self.node = Node("bench")
        self._changed = threading.Condition()
        self._heard: dict[str, Any] = {}
        self._queries = self.node.create_publisher(String, "/segzero/query", qos.QUERY)
        for kind, topic, profile in (
            (SegmentationResult, "/segzero/result", qos.RESULT),
            (Status, "/segzero/status", qos.LATCHED),
            (DiagnosticArray, "/diagnostics", qos.RESULT),
        ):
            self.node.create_subscription(
                kind, topic, lambda msg, name=topic: self._hear(name, msg), profile
            )
        self.change_state = self.node.create_client(ChangeState, "/segzero/change_state")
        self.actions = ActionClient(self.node, Segment, "/segzero/segment")
        self._spinner = ExecutorThread(self.node)

    def _hear(self, topic: str, msg: Any) -> None:
        with self._changed:
            self._heard[topic] = (time.perf_counter(), msg)
            self._changed.notify_all()

    def wait(self, topic: str, matches: Any) -> tuple[float, Any]:
        """Return the newest message of a topic once it matches, and when it came."""
        with self._changed:
            found = lambda: topic in self._heard and matches(self._heard[topic][1])  # noqa: E731
            if not self._changed.wait_for(found, TIMEOUT_S):
                raise RuntimeError(f"nothing that matches on {topic}: {self._heard.get(topic)}")
            return self._heard[topic]

    def forget(self) -> None:
        """Forget what was heard of a node that has ended."""
        with self._changed:
            self._heard.clear()

    def wait_ready(self) -> None:
        """Wait until the node is READY."""
        self.wait("/segzero/status", lambda msg: msg.state == msg.READY)

    def ask(self, text: str) -> tuple[float, Any]:
        """Return the time from publication to the result [ms], and the result."""
        began_s = time.perf_counter()
        self.publish(text)
        came_s, result = self.wait("/segzero/result", lambda msg: msg.query == text)
        return (came_s - began_s) * 1e3, result

    def publish(self, text: str) -> None:
        """Publish a query."""
        from std_msgs.msg import String

        self._queries.publish(String(data=text))

    def change(self, transition: int) -> None:
        """Send a lifecycle transition by its number and wait for its end."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(id=transition))
        if not self.call(self.change_state.call_async(request)).success:
            raise RuntimeError(f"transition {transition} failed")

    def images(self) -> tuple[int, float]:
        """Return how many images the node has received, and when it said so [s]."""
        said_s, array_ = self.wait("/diagnostics", lambda _: True)
        values = {each.key: each.value for each in array_.status[0].values}
        return int(values["images"]), said_s

    def do(self, job: Callable[[], Any]) -> Any:
        """Do something in the thread that spins; see `ExecutorThread.do`."""
        return self._spinner.do(job)

    def call(self, future: Any) -> Any:
        """Wait for a future."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(TIMEOUT_S):
            raise RuntimeError("no answer of the node")
        return future.result()


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
