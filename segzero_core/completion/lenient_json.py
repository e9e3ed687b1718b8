"""A reader for the JSON that language models write.

Besides JSON it takes single quotes, trailing commas and Python's `None`, `True` and `False`. It
never evaluates anything, needs time in proportion to the text, and knows the difference between
text that is wrong and text that has not ended yet, so that it can read while a reply grows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

MAX_DEPTH: Final = 32
"""Deeper nesting than this is refused; an answer has three levels."""

_SPACE = re.compile(r"[\s\ufeff]*+")
# Possessive quantifiers: no backtracking, so an unclosed string costs one pass.
_STRING = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"|' r"'([^'\\]*+(?:\\.[^'\\]*+)*+)'", re.DOTALL)
_NUMBER = re.compile(r"[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+")
_WORD = re.compile(r"[+-]?+[A-Za-z_][A-Za-z_0-9]*+")
_NUMBER_CHARS = re.compile(r"[-+.0-9a-zA-Z_]")


class Literal(Enum):
    """The words that are values; each is its own kind, so none passes for a number."""

    NULL = "null"
    TRUE = "true"
    FALSE = "false"
    NOT_A_NUMBER = "NaN"
    INFINITY = "Infinity"


_WORDS: Final = {
    "null": Literal.NULL,
    "none": Literal.NULL,
    "true": Literal.TRUE,
    "false": Literal.FALSE,
    "nan": Literal.NOT_A_NUMBER,
    "inf": Literal.INFINITY,
    "infinity": Literal.INFINITY,
}

Value: TypeAlias = "float | str | Literal | list[Value] | Object"


@dataclass(frozen=True, slots=True)
class Object:
    """A JSON object with its keys in lower case, in order, repetitions kept."""

    items: tuple[tuple[str, Value], ...]

    def __contains__(self, key: str) -> bool:
        return any(name == key for name, _ in self.items)


class JsonError(Exception):
    """The text at this place is no value.

    Attributes:
        end: How far the text was read.
    """

    def __init__(self, message: str, end: int) -> None:
        super().__init__(message)
        self.end = end


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
    if start >= len(text):
        raise IncompleteError("the text ends where a value should be", start)
    first = text[start]
    if first in "[{" and depth >= MAX_DEPTH:
        raise TooDeepError(f"nested more deeply than {MAX_DEPTH} levels", start)
    if first == "[":
        return _read_list(text, start, depth + 1)
    if first == "{":
        return _read_object(text, start, depth + 1)
    if first in "\"'":
        return _read_string(text, start)
    return _read_plain(text, start)


def _read_plain(text: str, start: int) -> tuple[float | Literal, int]:
    """Read a number or one of the words."""
    if match := _NUMBER.match(text, start):
        end = match.end()
        if end == len(text):
            raise IncompleteError("the text ends in a number", end)
        if _NUMBER_CHARS.match(text, end):
            raise JsonError(f"broken number {text[start : end + 1][:40]!r}", end)
        return float(match.group()), end
    match = _WORD.match(text, start)
    if match is None:
        raise JsonError(f"unexpected {text[start]!a}", start)
    if match.end() == len(text):
        raise IncompleteError("the text ends in a word", match.end())
    word = _WORDS.get(match.group().lstrip("+-").lower())
    if word is None:
        raise JsonError(f"unexpected word {match.group()[:40]!r}", match.end())
    return word, match.end()


def _read_string(text: str, start: int) -> tuple[str, int]:
    match = _STRING.match(text, start)
    if match is None:
        raise IncompleteError("a string that does not end", len(text))
    return match.group(1) if match.group(1) is not None else match.group(2), match.end()


def _read_list(text: str, start: int, depth: int) -> tuple[list[Value], int]:
    values: list[Value] = []
    position = skip_space(text, start + 1)
    while not text.startswith("]", position):
        value, position = read_value(text, position, depth)
        values.append(value)
        position = _after_separator(text, position, "]")
    return values, position + 1


def _read_object(text: str, start: int, depth: int) -> tuple[Object, int]:
    items: list[tuple[str, Value]] = []
    position = skip_space(text, start + 1)
    while not text.startswith("}", position):
        key, position = _read_key(text, position)
        value, position = read_value(text, position, depth)
        items.append((key, value))
        position = _after_separator(text, position, "}")
    return Object(tuple(items)), position + 1


def _read_key(text: str, start: int) -> tuple[str, int]:
    """Read a quoted key and its colon; return it in lower case with the place of the value."""
    if start >= len(text):
        raise IncompleteError("the text ends where a key should be", start)
    if text[start] not in "\"'":
        raise JsonError(f"expected a quoted key, got {text[start]!a}", start)
    key, position = _read_string(text, start)
    position = skip_space(text, position)
    if position >= len(text):
        raise IncompleteError("the text ends after a key", position)
    if text[position] != ":":
        raise JsonError(f"expected ':' after a key, got {text[position]!a}", position)
    return key.lower(), skip_space(text, position + 1)


def _after_separator(text: str, start: int, closing: str) -> int:
    """Return the place of the next value, or of the closing bracket; a last comma may stand."""
    position = skip_space(text, start)
    if position >= len(text):
        raise IncompleteError(f"the text ends before {closing!r}", position)
    if text[position] == ",":
        return skip_space(text, position + 1)
    if text[position] != closing:
        raise JsonError(f"expected ',' or {closing!r}, got {text[position]!a}", position)
    return position
