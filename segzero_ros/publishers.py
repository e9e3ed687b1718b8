"""The node's publishers, with the overlay drawn in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from segzero_ros import qos
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.diagnostics.guard import Guard
from segzero_ros.latest_worker import LatestItemWorker
from segzero_ros.messages.answer import answer_to_msgs
from segzero_ros.messages.detections import Detection2DArray, Detection3DArray
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status, TrackArray
from segzero_ros.parameters import NodeConfig
from segzero_ros.queries.answer import Answer

FAREWELL_TIMEOUT_S: Final = 1.0
"""How long the node stays for subscribers that have not received the last result yet."""


@dataclass(eq=False)
class Publishers:
    """The publishers of a node; they publish from any thread."""

    node: Node
    endpoints: qos.Endpoints
    config: Callable[[], NodeConfig]
    guard: Guard

    def __post_init__(self) -> None:
        kinds: dict[str, Any] = {
            "result": SegmentationResult,
            "mask": Image,
            "instances": Image,
            "markers": MarkerArray,
            "object_poses": PoseArray,
            "object_cloud": PointCloud2,
            "tracks": TrackArray,
            "overlay": Image,
        }
        if Detection2DArray is not None:
            kinds |= {"detections": Detection2DArray, "detections_3d": Detection3DArray}
        make = self.endpoints.publisher
        self._by_topic = {
            topic: make(kind, f"~/{topic}", qos.RESULT) for topic, kind in kinds.items()
        } | {
            "reasoning": make(ReasoningTrace, "~/reasoning", qos.TRACE),
            "status": make(Status, "~/status", qos.LATCHED),
            "diagnostics": make(DiagnosticArray, "/diagnostics", qos.RESULT),
        }
        # Drawing takes longer than the rest of an answer, which must not wait for it.
        self._painter: LatestItemWorker[Answer] = LatestItemWorker(
            "segzero-overlay",
            self._draw_overlay,
            lambda: 1.0 / self.config().overlay_rate_hz,
            self.guard,
        )

    def is_subscribed(self, topic: str) -> bool:
        """Whether somebody subscribes to one of the node's topics."""
        return bool(self._by_topic[topic].get_subscription_count())

    def compose(self, answer: Answer) -> dict[str, Any]:
        """Build all messages about an answer; what can fail fails here, before any is out."""
        return answer_to_msgs(answer, self.is_subscribed)

    def publish_answer(self, answer: Answer, messages: dict[str, Any]) -> None:
        """Publish the messages that `compose` made of an answer."""
        for topic, msg in messages.items():
            self.publish(topic, msg)
        is_wanted = answer.result is not None and self.config().publish_overlay
        if is_wanted and self.is_subscribed("overlay"):
            self._painter.offer(answer)

    def close(self) -> None:
        """Wait a moment for subscribers that have not received the last result yet."""
        self._painter.stop(FAREWELL_TIMEOUT_S)
        if self.node.context.ok():
            self._by_topic["result"].wait_for_all_acked(Duration(seconds=FAREWELL_TIMEOUT_S))

    def publish(self, topic: str, msg: Any) -> None:
        """Publish a message on one of the node's topics, unless the node has been shut down."""
        try:
            self._by_topic[topic].publish(msg)
        except Exception:
            if self.node.context.ok():
                raise

    def _draw_overlay(self, answer: Answer) -> None:
        from segzero_core import draw_overlay

        result, frame = answer.result, answer.frame
        assert result is not None
        assert frame is not None
        assert answer.rgb is not None
        pixels = draw_overlay(answer.rgb, result.segmentation, result.reasoning.prompts)
        self.publish("overlay", msg_from_array(pixels, "rgb8", frame.header))
