"""Reads the JSON that language models write.

Besides JSON it takes single quotes, trailing commas and Python's `None`, `True` and `False`. It
never evaluates anything, and needs time in proportion to the text. Text that is wrong and text
that has not ended yet raise different errors, so that a growing completion can be read.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

MAX_DEPTH: Final = 32
"""Deeper nesting than this is refused; an answer has three levels."""

# Possessive quantifiers throughout: no backtracking, so an unclosed string costs one pass.
_ANY_SPACE: Final = r"[\s\ufeff]*+"
_ANY_STRING: Final = r"""(?s:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|'([^'\\]*+(?:\\.[^'\\]*+)*+)')"""
_ANY_NUMBER: Final = r"[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+"

_SPACE = re.compile(_ANY_SPACE)
_COMMA = re.compile(f"{_ANY_SPACE},{_ANY_SPACE}")
_STRING = re.compile(_ANY_STRING)
_KEY = re.compile(f"{_ANY_STRING}{_ANY_SPACE}:{_ANY_SPACE}")
_NUMBER = re.compile(_ANY_NUMBER)
_PLAIN = re.compile(r"[-+.0-9a-zA-Z_]++")


class Word(str):
    """A word that is a value, such as `null`: no text, and no number."""

    __slots__ = ()


_WORDS: Final = {
    "null": Word("null"),
    "none": Word("null"),
    "true": Word("true"),
    "false": Word("false"),
    "nan": Word("NaN"),
    "inf": Word("Infinity"),
    "infinity": Word("Infinity"),
}


class Object:
    """A JSON object: its members in order, repetitions kept, with their keys in lower case."""

    __slots__ = ("members",)

    def __init__(self, members: list[tuple[str, Value]]) -> None:
        self.members = members


Value: TypeAlias = "float | str | Word | list[Value] | Object"


class JsonError(Exception):
    """The text at this place is no value."""

    def __init__(self, message: str, end: int) -> None:
        super().__init__(message)
        self.end = end  # how far the text was read


class IncompleteError(JsonError):
    """The text stopped inside a value; more text may complete it."""


class TooDeepError(JsonError):
    """The value is nested more deeply than `MAX_DEPTH`."""


def skip_space(text: str, start: int) -> int:
    """Return the place of the first character that is no white space."""
    match = _SPACE.match(text, start)
    return match.end() if match else start


def read_value(text: str, start: int, depth: int = 0) -> tuple[Value, int]:
    """Read the value that begins at `start`.

    Args:
        text: Text that holds the value, and anything after it.
        start: Place of its first character.
        depth: How many lists and objects are open around it.

    Returns:
        The value and the place after it. A number with too many digits is an infinite float.

    Raises:
        JsonError: There is no value, or it is broken.
        IncompleteError: The text ends before the value does.
    """
    first = text[start : start + 1]
    if first in ("[", "{"):
        if depth == MAX_DEPTH:
            raise TooDeepError(f"nested more deeply than {MAX_DEPTH} levels", start)
        read = _read_list if first == "[" else _read_object
        return read(text, start, depth + 1)
    if first in ('"', "'"):
        return _read_string(text, start)
    return _read_plain(text, start)


def _read_list(text: str, start: int, depth: int) -> tuple[list[Value], int]:
    values: list[Value] = []
    position = skip_space(text, start + 1)
    while not text.startswith("]", position):
        value, position = read_value(text, position, depth)
        values.append(value)
        position = after_separator(text, position, "]")
    return values, position + 1


def _read_object(text: str, start: int, depth: int) -> tuple[Object, int]:
    members: list[tuple[str, Value]] = []
    position = skip_space(text, start + 1)
    while not text.startswith("}", position):
        key, position = _read_key(text, position)
        value, position = read_value(text, position, depth)
        members.append((key, value))
        position = after_separator(text, position, "}")
    return Object(members), position + 1


def _read_key(text: str, start: int) -> tuple[str, int]:
    """Read a quoted key and its colon; return it in lower case with the place of the value."""
    if match := _KEY.match(text, start):
        return match[match.lastindex or 1].lower(), match.end()
    if start < len(text) and text[start] not in "\"'":
        raise JsonError(f"expected a quoted key, got {text[start]!a}", start)
    _, end = _read_string(text, start)
    position = skip_space(text, end)
    if position == len(text):
        raise IncompleteError("the text ends after a key", position)
    raise JsonError(f"expected ':' after a key, got {text[position]!a}", position)


def after_separator(text: str, start: int, closing: str) -> int:
    """Return the place of the next value, or of the closing bracket; a last comma may stand."""
    if comma := _COMMA.match(text, start):
        return comma.end()
    position = skip_space(text, start)
    if position == len(text):
        raise IncompleteError(f"the text ends before {closing!r}", position)
    if text[position] != closing:
        raise JsonError(f"expected ',' or {closing!r}, got {text[position]!a}", position)
    return position


def _read_string(text: str, start: int) -> tuple[str, int]:
    match = _STRING.match(text, start)
    if match is None:
        raise IncompleteError("a string that does not end", len(text))
    return match[match.lastindex or 1], match.end()


def _read_plain(text: str, start: int) -> tuple[float | Word, int]:
    """Read a number or one of the words."""
    match = _PLAIN.match(text, start)
    plain, end = (match[0], match.end()) if match else ("", start)
    if end == len(text):
        raise IncompleteError("the text ends in a value", end)
    if not plain:
        raise JsonError(f"unexpected {text[start]!a}", start)
    if word := _WORDS.get(plain.lstrip("+-").lower()):
        return word, end
    if _NUMBER.fullmatch(plain):
        return float(plain), end
    fault = "broken number" if _NUMBER.match(plain) else "unexpected word"
    raise JsonError(f"{fault} {plain[:40]!r}", end)
