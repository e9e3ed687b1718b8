"""Buffer of the camera's latest images, each with the depth and camera_info of the same moment.

Images are kept as the bytes that came: at 30 Hz almost all are dropped unseen, and deserializing a
message costs more than receiving it. Only the stamp is read on arrival.

message_filters is not used: the ROS wheels that `make demo` installs lack it, and its synchronizer
passes complete sets only, while a query must be answered without depth too, and depth may come
after the image that it belongs to.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property, partialmethod
from typing import Final

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from segzero_core.errors import InputError
from segzero_core.images.encodings import rgb_from_compressed_msg
from segzero_core.limits import MAX_IMAGE_PX
from segzero_core.types import RgbImage
from segzero_ros.camera.serialized import check_whole, stamp_ns
from segzero_ros.conversions.images import rgb_from_msg
from segzero_ros.msg import SegmentationResult

_NS_PER_S: Final = 1_000_000_000


@dataclass(eq=False)
class CameraFrame:
    """An image of the camera or of a goal, with the depth and camera_info of the same moment.

    Depth and camera_info may arrive later than the image, also while the model works on it.
    """

    # The bytes of the message, or the message itself where it came in a goal.
    serialized: bytes | Image | CompressedImage
    kind: type[Image] | type[CompressedImage] = Image  # its type
    # When, on the monotonic clock [s]. Not the stamp: a bag's is years old, and two machines'
    # clocks differ.
    arrived_s: float = field(default_factory=time.monotonic)
    stamp_ns: int = 0  # of the camera [ns]; 0 where the camera gives none
    serialized_depth: bytes | None = None  # the bytes of the paired depth image
    serialized_info: bytes | None = None  # the bytes of the paired camera_info
    # How far from the image in time the two are, by their attributes' names [ns].
    apart_ns: dict[str, int] = field(default_factory=dict)

    @cached_property
    def msg(self) -> Image | CompressedImage:
        """The message, deserialized when first asked for; an InputError where it cannot be."""
        if not isinstance(self.serialized, bytes):
            return self.serialized
        try:
            return deserialize_message(self.serialized, self.kind)
        except Exception as error:  # rclpy's, with no common root
            raise InputError(f"the image's message cannot be read: {error}") from error

    @property
    def header(self) -> Header:
        """The header that everything published about this image carries; empty if unreadable."""
        try:
            return self.msg.header
        except InputError:
            return Header()

    @property
    def depth(self) -> Image | None:
        """The depth image of the same moment."""
        return deserialize_message(self.serialized_depth, Image) if self.serialized_depth else None

    @property
    def camera_info(self) -> CameraInfo | None:
        """The calibration of the same moment."""
        serialized = self.serialized_info
        return deserialize_message(serialized, CameraInfo) if serialized else None

    def rgb(self, max_px: int = MAX_IMAGE_PX) -> RgbImage:
        """Convert to uint8 [H, W, 3]; an InputError where that cannot be done."""
        msg = self.msg
        if isinstance(msg, CompressedImage):
            return rgb_from_compressed_msg(msg, max_px)
        if msg.width * msg.height > max_px:
            raise InputError(f"{msg.width}x{msg.height} pixels, at most {max_px} are allowed")
        return rgb_from_msg(msg)


class ImageBuffer:
    """Ring buffer of images, paired with depth and camera_info as these arrive, in any order.

    `size` of each are kept, and `tolerance_s` is how far apart two stamps of one moment may be.
    Nothing is paired with a stamp of zero, which says nothing about the moment. A clock that jumps
    needs no care: partners are looked for among a few messages, and those of the time before the
    jump are pushed out. Safe to use from several threads. Closed at first: whatever comes while it
    is closed is dropped.
    """

    def __init__(self, size: int, tolerance_s: float) -> None:
        self._tolerance_ns = round(tolerance_s * _NS_PER_S)
        self._lock = threading.Lock()
        self._is_open = False
        self._frames: deque[CameraFrame] = deque(maxlen=size)
        self._unpaired: dict[str, deque[tuple[int, bytes]]] = {
            part: deque(maxlen=size) for part in ("serialized_depth", "serialized_info")
        }
        self.clock_jumps = 0  # how often a stamp was older than the one before it

    @property
    def latest(self) -> CameraFrame | None:
        """The image that arrived last, whatever its stamp."""
        with self._lock:
            return self._frames[-1] if self._frames else None

    @property
    def has_depth(self) -> bool:
        """Whether any depth image arrived at all."""
        with self._lock:
            return bool(self._unpaired["serialized_depth"])

    def open(self) -> None:
        """Keep what arrives from now on."""
        with self._lock:
            self._is_open = True

    def close(self) -> None:
        """Forget everything and drop what arrives, so that no old image is answered later."""
        with self._lock:
            self._is_open = False
            self._frames.clear()
            for messages in self._unpaired.values():
                messages.clear()

    def add_image(
        self, serialized: bytes, kind: type[Image] | type[CompressedImage]
    ) -> CameraFrame | None:
        """Keep an image; None if the buffer is closed.

        Raises:
            InputError: It is damaged; the images before it stay.
        """
        check_whole(serialized, kind)
        frame = CameraFrame(serialized, kind, stamp_ns=stamp_ns(serialized))
        with self._lock:
            if not self._is_open:
                return None
            if self._frames and frame.stamp_ns < self._frames[-1].stamp_ns:
                self.clock_jumps += 1
            for part, messages in self._unpaired.items():
                for stamp, message in messages:
                    self._pair(frame, part, message, stamp)
            self._frames.append(frame)
        return frame

    def _add_part(self, part: str, serialized: bytes) -> None:
        """Pair a message with the image of its moment, or keep it for that one."""
        stamp = stamp_ns(serialized)
        with self._lock:
            if self._is_open:
                self._unpaired[part].append((stamp, serialized))
                for frame in self._frames:
                    self._pair(frame, part, serialized, stamp)

    add_depth = partialmethod(_add_part, "serialized_depth")
    add_camera_info = partialmethod(_add_part, "serialized_info")

    def _pair(self, frame: CameraFrame, part: str, serialized: bytes, stamp: int) -> None:
        """Give a frame its depth or camera_info, unless what it has is nearer in time."""
        apart_ns = abs(frame.stamp_ns - stamp)
        limit_ns = frame.apart_ns.get(part, self._tolerance_ns + 1)
        if frame.stamp_ns and stamp and apart_ns < limit_ns:
            setattr(frame, part, serialized)
            frame.apart_ns[part] = apart_ns


def why_unusable(frame: CameraFrame | None, max_age_s: float) -> tuple[int, str] | None:
    """Say why an image cannot be asked about, as an error code and a reason."""
    if frame is None:
        return SegmentationResult.NO_IMAGE, (
            "no image has arrived yet; is the camera running, and is `image` remapped to its "
            "topic?"
        )
    age_s = time.monotonic() - frame.arrived_s
    if max_age_s and age_s > max_age_s:
        return SegmentationResult.STALE_IMAGE, (
            f"the latest image arrived {age_s:.1f} s ago, at most {max_age_s:g} s are allowed "
            "(max_image_age_s); does the camera still run?"
        )
    return None


def is_empty(image: Image) -> bool:
    """Whether a goal's image means the camera's."""
    return not (image.width or image.height or len(image.data))
