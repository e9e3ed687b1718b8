"""The node's publishers, with the overlay drawn in a thread of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rclpy.duration import Duration
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from segzero_ros import qos
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.diagnostics.log_bridge import log_defect
from segzero_ros.latest_worker import LatestItemWorker
from segzero_ros.messages.answer import answer_to_msgs
from segzero_ros.messages.detections import Detection2DArray, Detection3DArray
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status, TrackArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.impl.rcutils_logger import RcutilsLogger
    from rclpy.node import Node

    from segzero_ros.parameters import NodeConfig
    from segzero_ros.queries.answer import Answer, AnswerMessages

FAREWELL_TIMEOUT_S: Final = 1.0
"""How long the node stays for subscribers that have not received the last result yet."""


class Publishers:
    """Publishes from any thread.

    Args:
        node: Whose publishers they are.
        endpoints: Makes them.
        config: Returns the present settings.
        log: Of the node.
    """

    def __init__(
        self,
        node: Node,
        endpoints: qos.Endpoints,
        config: Callable[[], NodeConfig],
        log: RcutilsLogger,
    ) -> None:
        self._node = node
        self._config = config
        self._log = log
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
        self._by_topic = {
            topic: endpoints.publisher(kind, f"~/{topic}", qos.RESULT)
            for topic, kind in kinds.items()
        }
        self._trace = endpoints.publisher(ReasoningTrace, "~/reasoning", qos.TRACE)
        self._status = endpoints.publisher(Status, "~/status", qos.LATCHED)
        self._diagnostics = endpoints.publisher(DiagnosticArray, "/diagnostics", qos.RESULT)
        # Drawing takes longer than the rest of an answer, which must not wait for it.
        self._painter: LatestItemWorker[Answer] = LatestItemWorker(
            "segzero-overlay", self._draw_overlay, lambda: 1.0 / config().overlay_rate_hz
        )

    def is_subscribed(self, topic: str) -> bool:
        """Whether somebody subscribes to a topic about answers."""
        return bool(self._by_topic[topic].get_subscription_count())

    def compose(self, answer: Answer) -> AnswerMessages:
        """Build all messages about an answer; what can fail fails here, before any is out."""
        return answer_to_msgs(answer, self.is_subscribed)

    def publish_answer(self, answer: Answer, messages: AnswerMessages) -> None:
        """Publish an answer, the images before the result."""
        for topic, msg in messages.others.items():
            self._publish(self._by_topic[topic], msg)
        self._publish(self._by_topic["result"], messages.result)
        is_wanted = answer.result is not None and self._config().publish_overlay
        if is_wanted and self.is_subscribed("overlay"):
            self._painter.offer(answer)

    def publish_trace(self, trace: ReasoningTrace) -> None:
        """Publish a part of the thinking."""
        self._publish(self._trace, trace)

    def publish_status(self, status: Status) -> None:
        """Publish the state."""
        self._publish(self._status, status)

    def publish_diagnostics(self, diagnostics: DiagnosticArray) -> None:
        """Publish /diagnostics."""
        self._publish(self._diagnostics, diagnostics)

    def publish_tracks(self, tracks: TrackArray) -> None:
        """Publish where the tracked objects are in one image."""
        self._publish(self._by_topic["tracks"], tracks)

    def close(self) -> None:
        """Wait a moment for subscribers that have not received the last result yet."""
        self._painter.stop(FAREWELL_TIMEOUT_S)
        if self._node.context.ok():
            self._by_topic["result"].wait_for_all_acked(Duration(seconds=FAREWELL_TIMEOUT_S))

    def _publish(self, publisher: Any, msg: Any) -> None:
        """Publish, unless the node has been shut down meanwhile."""
        try:
            publisher.publish(msg)
        except Exception:
            if self._node.context.ok():
                raise

    def _draw_overlay(self, answer: Answer) -> None:
        try:
            from segzero_core import draw_overlay

            result, frame = answer.result, answer.frame
            assert result is not None
            assert frame is not None
            pixels = draw_overlay(answer.rgb, result.segmentation, result.reasoning.prompts)
            self._publish(self._by_topic["overlay"], msg_from_array(pixels, "rgb8", frame.header))
        except Exception:  # the result is out: a second one would contradict it
            log_defect(self._log, "while drawing the overlay")
