"""Real rclpy in a domain of its own: nodes under test, and a client that records what it hears."""

from __future__ import annotations

import array
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from segzero_ros.ros_domain import isolated_environment

TIMEOUT_S = 30.0

try:
    import rclpy
    from rclpy.node import Node
    from rclpy.parameter import Parameter
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header, String

    from segzero_core.testing.fakes import fake_segzero
    from segzero_ros import qos
    from segzero_ros.conversions.images import msg_from_array
    from segzero_ros.executor import ExecutorThread
    from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
    from segzero_ros.node import SegZeroNode
    from tests.ros.scripted import TWO_OBJECTS
except ModuleNotFoundError as error:
    if os.environ.get("CI") or (error.name or "").startswith("segzero_core"):
        raise
    collect_ignore_glob = ["test_*.py"]  # see pytest_report_header
    MISSING = error.name
else:
    MISSING = None


def pytest_report_header() -> str | None:
    return f"tests/ros: left out, there is no {MISSING}; run make test" if MISSING else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/ros/" in str(item.path):
            item.add_marker(pytest.mark.ros)


@pytest.fixture(scope="session", autouse=True)
def own_domain() -> Iterator[None]:
    """Keep this session in a domain that is nobody else's until it ends."""
    with pytest.MonkeyPatch.context() as patch, isolated_environment() as variables:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


class Recorder:
    """What a client heard, by topic, with a condition to wait on."""

    def __init__(self) -> None:
        self._heard: dict[str, list[Any]] = {}
        self._changed = threading.Condition()

    def add(self, topic: str, msg: Any) -> None:
        with self._changed:
            self._heard.setdefault(topic, []).append(msg)
            self._changed.notify_all()

    def all(self, topic: str) -> list[Any]:
        with self._changed:
            return list(self._heard.get(topic, []))

    def forget(self) -> None:
        with self._changed:
            self._heard.clear()

    def wait(
        self,
        topic: str,
        matches: Callable[[Any], bool] = lambda _: True,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """Return the first message on a topic that matches, heard already or to come."""

        def found() -> list[Any]:
            return [msg for msg in self._heard.get(topic, []) if matches(msg)]

        with self._changed:
            if not self._changed.wait_for(found, timeout_s):
                heard = [str(msg)[:300] for msg in self._heard.get(topic, [])]
                raise AssertionError(f"nothing that matches on {topic}; heard {heard}")
            return found()[0]


def wait_until(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
    """Poll what has no event, such as the discovery of a subscriber."""
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not become true in time"
        pause.wait(0.01)
    return value


class Graph:
    """A context with executors in threads, one for each node."""

    wait_until = staticmethod(wait_until)

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self._running: list[tuple[Node, ExecutorThread]] = []

    def spin(self, node: Node) -> None:
        self._running.append((node, ExecutorThread(node)))

    def end(self, node: Node) -> None:
        """End one node as its process would."""
        (spinner,) = [spinner for each, spinner in self._running if each is node]
        self._running.remove((node, spinner))
        if isinstance(node, SegZeroNode):
            node.close(TIMEOUT_S)
        spinner.stop()
        node.destroy_node()

    def close(self) -> None:
        for node, _ in reversed(list(self._running)):
            self.end(node)
        rclpy.shutdown(context=self.context)


class Client:
    """A node that plays the camera and the person, and records every topic of `/segzero`."""

    TOPICS = ("result", "mask", "instances", "reasoning", "status")

    wait_until = staticmethod(wait_until)
    now_s = staticmethod(time.monotonic)

    def __init__(
        self,
        graph: Graph,
        *,
        name: str = "client",
        overlay: bool = False,
        camera_topic: str = "/image",
    ) -> None:
        self.node = Node(name, context=graph.context)
        self.heard = Recorder()
        types = {"result": SegmentationResult, "reasoning": ReasoningTrace, "status": Status}
        for topic in (*self.TOPICS, *(["overlay"] if overlay else [])):
            profile = qos.LATCHED if topic == "status" else QoSProfile(depth=200)
            self.node.create_subscription(
                types.get(topic, Image),
                f"/segzero/{topic}",
                lambda msg, topic=topic: self.heard.add(topic, msg),
                profile,
            )
        self._queries = self.node.create_publisher(String, "/segzero/query", qos.QUERY)
        self._images = self.node.create_publisher(Image, camera_topic, QoSProfile(depth=1))
        self._compressed = self.node.create_publisher(
            CompressedImage, "/image/compressed", QoSProfile(depth=1)
        )
        self._count = 0
        graph.spin(self.node)

    def connect(self, *, image_topic: str = "/image") -> None:
        """Wait until both sides have discovered each other."""
        wait_until(lambda: self._queries.get_subscription_count())
        wait_until(lambda: self.node.count_subscribers(image_topic))
        for topic in self.TOPICS:
            wait_until(lambda topic=topic: self.node.count_publishers(f"/segzero/{topic}"))

    def ask(self, text: str) -> None:
        self._queries.publish(String(data=text))

    def ask_and_wait(self, text: str, code: int | None = None) -> Any:
        """Ask, and return the result of this very question."""
        heard = len(self.heard.all("result"))
        self.ask(text)
        wait_until(lambda: len(self.heard.all("result")) > heard)
        result = self.heard.all("result")[heard]
        if code is not None:
            assert result.error_code == code, result.error_msg
        return result

    def send_msg(self, msg: Any, node: SegZeroNode) -> None:
        """Publish a image and wait until the node under test has it.

        Once: within one process nothing is lost, and a second one would be a newer image.
        """
        publisher = self._compressed if isinstance(msg, CompressedImage) else self._images
        wait_until(publisher.get_subscription_count)
        wait_until(lambda: node.queries.is_accepting)
        publisher.publish(msg)
        wait_until(lambda: (new := node.images.latest) and new.msg.header == msg.header)

    def send_image(self, node: SegZeroNode, size_wh: tuple[int, int] = (64, 48)) -> Header:
        """Publish a good image with a stamp of its own and return its header."""
        header = self._new_header()
        pixels = np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)
        self.send_msg(msg_from_array(pixels, "rgb8", header), node)
        return header

    def publish_image(self, size_wh: tuple[int, int] = (64, 48)) -> Header:
        """Publish a good image, for a node in another process."""
        header = self._new_header()
        pixels = np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)
        self._images.publish(msg_from_array(pixels, "rgb8", header))
        return header

    def compressed_image(self, size_wh: tuple[int, int]) -> CompressedImage:
        """Make a JPEG message with a stamp of its own."""
        jpeg = io.BytesIO()
        PilImage.new("RGB", size_wh, (90, 90, 90)).save(jpeg, "JPEG")
        data = array.array("B", jpeg.getvalue())
        return CompressedImage(header=self._new_header(), format="jpeg", data=data)

    def _new_header(self) -> Header:
        self._count += 1
        header = Header(frame_id="camera_optical")
        header.stamp.sec, header.stamp.nanosec = 1000 + self._count, 123456789
        return header


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def make_client(graph: Graph) -> Callable[..., Client]:
    return lambda **options: Client(graph, **options)


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()


@pytest.fixture
def start_node(graph: Graph) -> Callable[..., SegZeroNode]:
    """Start the node under test with a pipeline, or with what makes one."""

    def start(pipeline: Any, **parameters: Any) -> SegZeroNode:
        load = pipeline if callable(pipeline) else lambda _config: pipeline
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = SegZeroNode(load, context=graph.context, parameter_overrides=overrides)
        graph.spin(node)
        if not callable(pipeline) and parameters.get("autostart", True):
            wait_until(lambda: node.state_label == "active")
        return node

    return start


@pytest.fixture
def answering(start_node: Callable[..., Any], client: Client) -> tuple[SegZeroNode, Client]:
    """A node that answers with two objects, and a client it can hear."""
    node = start_node(fake_segzero(TWO_OBJECTS))
    client.connect()
    return node, client
