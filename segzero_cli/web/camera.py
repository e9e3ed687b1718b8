"""What the page receives of a robot: the camera's latest images, its calibration, the cloud."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from segzero_cli.web.space import points_record
from segzero_cli.web.uploads import encode_image
from segzero_core.depth import CameraModel, camera_from_info
from segzero_core.errors import InputError
from segzero_core.limits import USUAL_IMAGE_PX
from segzero_ros import qos
from segzero_ros.camera.image_buffer import CameraFrame
from segzero_ros.camera.serialized import check_whole, stamp_ns
from segzero_ros.messages.poses import points_from_msg

KEPT: Final = 16
"""Images before and after the moment at which work on a question begins."""
CLOUD_TIMEOUT_S: Final = 1.0


class RobotCamera:
    """Receives the topics in the executor's thread; may be read from any.

    Args:
        node: Subscribes.
        topic: Of the images; CompressedImage where it ends in `/compressed`.
        cloud_topic: Of the objects' points.
    """

    def __init__(self, node: Node, topic: str, cloud_topic: str) -> None:
        self.topic = topic
        self._kind = CompressedImage if topic.endswith("/compressed") else Image
        self._changed = threading.Condition()
        self._latest: deque[CameraFrame] = deque(maxlen=KEPT)
        self._held: list[CameraFrame] | None = None
        self._info: CameraInfo | None = None
        self._cloud: PointCloud2 | None = None
        self._jpeg: tuple[CameraFrame, bytes] | None = None

        def subscribe(kind: Any, name: str, take: Callable[..., None], **options: Any) -> None:
            node.create_subscription(kind, name, take, qos.CAMERA, **options)

        subscribe(self._kind, topic, self._on_image, raw=True)
        base = topic.removesuffix("/compressed").rpartition("/")[0]
        subscribe(CameraInfo, f"{base}/camera_info", self._on_info)
        subscribe(PointCloud2, cloud_topic, self._on_cloud)

    def _on_image(self, serialized: bytes) -> None:
        try:
            check_whole(serialized, self._kind)
        except InputError:
            return  # the image before it stays
        frame = CameraFrame(serialized, self._kind, stamp_ns=stamp_ns(serialized))
        with self._changed:
            self._latest.append(frame)
            if self._held is not None and len(self._held) < 2 * KEPT:
                self._held.append(frame)

    def _on_info(self, msg: CameraInfo) -> None:
        self._info = msg

    def _on_cloud(self, msg: PointCloud2) -> None:
        with self._changed:
            self._cloud = msg
            self._changed.notify_all()

    def hold(self) -> None:
        """Keep the images around this moment, one of which is being answered about."""
        with self._changed:
            self._held = list(self._latest)

    def held(self, wanted_ns: int) -> tuple[CameraFrame, bool] | None:
        """Return the kept image whose stamp is nearest, and whether it is the same."""
        with self._changed:
            frames = self._held or list(self._latest)
        if not frames:
            return None
        nearest = min(frames, key=lambda frame: abs(frame.stamp_ns - wanted_ns))
        return nearest, nearest.stamp_ns == wanted_ns

    def jpeg(self) -> bytes:
        """Return the newest image as a JPEG; it is encoded once for all visitors.

        Raises:
            InputError: None has come, or it cannot be read.
        """
        with self._changed:
            frame = self._latest[-1] if self._latest else None
        if frame is None:
            raise InputError(
                f"no image has come on {self.topic}; start the camera, or name its topic with "
                "`segzero web --topic`"
            )
        known = self._jpeg
        if known is None or known[0] is not frame:
            known = frame, encode_image(frame.rgb(USUAL_IMAGE_PX), "JPEG")
            self._jpeg = known
        return known[1]

    def model(self) -> CameraModel | None:
        """Return the calibration; None where none has come or it is none."""
        try:
            return camera_from_info(self._info, rectified=False) if self._info else None
        except InputError:
            return None

    def cloud(self, stamp: Any) -> dict[str, Any] | None:
        """Return the objects' points of a stamp, waiting for them a little."""
        with self._changed:
            came = self._changed.wait_for(
                lambda: self._cloud is not None and self._cloud.header.stamp == stamp,
                CLOUD_TIMEOUT_S,
            )
            msg = self._cloud
        if not came or msg is None or not msg.width:
            return None
        try:
            points_m, color = points_from_msg(msg)
        except InputError:
            return None
        return points_record(points_m, color, np.ones(len(points_m), np.uint8))
