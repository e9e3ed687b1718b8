"""Looks into a serialized image without deserializing it: its stamp, and whether it is whole.

Source: OMG DDS-XTypes 1.3, 7.4 and 7.6.2 (two bytes say the encoding, odd is little-endian; a
number lies at a multiple of its size, counted from the fourth byte).
"""

from __future__ import annotations

import struct
from typing import Final

from sensor_msgs.msg import CompressedImage, Image

from segzero_core.errors import InputError

_NS_PER_S: Final = 1_000_000_000
_HEAD: Final = 4  # bytes that say how the rest is encoded
_STAMP_END: Final = _HEAD + 8
# What follows the header's stamp: text, 4-byte numbers, bytes, and the pixels, which come last.
_LAYOUTS: Final = {Image: "tnntbnp", CompressedImage: "ttp"}


def stamp_ns(serialized: bytes) -> int:
    """Read the stamp of a serialized message that begins with a header, in nanoseconds.

    Raises:
        InputError: It is too short to have a header.
    """
    if len(serialized) < _STAMP_END:
        raise InputError(f"a message of {len(serialized)} bytes is too short to have a header")
    sec, nanosec = struct.unpack_from(f"{_order(serialized)}iI", serialized, _HEAD)
    return int(sec) * _NS_PER_S + int(nanosec)


def check_whole(serialized: bytes, kind: type) -> None:
    """Refuse an image that could not be deserialized; any peer can send such bytes.

    Raises:
        InputError: It is cut off, or holds a text that is none.
    """
    stamp_ns(serialized)
    place, number = _STAMP_END, struct.Struct(f"{_order(serialized)}I")
    try:
        for part in _LAYOUTS[kind]:
            if part == "b":
                place += 1
                continue
            place += -place % 4
            (value,) = number.unpack_from(serialized, place)
            place += 4
            if part == "t":
                serialized[place : place + value].decode("utf-8")
            if part != "n":
                place += value
    except (struct.error, UnicodeDecodeError) as error:
        raise InputError(
            f"a damaged {kind.__name__} of {len(serialized)} bytes: {error}"
        ) from error
    if place > len(serialized):
        raise InputError(
            f"a {kind.__name__} of {len(serialized)} bytes says that it has {place} or more"
        )


def _order(serialized: bytes) -> str:
    return "<" if serialized[1] & 1 else ">"
