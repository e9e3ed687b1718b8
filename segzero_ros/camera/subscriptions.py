"""Subscriptions to the camera: image, depth and camera_info, received as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from segzero_core.errors import InputError
from segzero_ros import qos
from segzero_ros.camera.image_buffer import CameraFrame, ImageBuffer


def subscribe_camera(
    endpoints: qos.Endpoints,
    buffer: ImageBuffer,
    transport: str,
    on_frame: Callable[[CameraFrame], None],
    on_unreadable: Callable[[str, str], None],
) -> str:
    """Fill the image buffer from the camera's topics; return the full name of that of images.

    The transport is `raw` or `compressed`; `on_frame` is called with every image that is kept,
    `on_unreadable` with a topic and the reason why a message of it is dropped.
    """
    kind: Any = Image
    image_topic = endpoints.node.resolve_topic_name("image")
    if transport == "compressed":
        # As image_transport does: the base name is remapped, then the transport is appended.
        kind, image_topic = CompressedImage, image_topic + "/compressed"

    def on_image(serialized: bytes) -> None:
        if (frame := buffer.add_image(serialized, kind)) is not None:
            on_frame(frame)

    def receive(topic: str, message: Any, take: Callable[[bytes], object]) -> None:
        def callback(serialized: bytes) -> None:
            try:
                take(serialized)
            except InputError as error:
                on_unreadable(topic, str(error))

        endpoints.subscribe(message, topic, callback, qos.CAMERA, raw=True)

    receive(image_topic, kind, on_image)
    receive("depth/image", Image, buffer.add_depth)
    receive("camera_info", CameraInfo, buffer.add_camera_info)
    return image_topic
