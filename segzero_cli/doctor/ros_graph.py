"""`segzero doctor --ros`: examines the live ROS 2 graph around a node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from segzero_cli.doctor.findings import Finding, Mark
from segzero_core.errors import ConfigError

try:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from lifecycle_msgs.srv import GetState
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
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

if TYPE_CHECKING:
    from rclpy.topic_endpoint_info import TopicEndpointInfo

IMAGE_TYPES: Final = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
}
OLD_STAMP_S: Final = 5.0


class GraphDoctor:
    """Examines one node from outside.

    Args:
        node: Joins the graph for the examination; the caller spins it.
        target: Full name of the node to examine.
        patience_s: Longest wait for each message or service [s].
    """

    def __init__(self, node: Node, target: str, patience_s: float) -> None:
        self._node = node
        self._target = "/" + target.strip("/")
        self._patience_s = patience_s
        self._heard: dict[str, Any] = {}
        self._listen(Status, f"{self._target}/status", qos.LATCHED)
        self._diagnosed: dict[str, dict[str, str]] = {}
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=10)
        )

    def findings(self) -> Iterator[Finding]:
        """Yield the findings, in the order to repair them."""
        if not self._wait(lambda: self._node.count_publishers(f"{self._target}/status")):
            yield Finding(
                Mark.FAILED,
                "node",
                f"no {self._target} in this domain; start it, name another with --node, or set "
                "ROS_DOMAIN_ID",
            )
            return
        yield self._state()
        image = self._image_topic()
        if image is None:
            yield Finding(Mark.FAILED, "image", f"no /diagnostics of {self._target} came")
        else:
            yield from self._image(*image)
        yield from self._peers()
        yield self._queries()

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
            return Finding(Mark.OK, "state", detail)
        command = {"unconfigured": "configure", "inactive": "activate"}.get(label)
        advice = f"; ros2 lifecycle set {self._target} {command}" if command else ""
        return Finding(Mark.FAILED, "state", detail + advice)

    def _image_topic(self) -> tuple[str, str] | None:
        """Return the node's image topic and its type, as its diagnostics name them."""
        # At least two of the diagnostics' seconds, however little patience there is.
        if not self._wait(lambda: self._values("camera"), least_s=2.5):
            return None
        topic = (self._values("camera") or {})["topic"]
        compressed = topic.endswith("/compressed")
        return topic, f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}"

    def _image(self, topic: str, kind: str) -> Iterator[Finding]:
        if not self._wait(lambda: self._node.get_publishers_info_by_topic(topic)):
            yield Finding(
                Mark.FAILED,
                "image",
                f"nobody publishes {topic}; start the camera, or remap -r image:=TOPIC to one of: "
                f"{self._candidates(kind)}",
            )
            return
        publishers = self._node.get_publishers_info_by_topic(topic)
        wrong = {info.topic_type for info in publishers} - {kind}
        if wrong:
            yield Finding(
                Mark.FAILED,
                "image",
                f"{topic} is published as {', '.join(sorted(wrong))}, the node expects "
                f"{kind}; set image_transport",
            )
            return
        own = self._own_subscription(topic)
        for line in qos.fix_for_subscription(topic, own.qos_profile, publishers) if own else ():
            yield Finding(Mark.FAILED, "qos", line)
        self._listen(IMAGE_TYPES[kind], topic, qos.LATEST_IMAGE)
        if not self._wait(lambda: topic in self._heard):
            yield Finding(
                Mark.FAILED,
                "image",
                f"{topic} has a publisher, but no image came within {self._patience_s:g} s",
            )
            return
        yield self._first_image(topic, self._heard[topic])

    def _first_image(self, topic: str, msg: Any) -> Finding:
        text = f"{topic}, frame {msg.header.frame_id!r}"
        if isinstance(msg, Image):
            text += f", {msg.width}x{msg.height} {msg.encoding}"
            if msg.encoding not in ENCODINGS:
                return Finding(
                    Mark.ABSENT, "image", f"{text}; only cv_bridge may know it: publish rgb8"
                )
        stamp_s = msg.header.stamp.sec + msg.header.stamp.nanosec / 1e9
        if stamp_s == 0:
            return Finding(Mark.ABSENT, "image", f"{text}; its stamp is zero: depth is not paired")
        lag_s = self._node.get_clock().now().nanoseconds / 1e9 - stamp_s
        if abs(lag_s) > OLD_STAMP_S:
            return Finding(
                Mark.ABSENT,
                "image",
                f"{text}; its stamp is {lag_s:.1f} s before this machine's clock: a bag, "
                "simulated time, or clocks that differ (TF at that stamp may fail)",
            )
        return Finding(Mark.OK, "image", text)

    def _peers(self) -> Iterator[Finding]:
        query = f"{self._target}/query"
        own = self._own_subscription(query)
        publishers = self._node.get_publishers_info_by_topic(query)
        for line in qos.fix_for_subscription(query, own.qos_profile, publishers) if own else ():
            yield Finding(Mark.FAILED, "qos", line)
        for name in self._published():
            publishers = filter(self._is_target, self._node.get_publishers_info_by_topic(name))
            if own := next(publishers, None):
                subscriptions = self._node.get_subscriptions_info_by_topic(name)
                for line in qos.fix_for_publisher(name, own.qos_profile, subscriptions):
                    yield Finding(Mark.FAILED, "qos", line)

    def _queries(self) -> Finding:
        if not self._wait(lambda: self._values("model")):
            return Finding(
                Mark.ABSENT, "queries", f"no /diagnostics of {self._target} came; is it busy?"
            )
        values = self._values("model") or {}
        counts = {
            key.removeprefix("results_"): value
            for key, value in values.items()
            if key.startswith("results_")
        }
        if not counts:
            command = f'ros2 run segzero_ros ask "the red mug" --node {self._target}'
            return Finding(Mark.ABSENT, "queries", f"none came yet; try {command}")
        text = ", ".join(f"{count} {key}" for key, count in counts.items())
        if values.get("last_error"):
            text += f"; last error: {values['last_error']}"
        return Finding(Mark.OK, "queries", text)

    def _values(self, part: str) -> dict[str, str] | None:
        return self._diagnosed.get(f"{self._target.lstrip('/')}: {part}")

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:  # of every node of the graph
            self._diagnosed[status.name] = {each.key: each.value for each in status.values}

    def _candidates(self, kind: str) -> str:
        names = [name for name, kinds in self._node.get_topic_names_and_types() if kind in kinds]
        published = [name for name in names if self._node.count_publishers(name)]
        return ", ".join(published) or f"(no topic of {kind} has a publisher)"

    def _own_subscription(self, topic: str) -> TopicEndpointInfo | None:
        infos = self._node.get_subscriptions_info_by_topic(topic)
        return next((info for info in infos if self._is_target(info)), None)

    def _is_target(self, info: TopicEndpointInfo) -> bool:
        return f"{info.node_namespace.rstrip('/')}/{info.node_name}" == self._target

    def _published(self) -> list[str]:
        """Return the topics below the target's own name that it publishes."""
        namespace, _, name = self._target.rpartition("/")
        try:
            topics = self._node.get_publisher_names_and_types_by_node(name, namespace or "/")
        except Exception:  # rclpy's NodeNameNonExistentError is not public
            return []
        return [topic for topic, _ in topics if topic.startswith(self._target)]

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
