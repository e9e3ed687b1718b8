"""Subscriptions to the camera: image, depth and camera_info, received as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from segzero_ros import qos

if TYPE_CHECKING:
    from collections.abc import Callable

    from segzero_ros.camera.image_buffer import CameraFrame, ImageBuffer


class CameraSubscriptions:
    """Fills the image buffer from the camera's topics.

    Args:
        endpoints: Makes the subscriptions.
        buffer: Keeps what arrives.
        transport: `raw` or `compressed`.
        on_frame: Called with every image that was kept.

    Attributes:
        image_topic: Full name of the topic of images.
    """

    def __init__(
        self,
        endpoints: qos.Endpoints,
        buffer: ImageBuffer,
        transport: str,
        on_frame: Callable[[CameraFrame], None],
    ) -> None:
        kind: Any = Image
        self.image_topic = endpoints.resolve("image")
        if transport == "compressed":
            # As image_transport does: the base name is remapped, then the transport is appended.
            kind, self.image_topic = CompressedImage, self.image_topic + "/compressed"

        def on_image(serialized: bytes) -> None:
            if (frame := buffer.add_image(serialized, kind)) is not None:
                on_frame(frame)

        for topic, message, callback in (
            (self.image_topic, kind, on_image),
            ("depth/image", Image, buffer.add_depth),
            ("camera_info", CameraInfo, buffer.add_camera_info),
        ):
            endpoints.subscribe(message, topic, callback, qos.LATEST_IMAGE, raw=True)
