"""What the targets are fed with: a small corpus, and every kind of damage to it."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

CORPUS = Path(__file__).with_name("corpus")
TOPIC = "/image"
_PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "<ANSWER>", "<answer\ufeff>", "[", "]", "{",
    "}", '"bbox_2d"', '"point_2d"', '"label"', "'bbox'", "'points_1'", "'points_2'", ":", ",",
    " and ",
    "[1, 2, 30, 40]", "[5, 6]", "1e400", "-0.0", "NaN", "null", "\\u0031", "\ud800", "\u212a",
    "\u0130", "```json\n", '{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}', "İ<", "<", "</",
)  # fmt: skip


@cache
def replies() -> tuple[str, ...]:
    """The replies of the corpus."""
    files = sorted(CORPUS.glob("reply-*.txt"))
    return tuple(file.read_text(encoding="utf-8") for file in files)


def texts() -> st.SearchStrategy[str]:
    """Replies of the corpus, cut into pieces and mixed with others and with anything."""
    part = st.one_of(
        st.sampled_from(replies()).flatmap(_slice_of),
        st.sampled_from(_PIECES),
        st.text(max_size=8),
    )
    return st.lists(part, max_size=12).map("".join)


def _slice_of(text: str) -> st.SearchStrategy[str]:
    place = st.integers(0, len(text))
    return st.tuples(place, place).map(lambda pair: text[min(pair) : max(pair)])


def cuts() -> st.SearchStrategy[list[int]]:
    """Lengths of chunks."""
    return st.lists(st.integers(1, 9), min_size=1, max_size=40)


@cache
def image_files() -> tuple[bytes, ...]:
    """A small image in each format, and some that are not read."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    files = []
    for form in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, form)
        files.append(content.getvalue())
    gray = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(gray, "PNG")
    return (*files, gray.getvalue(), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


@cache
def bags() -> tuple[bytes, ...]:
    """A small bag with two images, plain and packed."""
    store = get_typestore(Stores.ROS2_JAZZY)
    stamp = store.types["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
    header = store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="eye")
    data = np.arange(36, dtype=np.uint8)
    kind = "sensor_msgs/msg/Image"
    image = store.types[kind](
        header=header, height=3, width=4, encoding="rgb8", is_bigendian=0, step=12, data=data
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bag"
        with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            connection = writer.add_connection(TOPIC, kind, typestore=store)
            for number in range(2):
                writer.write(connection, number, store.serialize_cdr(image, kind))
        return ((path / "bag.mcap").read_bytes(),)


def damaged(files: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Files with some bytes changed, taken out, put in, or cut off."""
    change = st.tuples(st.integers(0, 1 << 16), st.sampled_from("sdic"), st.binary(max_size=8))

    def damage(pair: tuple[bytes, list[tuple[int, str, bytes]]]) -> bytes:
        content = bytearray(pair[0])
        for place, how, new in pair[1]:
            at = place % (len(content) + 1)
            if how == "c":
                del content[at:]
            else:
                end = at + (len(new) if how == "s" else 0 if how == "i" else 1 + len(new))
                content[at:end] = b"" if how == "d" else new
        return bytes(content)

    return st.tuples(st.sampled_from(files), st.lists(change, max_size=6)).map(damage)
