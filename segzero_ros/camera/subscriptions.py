"""What the node hears: the camera, in bytes, and questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from segzero_ros import qos

if TYPE_CHECKING:
    from collections.abc import Callable

    from segzero_ros.node import SegZeroNode


class Inputs:
    """The node's subscriptions.

    Args:
        node: Whose they are.
        on_query: Called with the text of a question.
        on_mismatch: Called with a topic and lines of advice when a publisher cannot be heard.

    Attributes:
        image_topic: Full name of the topic of pictures.
    """

    def __init__(
        self,
        node: SegZeroNode,
        on_query: Callable[[str], None],
        on_mismatch: Callable[[str, list[str]], None],
    ) -> None:
        self._node = node
        self._on_query = on_query
        self._on_mismatch = on_mismatch
        ring = node.ring
        kind: Any = Image
        self.image_topic = node.resolve_topic_name("image")
        if node.config.image_transport == "compressed":
            # As image_transport does: the base name is remapped, then the transport is appended.
            kind, self.image_topic = CompressedImage, self.image_topic + "/compressed"

        def on_image(packed: bytes) -> None:
            if node.is_accepting:
                node.picture_arrived(ring.add_picture(packed, kind))

        self._hear(kind, self.image_topic, on_image, qos.NEWEST_IMAGE, raw=True)
        for topic, info_kind, add in (
            ("depth/image", Image, ring.add_depth),
            ("camera_info", CameraInfo, ring.add_camera_info),
        ):
            self._hear(info_kind, topic, add, qos.NEWEST_IMAGE, raw=True)
        self._hear(String, "~/query", lambda msg: self._on_query(msg.data), qos.QUERY)

    def _hear(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        profile: Any,
        *,
        raw: bool = False,
    ) -> None:
        def mismatched(_: Any) -> None:
            name = subscription.topic_name
            publishers = self._node.get_publishers_info_by_topic(name)
            lines = qos.fix_for_subscription(name, subscription.qos_profile, publishers)
            self._on_mismatch(name, lines)

        def survived(msg: Any) -> None:
            try:
                callback(msg)
            except Exception:  # rclpy would end the node
                self._node.log_defect(f"in the callback of {topic}")

        subscription = self._node.create_subscription(
            kind,
            topic,
            survived,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=mismatched),
            raw=raw,
            **qos.overridable(profile),
        )
