"""The camera's last pictures, each with the depth and the camera_info of the same moment.

Pictures are kept as the bytes that came: at 30 Hz almost all are thrown away unseen, and unpacking
a message costs more than receiving it. Only the stamp is read on arrival.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from segzero_core.errors import InputError
from segzero_ros.conversions.images import rgb_from_compressed_msg, rgb_from_msg
from segzero_ros.msg import SegmentationResult

if TYPE_CHECKING:
    from std_msgs.msg import Header

    from segzero_core.types import RgbImage

_NS_PER_S: Final = 1_000_000_000
_STAMP_END: Final = 12  # 4 bytes that say how the rest is encoded, then seconds and nanoseconds


def stamp_ns(packed: bytes) -> int:
    """Read the stamp of a packed message that begins with a header, in nanoseconds.

    Source: OMG DDS-XTypes 1.3, 7.6.2 (two bytes say the encoding; odd is little-endian).

    Raises:
        InputError: It is too short to have a header.
    """
    if len(packed) < _STAMP_END:
        raise InputError(f"a message of {len(packed)} bytes is too short to have a header")
    order = "<" if packed[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", packed, 4)
    return int(sec) * _NS_PER_S + int(nanosec)


@dataclass(eq=False)
class Picture:
    """A picture of the camera or of a goal, and what was seen at the same moment.

    `depth` and `camera_info` may come later than the picture, also while a model thinks about it.

    Attributes:
        packed: The bytes of the message, or the message itself where it came in a goal.
        kind: Its type.
        arrived_s: When, on the monotonic clock [s]. Not the stamp: a bag's is years old, and
            two machines' clocks differ.
        stamp_ns: Of the camera [ns]; 0 where the camera gives none.
        packed_depth: The bytes of the paired depth image.
        packed_info: The bytes of the paired camera_info.
    """

    packed: bytes | Image | CompressedImage
    kind: type[Image] | type[CompressedImage] = Image
    arrived_s: float = field(default_factory=time.monotonic)
    stamp_ns: int = 0
    packed_depth: bytes | None = None
    packed_info: bytes | None = None
    _apart_ns: dict[str, int] = field(default_factory=dict)

    @cached_property
    def msg(self) -> Image | CompressedImage:
        """The message, unpacked when first asked for."""
        if isinstance(self.packed, bytes):
            return deserialize_message(self.packed, self.kind)
        return self.packed

    @property
    def header(self) -> Header:
        """The header, which everything published about this picture carries."""
        return self.msg.header

    @property
    def depth(self) -> Image | None:
        """The depth image of the same moment."""
        return deserialize_message(self.packed_depth, Image) if self.packed_depth else None

    @property
    def camera_info(self) -> CameraInfo | None:
        """The calibration of the same moment."""
        return deserialize_message(self.packed_info, CameraInfo) if self.packed_info else None

    def rgb(self) -> RgbImage:
        """Convert to uint8 [H, W, 3].

        Raises:
            InputError: It cannot be read.
        """
        if isinstance(self.msg, CompressedImage):
            return rgb_from_compressed_msg(self.msg)
        return rgb_from_msg(self.msg)

    def attach(self, part: str, packed: bytes, apart_ns: int) -> None:
        """Take depth or camera_info, unless what is there is nearer in time."""
        if apart_ns < self._apart_ns.get(part, apart_ns + 1):
            setattr(self, part, packed)
            self._apart_ns[part] = apart_ns


class PictureRing:
    """The last pictures, paired with depth and camera_info as these arrive, in any order.

    Nothing is paired with a stamp of zero, which says nothing about the moment. A clock that jumps
    needs no care: partners are looked for among a few messages, and those of the time before the
    jump are pushed out. Safe to use from several threads.

    Args:
        size: How many of each are kept.
        tolerance_s: How far apart two stamps of one moment may be [s].
    """

    def __init__(self, size: int, tolerance_s: float) -> None:
        self._tolerance_ns = round(tolerance_s * _NS_PER_S)
        self._lock = threading.Lock()
        self._pictures: deque[Picture] = deque(maxlen=size)
        self._waiting: dict[str, deque[tuple[int, bytes]]] = {
            part: deque(maxlen=size) for part in ("packed_depth", "packed_info")
        }
        self._jumps = 0

    @property
    def newest(self) -> Picture | None:
        """The picture that arrived last, whatever its stamp."""
        with self._lock:
            return self._pictures[-1] if self._pictures else None

    @property
    def clock_jumps(self) -> int:
        """How often a stamp was older than the one before it."""
        return self._jumps

    @property
    def has_depth(self) -> bool:
        """Whether any depth image arrived at all."""
        with self._lock:
            return bool(self._waiting["packed_depth"])

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._pictures.clear()
            for each in self._waiting.values():
                each.clear()

    def add_picture(self, packed: bytes, kind: type[Image] | type[CompressedImage]) -> Picture:
        """Keep a picture."""
        picture = Picture(packed, kind, stamp_ns=stamp_ns(packed))
        with self._lock:
            if self._pictures and picture.stamp_ns < self._pictures[-1].stamp_ns:
                self._jumps += 1
            for part, waiting in self._waiting.items():
                for stamp, other in waiting:
                    self._pair(picture, part, other, stamp)
            self._pictures.append(picture)
        return picture

    def add_depth(self, packed: bytes) -> None:
        """Pair a depth image with the picture of its moment, or keep it for that one."""
        self._add_part("packed_depth", packed)

    def add_camera_info(self, packed: bytes) -> None:
        """Pair a camera_info with the picture of its moment, or keep it for that one."""
        self._add_part("packed_info", packed)

    def _add_part(self, part: str, packed: bytes) -> None:
        stamp = stamp_ns(packed)
        with self._lock:
            self._waiting[part].append((stamp, packed))
            for picture in self._pictures:
                self._pair(picture, part, packed, stamp)

    def _pair(self, picture: Picture, part: str, packed: bytes, stamp: int) -> None:
        apart = abs(picture.stamp_ns - stamp)
        if picture.stamp_ns and stamp and apart <= self._tolerance_ns:
            picture.attach(part, packed, apart)


def picture_trouble(picture: Picture | None, max_age_s: float) -> tuple[int, str] | None:
    """Say why a picture cannot be asked about, as an error code and a reason."""
    if picture is None:
        return SegmentationResult.NO_IMAGE, (
            "no picture has arrived yet; is the camera running, and is `image` remapped to its "
            "topic?"
        )
    age_s = time.monotonic() - picture.arrived_s
    if max_age_s and age_s > max_age_s:
        return SegmentationResult.STALE_IMAGE, (
            f"the newest picture arrived {age_s:.1f} s ago, at most {max_age_s:g} s are allowed "
            "(max_image_age_s); does the camera still run?"
        )
    return None


def is_empty(image: Image) -> bool:
    """Whether a goal's image means the camera's."""
    return not (image.width or image.height or len(image.data))
