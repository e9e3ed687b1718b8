"""Everything that the node publishes about a query."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from geometry_msgs.msg import PoseArray
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from segzero_ros import qos
from segzero_ros.conversions.images import mask_to_msg, msg_from_array
from segzero_ros.latest_worker import NewestWorker
from segzero_ros.messages.detections import Detection2DArray, detections_to_msg
from segzero_ros.messages.markers import markers_in_space, markers_to_msg
from segzero_ros.messages.poses import cloud_to_msg, poses_to_msg
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status, TrackArray
from segzero_ros.parameters import read_config
from segzero_ros.messages.result import instances_to_msg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from segzero_ros.node import SegZeroNode
    from segzero_ros.queries.answer import Answer

FAREWELL_TIMEOUT_S: Final = 1.0
"""How long the node stays for subscribers that have not heard the last result yet."""


class Outputs:
    """The node's publishers.

    Args:
        node: Whose they are.
        on_mismatch: Called with a topic and lines of advice when a subscriber cannot hear it.
    """

    def __init__(self, node: SegZeroNode, on_mismatch: Callable[[str, list[str]], None]) -> None:
        self._node = node
        self._on_mismatch = on_mismatch
        self._status_lock = threading.Lock()
        self._result = self._publisher(SegmentationResult, "~/result", qos.RESULT)
        self._trace = self._publisher(ReasoningTrace, "~/reasoning", qos.TRACE)
        self._status = self._publisher(Status, "~/status", qos.LATCHED)
        self._mask = self._publisher(Image, "~/mask", qos.RESULT)
        self._instances = self._publisher(Image, "~/instances", qos.RESULT)
        self._markers = self._publisher(MarkerArray, "~/markers", qos.RESULT)
        self._poses = self._publisher(PoseArray, "~/object_poses", qos.RESULT)
        self._cloud = self._publisher(PointCloud2, "~/object_cloud", qos.RESULT)
        self._tracks = self._publisher(TrackArray, "~/tracks", qos.RESULT)
        self._overlay = self._publisher(Image, "~/overlay", qos.RESULT)
        self._detections = (
            self._publisher(Detection2DArray, "~/detections", qos.RESULT)
            if Detection2DArray is not None
            else None
        )
        # A drawing costs more than the rest of the work on an answer, which must not wait for it.
        self._painter: NewestWorker[Answer] = NewestWorker(
            "segzero-overlay", self._draw_overlay, lambda: 1.0 / read_config(node).overlay_rate_hz
        )

    def compose(self, answer: Answer) -> list[tuple[Any, Any]]:
        """Build the messages beside the result; what can fail fails here, before any is out.

        Returns:
            Publishers and messages, the pictures first.
        """
        return list(self._composed(answer))

    def _composed(self, answer: Answer) -> Iterator[tuple[Any, Any]]:
        if answer.result is None or answer.picture is None:
            return
        result, header = answer.result, answer.msg.header
        yield self._mask, mask_to_msg(result.segmentation.union(), header)
        yield self._instances, instances_to_msg(result, header)
        if self._detections is not None:
            yield self._detections, detections_to_msg(result, header)
        if self._markers.get_subscription_count():
            markers = markers_to_msg(result, header, answer.picture.camera_info)
            markers.markers += markers_in_space(answer.scene)
            yield self._markers, markers
        yield self._poses, poses_to_msg(answer.scene, header)
        if self._cloud.get_subscription_count():
            yield self._cloud, cloud_to_msg(answer.scene, answer.rgb, header)

    def publish_answer(self, answer: Answer, composed: list[tuple[Any, Any]]) -> None:
        """Publish an answer: the pictures are there when the result is heard."""
        for publisher, msg in composed:
            self.publish(publisher, msg)
        self.publish(self._result, answer.msg)
        wanted = answer.result is not None and read_config(self._node).publish_overlay
        if wanted and self._overlay.get_subscription_count():
            self._painter.offer(answer)

    def publish_trace(self, trace: ReasoningTrace) -> None:
        """Publish a piece of the thinking."""
        self.publish(self._trace, trace)

    def publish_status(self, status: Status) -> None:
        """Publish the state; in order, whichever threads tell it."""
        with self._status_lock:
            self.publish(self._status, status)

    @property
    def has_track_listener(self) -> bool:
        """Whether somebody subscribes to ~/tracks."""
        return bool(self._tracks.get_subscription_count())

    def publish_tracks(self, tracks: TrackArray) -> None:
        """Publish where the followed objects are in one picture."""
        self.publish(self._tracks, tracks)

    def publish(self, publisher: Any, msg: Any) -> None:
        """Publish, unless the node has been shut down meanwhile."""
        try:
            publisher.publish(msg)
        except Exception:
            if self._node.context.ok():
                raise

    def close(self) -> None:
        """Wait a moment for subscribers that have not heard the last result yet."""
        self._painter.stop(FAREWELL_TIMEOUT_S)
        if self._node.context.ok():
            self._result.wait_for_all_acked(Duration(seconds=FAREWELL_TIMEOUT_S))

    def _draw_overlay(self, answer: Answer) -> None:
        try:
            from segzero_core import draw_overlay

            assert answer.result is not None
            result = answer.result
            pixels = draw_overlay(answer.rgb, result.segmentation, result.reasoning.prompts)
            self.publish(self._overlay, msg_from_array(pixels, "rgb8", answer.msg.header))
        except Exception:  # the result is out: a second one would contradict it
            self._node.log_defect("while drawing the overlay")

    def _publisher(self, kind: Any, topic: str, profile: Any) -> Any:
        def mismatched(_: Any) -> None:
            name = publisher.topic_name
            subscriptions = self._node.get_subscriptions_info_by_topic(name)
            lines = qos.fix_for_publisher(name, publisher.qos_profile, subscriptions)
            self._on_mismatch(name, lines)

        publisher = self._node.create_publisher(
            kind,
            topic,
            event_callbacks=PublisherEventCallbacks(incompatible_qos=mismatched),
            **qos.overridable(profile),
        )
        return publisher
