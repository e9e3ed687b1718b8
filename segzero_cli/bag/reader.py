"""The pictures of a recorded bag, without ROS: mcap or sqlite3, by `rosbags`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import ConfigError, InputError, SegZeroError
from segzero_core.images.encodings import rgb_from_compressed_msg, rgb_from_msg
from segzero_core.types import RgbImage

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_READERS: Final = {IMAGE: rgb_from_msg, COMPRESSED: rgb_from_compressed_msg}


@dataclass(frozen=True, eq=False)
class BagPicture:
    """One picture of a topic.

    Attributes:
        number: Its place among all pictures of the topic, from 0.
        stamp_ns: Of its header [ns].
        recorded_ns: When it was recorded [ns].
        frame_id: Of its header.
        pixels: uint8 [H, W, 3], RGB; None where it cannot be read.
        error: Why it cannot be read; empty where it can.
    """

    number: int
    stamp_ns: int
    recorded_ns: int
    frame_id: str
    pixels: RgbImage | None
    error: str = ""


class BagTopic:
    """A topic of pictures in an open bag; made by `open_topic`.

    Attributes:
        count: How many pictures it has.
    """

    def __init__(self, path: Path, reader: Any, connections: list[Any], store: Any) -> None:
        self._path = path
        self._reader = reader
        self._connections = connections
        self._store = store
        self.count = sum(connection.msgcount for connection in connections)

    def pictures(self, every: int = 1, limit: int | None = None) -> Iterator[BagPicture]:
        """Read pictures in the order in which they were recorded.

        Args:
            every: Leave out all but each so-many-th.
            limit: Read at most so many.

        Raises:
            InputError: The bag is damaged.
        """
        done = 0
        messages = self._reader.messages(connections=self._connections)
        for number in range(self.count):
            if limit is not None and done >= limit:
                return
            with damaged(self._path):
                try:
                    connection, recorded_ns, data = next(messages)
                except StopIteration:
                    return
            if number % every:
                continue
            done += 1
            with damaged(self._path):
                msg: Any = self._store.deserialize_cdr(data, connection.msgtype)
            yield _picture(msg, number, recorded_ns, connection.msgtype)


def _picture(msg: Any, number: int, recorded_ns: int, kind: str) -> BagPicture:
    stamp, pixels, error = msg.header.stamp, None, ""
    try:
        pixels = _READERS[kind](msg)
    except InputError as caught:  # one bad picture is no reason to give up the others
        error = str(caught)
    stamp_ns = stamp.sec * 10**9 + stamp.nanosec
    return BagPicture(number, stamp_ns, recorded_ns, msg.header.frame_id, pixels, error)


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turn whatever a broken file makes the reader raise into one error of ours.

    Raises:
        InputError: Something was raised inside.
    """
    try:
        yield
    except (SegZeroError, KeyboardInterrupt):
        raise
    except Exception as error:  # struct.error, sqlite3.Error, ReaderError, zstd's own, …
        reason = str(error) or type(error).__name__
        raise InputError(f"bag {path}: is damaged or no bag: {reason}") from error


@contextmanager
def open_topic(path: Path, topic: str) -> Iterator[BagTopic]:
    """Open a topic of pictures in a bag: a folder, or a single mcap or db3 file.

    Raises:
        ConfigError: `rosbags` is not installed.
        InputError: There is no such bag or topic, it has no pictures, or the bag is damaged.
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
    with damaged(path):
        reader = Reader(path)
        reader.open()
    try:
        connections = _connections(path, reader, topic)
        yield BagTopic(path, reader, connections, get_typestore(Stores.ROS2_JAZZY))
    finally:
        reader.close()


def _connections(path: Path, reader: Any, topic: str) -> list[Any]:
    chosen = [connection for connection in reader.connections if connection.topic == topic]
    offered = sorted({each.topic for each in reader.connections if each.msgtype in _READERS})
    listed = f"topics of pictures: {', '.join(offered)}" if offered else "it has no pictures"
    if not chosen:
        raise InputError(f"bag {path}: has no topic {topic!r}; {listed}")
    kinds = {connection.msgtype for connection in chosen}
    if not kinds <= set(_READERS):
        raise InputError(
            f"bag {path}: {topic} is {', '.join(sorted(kinds))}, neither {IMAGE} nor {COMPRESSED};"
            f" {listed}"
        )
    if not sum(connection.msgcount for connection in chosen):
        raise InputError(f"bag {path}: {topic} has no message; {listed}")
    return chosen
