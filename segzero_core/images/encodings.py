"""Decodes sensor_msgs/Image and CompressedImage without ROS.

cv_bridge and ros2_numpy do the same, but need ROS; bags are read without it. A message is any
object with the fields of the ROS message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from segzero_core.errors import InputError, shown
from segzero_core.images.files import UNREADABLE_IMAGE, open_image
from segzero_core.limits import MAX_IMAGE_PX


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that are read."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage that are read."""

    format: str
    data: Any


@dataclass(frozen=True, slots=True)
class Encoding:
    """Layout of a pixel."""

    dtype: str  # type of a channel
    channels: int  # number of channels
    rgb_order: tuple[int, ...] = ()  # indices of red, green and blue; empty for a single channel

    @property
    def bytes_per_pixel(self) -> int:
        """Size of one pixel."""
        return np.dtype(self.dtype).itemsize * self.channels


ENCODINGS: Final = {
    "rgb8": Encoding("u1", 3, (0, 1, 2)),
    "bgr8": Encoding("u1", 3, (2, 1, 0)),
    "rgba8": Encoding("u1", 4, (0, 1, 2)),
    "bgra8": Encoding("u1", 4, (2, 1, 0)),
    "mono8": Encoding("u1", 1),
    "mono16": Encoding("u2", 1),
    "16UC1": Encoding("u2", 1),
    "32FC1": Encoding("f4", 1),
}


def array_from_msg(msg: ImageMessage) -> NDArray[np.generic]:
    """Return a message's pixels [H, W] or [H, W, C], in the encoding's type and channel order.

    Raises:
        InputError: The encoding is none of `ENCODINGS`, or size, step and data contradict.
    """
    encoding = ENCODINGS.get(msg.encoding)
    if encoding is None:
        raise InputError(
            f"image encoding {shown(msg.encoding)} is none of {', '.join(ENCODINGS)}; "
            "publish one of these"
        )
    _check_layout(msg, encoding.bytes_per_pixel)
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if msg.is_bigendian else "<")
    shape: tuple[int, ...] = (msg.height, msg.width)
    strides: tuple[int, ...] = (msg.step, encoding.bytes_per_pixel)
    if encoding.channels > 1:
        shape += (encoding.channels,)
        strides += (dtype.itemsize,)
    pixels: NDArray[np.generic] = np.ndarray(shape, dtype, memoryview(msg.data), strides=strides)
    pixels.flags.writeable = False
    return pixels


def _check_layout(msg: ImageMessage, bytes_per_pixel: int) -> None:
    if msg.width == 0 or msg.height == 0:
        raise InputError(f"image: {msg.width}x{msg.height} pixels; it is empty")
    least_step = msg.width * bytes_per_pixel
    if msg.step < least_step:
        raise InputError(
            f"image step: {msg.step} bytes, but {msg.width} pixels of {msg.encoding} "
            f"take {least_step}; set step to that or more"
        )
    if len(msg.data) != msg.step * msg.height:
        raise InputError(
            f"image data: {len(msg.data)} bytes, but step {msg.step} times height {msg.height} "
            f"is {msg.step * msg.height}; send whole rows"
        )


def rgb_from_msg(msg: ImageMessage) -> NDArray[np.uint8]:
    """Convert an image message to RGB, uint8 [H, W, 3], contiguous and read-only.

    It shares memory with an rgb8 message without padding.

    Raises:
        InputError: The image cannot be read; the message says why and what to do.
    """
    pixels = array_from_msg(msg)
    encoding = ENCODINGS[msg.encoding]
    if encoding.rgb_order:
        reverse = encoding.rgb_order[0] == 2
        rgb = np.ascontiguousarray(pixels[..., 2::-1] if reverse else pixels[..., :3])
    else:
        rgb = np.empty((msg.height, msg.width, 3), np.uint8)
        _fill_gray(rgb, pixels[..., np.newaxis], msg.encoding)
    rgb.flags.writeable = False
    return rgb


def _fill_gray(rgb: NDArray[np.uint8], pixels: NDArray[np.generic], encoding: str) -> None:
    """Write one channel [H, W, 1] of any type into all three of an 8-bit image."""
    if encoding == "mono8":
        rgb[...] = pixels
    elif encoding == "mono16":
        np.right_shift(pixels, 8, out=rgb, casting="unsafe")
    else:
        finite = np.isfinite(pixels)
        values = pixels[finite].astype(np.float64)
        rgb[...] = 0
        if values.size and (span := values.max() - values.min()) > 0:
            rgb[finite[..., 0]] = ((values - values.min()) * (255.0 / span))[..., np.newaxis]


def rgb_from_compressed_msg(
    msg: CompressedMessage, max_px: int = MAX_IMAGE_PX
) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG message of at most `max_px` pixels into uint8 [H, W, 3].

    Raises:
        InputError: It is no image, a damaged one, or has more pixels.
    """
    try:
        with open_image(bytes(memoryview(msg.data)), ("JPEG", "PNG"), max_px) as image:
            if image.mode.startswith(("I", "F")):  # 16 bits: Pillow would clip at 255
                gray = np.asarray(image).astype(np.uint32) >> 8
                clipped = np.clip(gray, 0, 255).astype(np.uint8)
                return np.asarray(clipped[..., np.newaxis].repeat(3, axis=2), np.uint8)
            return np.asarray(image.convert("RGB"))
    except InputError as error:
        raise InputError(f"compressed image: {error}") from error
    except UNREADABLE_IMAGE as error:
        # Pillow's own message for an unknown format is the address of a buffer.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "they begin like neither" if unknown else str(error)
        raise InputError(
            f"compressed image: {len(msg.data)} bytes with format {shown(msg.format)} are no "
            f"readable JPEG or PNG ({reason})"
        ) from error
