"""Reads the images of a recorded bag without ROS: mcap or sqlite3, by `rosbags`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import ConfigError, InputError, SegZeroError
from segzero_core.images.encodings import rgb_from_compressed_msg, rgb_from_msg
from segzero_core.types import RgbImage

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO: Final = "sensor_msgs/msg/CameraInfo"
_MAX_MESSAGES: Final = 10**9  # a year of images at 30 Hz
_READERS: Final[dict[str, Callable[[Any], RgbImage]]] = {
    IMAGE: rgb_from_msg,
    COMPRESSED: rgb_from_compressed_msg,
}


@dataclass(frozen=True, eq=False)
class BagImage:
    """One image of a topic."""

    number: int  # index among all messages of the topic, from 0
    recorded_ns: int  # when it was recorded [ns]
    stamp_ns: int = 0  # stamp of its header [ns]; 0 where the message cannot be decoded
    frame_id: str = ""  # frame of its header
    pixels: RgbImage | None = None  # uint8 [H, W, 3], RGB; None where it cannot be read
    error: str = ""  # why it cannot be read; empty where it can
    message: tuple[str, bytes] | None = None  # its type and the message as recorded


@dataclass(frozen=True, eq=False)
class BagTopic:
    """A topic of images in an open bag; made by `open_topic`."""

    path: Path
    reader: Any
    connections: list[Any]
    store: Any

    @property
    def count(self) -> int:
        """How many messages it has."""
        return sum(connection.msgcount for connection in self.connections)

    def images(self, every: int = 1, limit: int | None = None) -> Iterator[BagImage]:
        """Read each N-th image as recorded, up to a limit; an InputError if the bag is damaged."""
        messages = self.reader.messages(connections=self.connections)
        wanted = range(0, self.count, every)[:limit]
        for number in range(wanted[-1] + 1):
            with _damage_as_input_error(self.path):
                message = next(messages, None)
            if message is None:
                return
            if number in wanted:
                connection, recorded_ns, data = message
                yield self._decode(number, recorded_ns, data, connection.msgtype)

    def messages(self) -> Iterator[Any]:
        """Read the messages that can be decoded; an InputError if the bag is damaged."""
        messages = self.reader.messages(connections=self.connections)
        for _ in range(self.count):
            with _damage_as_input_error(self.path):
                message = next(messages, None)
            if message is None:
                return
            with suppress(InputError):
                yield self._deserialize(message[2], message[0].msgtype)

    def _deserialize(self, data: Any, kind: str) -> Any:
        try:
            return self.store.deserialize_cdr(data, kind)
        except Exception as error:  # struct.error, UnicodeDecodeError, AssertionError, …
            raise InputError(f"cannot be decoded: {error or type(error).__name__}") from error

    def _decode(self, number: int, recorded_ns: int, data: Any, kind: str) -> BagImage:
        try:
            msg = self._deserialize(data, kind)
        except InputError as error:
            return BagImage(number, recorded_ns, error=f"message {number} {error}")
        recorded = (kind, bytes(data))
        stamp_ns = header_ns(msg)
        pixels, reason = None, ""
        try:
            pixels = _READERS[kind](msg)
        except InputError as error:
            reason = str(error)
        return BagImage(
            number, recorded_ns, stamp_ns, msg.header.frame_id, pixels, reason, recorded
        )


def header_ns(msg: Any) -> int:
    """Return the stamp of a message's header [ns]."""
    return int(msg.header.stamp.sec) * 10**9 + int(msg.header.stamp.nanosec)


@contextmanager
def _damage_as_input_error(path: Path) -> Iterator[None]:
    """Turn whatever a broken file makes the reader raise into an `InputError`."""
    try:
        yield
    except SegZeroError:
        raise
    except Exception as error:  # struct.error, sqlite3.Error, ReaderError, zstd's own, …
        reason = str(error) or type(error).__name__
        raise InputError(f"bag {path}: is damaged or no bag: {reason}") from error


@contextmanager
def open_topic(
    path: Path, topic: str, kinds: Sequence[str] = (IMAGE, COMPRESSED)
) -> Iterator[BagTopic]:
    """Open a topic of a bag: a folder, or a single mcap or db3 file.

    Raises:
        ConfigError: `rosbags` is not installed.
        InputError: There is no such bag or topic, it is of none of these kinds, has no message,
            or the bag is damaged.
    """
    try:
        from rosbags.rosbag2 import Reader
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"reading bags needs the package {error.name}; pip install 'segzero[bags]'"
        ) from error
    if not path.exists():
        raise InputError(f"bag {path}: there is no such file or folder")
    with _damage_as_input_error(path):
        reader = Reader(path)
        reader.open()
    try:
        connections = _connections(path, reader, topic, kinds)
        yield BagTopic(path, reader, connections, get_typestore(Stores.ROS2_JAZZY))
    finally:
        reader.close()


def _connections(path: Path, reader: Any, topic: str, kinds: Sequence[str]) -> list[Any]:
    chosen = [connection for connection in reader.connections if connection.topic == topic]
    offered = sorted({each.topic for each in reader.connections if each.msgtype in kinds})
    what = "camera_info" if CAMERA_INFO in kinds else "images"
    listed = f"topics of {what}: {', '.join(offered)}" if offered else f"it has no {what}"
    if not chosen:
        raise InputError(f"bag {path}: has no topic {topic!r}; {listed}")
    found = {connection.msgtype for connection in chosen}
    if not found <= set(kinds):
        neither = f"neither {' nor '.join(kinds)}" if len(kinds) > 1 else f"not {kinds[0]}"
        raise InputError(f"bag {path}: {topic} is {', '.join(sorted(found))}, {neither}; {listed}")
    counts = [connection.msgcount for connection in chosen]
    if min(counts) < 0 or sum(counts) > _MAX_MESSAGES:
        counted = ", ".join(str(count) for count in counts)
        raise InputError(f"bag {path}: is damaged: its index counts {counted} messages of {topic}")
    if not sum(counts):
        raise InputError(f"bag {path}: {topic} has no message; {listed}")
    return chosen
