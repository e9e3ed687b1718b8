"""Images as messages and as arrays, with at most one copy of the pixels either way.

Eight encodings are converted here; any other goes to cv_bridge where it is installed.
"""

from __future__ import annotations

import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from segzero_core.errors import InputError, shown
from segzero_core.images import encodings
from segzero_core.images.encodings import ENCODINGS


def rgb_from_msg(msg: Image) -> NDArray[np.uint8]:
    """Convert a camera image to uint8 RGB; encodings that the core does not know by cv_bridge.

    Raises:
        InputError: The image cannot be read; the message says why and what to do.
    """
    if msg.encoding in ENCODINGS:
        return encodings.rgb_from_msg(msg)
    known = (
        f"{shown(msg.encoding)} is none of the encodings converted here ({', '.join(ENCODINGS)})"
    )
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError) as error:  # AttributeError: built for another numpy
        raise InputError(
            f"image encoding {known}, and cv_bridge, which knows more, cannot be imported "
            f"({error}); publish rgb8, or install ros-${{ROS_DISTRO}}-cv-bridge"
        ) from error
    try:
        rgb = CvBridge().imgmsg_to_cv2(msg, desired_encoding="rgb8")
    except Exception as error:  # CvBridgeError, cv2.error and whatever a broken image brings
        raise InputError(
            f"image encoding {known}, and cv_bridge refused it too ({error}); publish rgb8"
        ) from error
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def msg_from_array(pixels: NDArray[np.generic], encoding: str, header: Header) -> Image:
    """Build a message from an array [H, W] or [H, W, C] of one of `ENCODINGS`, with one copy."""
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise InputError(f"image encoding {encoding!r} is none of {', '.join(ENCODINGS)}")
    tail = (layout.channels,) if layout.channels > 1 else ()
    native = pixels.dtype.newbyteorder("=")
    if native != np.dtype(layout.dtype) or pixels.ndim < 2 or pixels.shape[2:] != tail:
        raise InputError(
            f"an image {encoding} takes {np.dtype(layout.dtype)} {['H', 'W', *tail]}, "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    height, width = pixels.shape[:2]
    data = array.array("B")
    if pixels.size:
        little = np.dtype(layout.dtype).newbyteorder("<")
        # Assigning bytes or a list to the field instead is up to a hundred times slower.
        data.frombytes(np.ascontiguousarray(pixels, dtype=little).data.cast("B"))
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=width * layout.bytes_per_pixel,
        data=data,
    )


def mask_to_msg(mask: NDArray[np.bool_], header: Header) -> Image:
    """Build a mono8 message, 255 on the object and 0 elsewhere."""
    return msg_from_array(mask.astype(np.uint8) * np.uint8(255), "mono8", header)
