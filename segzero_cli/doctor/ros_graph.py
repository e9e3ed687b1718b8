"""`segzero doctor --ros`: examines the live ROS 2 graph around a node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from segzero_cli.doctor.findings import Finding, Mark, absent, failed, ok
from segzero_core.errors import ConfigError

try:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from lifecycle_msgs.srv import GetState
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.serialization import deserialize_message
    from rclpy.topic_endpoint_info import TopicEndpointInfo
    from sensor_msgs.msg import CompressedImage, Image

    from segzero_core.images.encodings import ENCODINGS
    from segzero_ros import qos
    from segzero_ros.executor import ExecutorThread
    from segzero_ros.msg import Status
except ModuleNotFoundError as missing:
    raise ConfigError(
        f"doctor --ros needs ROS 2 and the compiled interfaces, but there is no {missing.name}; "
        "run `make setup` in a checkout, or source a workspace that holds segzero_ros"
    ) from missing


OLD_STAMP_S: Final = 5.0
IMAGES_COUNTED: Final = 60
MAX_LOST_SHARE: Final = 0.05
CURE: Final = (
    "FASTRTPS_DEFAULT_PROFILES_FILE=$(ros2 pkg prefix --share segzero_ros)/config/fastdds.xml"
    " RMW_FASTRTPS_PUBLICATION_MODE=SYNCHRONOUS"
)
DIAGNOSTICS_WAIT_S: Final = 2.5
"""At least two of the diagnostics' seconds, however little patience there is."""


def lost_share(numbers: Sequence[int | None]) -> float:
    """Return the share of a publisher's messages that did not arrive.

    The numbers are of those that did, as the publisher counts; None where the middleware does not.
    """
    known = {number for number in numbers if number is not None}
    return 1 - len(known) / (max(known) - min(known) + 1) if known else 0.0


class GraphDoctor:
    """Examines the node with the full name `target` from outside; the caller spins `node`.

    `patience_s` is the longest wait for each message or service [s].
    """

    def __init__(self, node: Node, target: str, patience_s: float) -> None:
        self._node = node
        self._target = "/" + target.strip("/")
        self._patience_s = patience_s
        self._heard: dict[str, Any] = {}
        self._diagnosed: dict[str, dict[str, str]] = {}
        self._listen(Status, f"{self._target}/status", qos.LATCHED)
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=10)
        )

    def findings(self) -> Iterator[Finding]:
        """Yield the findings, in the order to repair them."""
        if not self._wait(lambda: self._node.count_publishers(f"{self._target}/status")):
            advice = "start it, name another with --node, or set ROS_DOMAIN_ID"
            yield failed("node", f"no {self._target} in this domain; {advice}")
            return
        yield self._state()
        if camera := self._diagnostics("camera", DIAGNOSTICS_WAIT_S):
            yield from self._image(camera["topic"])
        else:
            yield failed("image", f"no /diagnostics of {self._target} came")
        yield from self._not_received(f"{self._target}/query")
        yield from self._not_delivered()
        yield self._queries()
        yield from self._twins()  # by now the graph is known

    def _twins(self) -> Iterator[Finding]:
        count = self._node.count_publishers(f"{self._target}/status")
        if count > 1:
            advice = f"{count} are called {self._target}, and each answers; end all but one"
            yield Finding(Mark.FAILED, "node", advice)

    def _state(self) -> Finding:
        client = self._node.create_client(GetState, f"{self._target}/get_state")
        label = "unknown"
        if self._wait(client.service_is_ready):
            future = client.call_async(GetState.Request())
            if self._wait(future.done):
                label = future.result().current_state.label
        self._wait(lambda: f"{self._target}/status" in self._heard)
        status = self._heard.get(f"{self._target}/status")
        detail = f"{label}: {status.detail}" if status else label
        if label == "active":
            return ok("state", detail)
        command = {"unconfigured": "configure", "inactive": "activate"}.get(label)
        advice = f"; ros2 lifecycle set {self._target} {command}" if command else ""
        return failed("state", detail + advice)

    def _image(self, topic: str) -> Iterator[Finding]:
        """Examine the node's image topic, up to its first images."""
        kind: Any = CompressedImage if topic.endswith("/compressed") else Image
        wanted = f"sensor_msgs/msg/{kind.__name__}"
        if not self._wait(lambda: self._node.count_publishers(topic)):
            names = [
                name for name, kinds in self._node.get_topic_names_and_types() if wanted in kinds
            ]
            published = ", ".join(name for name in names if self._node.count_publishers(name))
            yield failed(
                "image",
                f"nobody publishes {topic}; start the camera, or remap -r image:=TOPIC to one of: "
                + (published or f"(no topic of {wanted} has a publisher)"),
            )
            return
        publishers = self._node.get_publishers_info_by_topic(topic)
        if wrong := {info.topic_type for info in publishers} - {wanted}:
            text = f"{topic} is published as {', '.join(sorted(wrong))}, the node expects {wanted}"
            yield failed("image", f"{text}; set image_transport")
            return
        yield from self._not_received(topic)
        numbers: list[int | None] = []

        def count(serialized: bytes, info: dict[str, Any]) -> None:
            numbers.append(info["publication_sequence_number"])
            if topic not in self._heard:
                self._heard[topic] = deserialize_message(serialized, kind)

        profile = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._node.create_subscription(kind, topic, count, profile, raw=True)
        if not self._wait(lambda: topic in self._heard):
            reason = f"no image came within {self._patience_s:g} s"
            yield failed("image", f"{topic} has a publisher, but {reason}")
            return
        yield self._first_image(topic, self._heard[topic])
        self._wait(lambda: len(numbers) > IMAGES_COUNTED)
        if len(publishers) == 1 and (share := lost_share(numbers)) > MAX_LOST_SHARE:
            text = (
                f"{share:.0%} of the images of {topic} do not arrive; start the camera with {CURE}"
            )
            yield failed("loss", f"{text}; from another machine send compressed (docs/ros.md)")

    def _first_image(self, topic: str, msg: Any) -> Finding:
        text = f"{topic}, frame {msg.header.frame_id!r}"
        if isinstance(msg, Image):
            text += f", {msg.width}x{msg.height} {msg.encoding}"
            if msg.encoding not in ENCODINGS:
                return absent("image", f"{text}; only cv_bridge may know it: publish rgb8")
        stamp_s = msg.header.stamp.sec + msg.header.stamp.nanosec / 1e9
        if stamp_s == 0:
            return absent("image", f"{text}; its stamp is zero: depth is not paired")
        lag_s = self._node.get_clock().now().nanoseconds / 1e9 - stamp_s
        if abs(lag_s) > OLD_STAMP_S:
            return absent(
                "image",
                f"{text}; its stamp is {lag_s:.1f} s before this machine's clock: a bag, "
                "simulated time, or clocks that differ (TF at that stamp may fail)",
            )
        return ok("image", text)

    def _not_received(self, topic: str) -> list[Finding]:
        """Find the publishers that the node's subscription does not match."""
        own = self._own(self._node.get_subscriptions_info_by_topic(topic))
        peers = self._node.get_publishers_info_by_topic(topic)
        lines = qos.fix_for_subscription(topic, own.qos_profile, peers) if own else ()
        return [failed("qos", line) for line in lines]

    def _not_delivered(self) -> Iterator[Finding]:
        """Find the subscriptions that do not match what the node publishes below its name."""
        namespace, _, name = self._target.rpartition("/")
        try:
            topics = self._node.get_publisher_names_and_types_by_node(name, namespace or "/")
        except Exception:  # rclpy's NodeNameNonExistentError is not public
            return
        for topic, _ in topics:
            own = self._own(self._node.get_publishers_info_by_topic(topic))
            if own and topic.startswith(self._target):
                peers = self._node.get_subscriptions_info_by_topic(topic)
                for line in qos.fix_for_publisher(topic, own.qos_profile, peers):
                    yield failed("qos", line)

    def _queries(self) -> Finding:
        values = self._diagnostics("model")
        if values is None:
            return absent("queries", f"no /diagnostics of {self._target} came; is it busy?")
        prefix = "results_"
        counts = [
            f"{count} {key.removeprefix(prefix)}"
            for key, count in values.items()
            if key.startswith(prefix)
        ]
        if not counts:
            command = f'ros2 run segzero_ros ask "the red mug" --node {self._target}'
            return absent("queries", f"none came yet; try {command}")
        error = values.get("last_error")
        return ok("queries", ", ".join(counts) + (f"; last error: {error}" if error else ""))

    def _diagnostics(self, part: str, least_s: float = 0.0) -> dict[str, str] | None:
        """Wait for the values of one part of the node's diagnostics."""
        name = f"{self._target.lstrip('/')}: {part}"
        self._wait(lambda: name in self._diagnosed, least_s)
        return self._diagnosed.get(name)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:  # of every node of the graph
            self._diagnosed[status.name] = {each.key: each.value for each in status.values}

    def _own(self, infos: Iterable[TopicEndpointInfo]) -> TopicEndpointInfo | None:
        """Return the endpoint of the node that is examined."""
        return next((info for info in infos if qos.full_name(info) == self._target), None)

    def _listen(self, kind: Any, topic: str, profile: Any) -> None:
        self._node.create_subscription(
            kind, topic, lambda msg: self._heard.__setitem__(topic, msg), profile
        )

    def _wait(self, condition: Callable[[], object], least_s: float = 0.0) -> bool:
        end_s = time.monotonic() + max(self._patience_s, least_s)
        while not condition():
            if time.monotonic() > end_s:
                return False
            time.sleep(0.05)
        return True


def run(target: str, patience_s: float) -> bool:
    """Print the findings about a node; return whether nothing has to be repaired."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("segzero_doctor", context=context)
    doctor = GraphDoctor(node, target, patience_s)
    executor = ExecutorThread(node)
    healthy = True
    try:
        for finding in doctor.findings():
            healthy &= finding.mark is not Mark.FAILED
            print(finding, flush=True)
    finally:
        executor.stop()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    return healthy
