"""The grammar of what stands inside `<answer>`.

Two forms of one object are known, and a list of either, or several in a row:

    {'bbox': [x, y, x, y], 'points_1': [x, y], 'points_2': [x, y]}     single object, Seg-Zero
    [{"bbox_2d": [x, y, x, y], "point_2d": [x, y]}, …]                 multi object, VisionReasoner

Where Qwen's own form is asked for, `point_2d` may be missing, and `label` stands in its place.

Around and between them there may be prose or a code fence. All objects count. A value that names
a key of the forms must be right to its end, so that half of a broken list is never taken for the
whole. `[]` means that nothing matched.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any, Final

from segzero_core.completion.lenient_json import (
    IncompleteError,
    JsonError,
    Object,
    TooDeepError,
    Value,
    Word,
    after_separator,
    read_value,
    skip_space,
)
from segzero_core.errors import InputError, shown
from segzero_core.limits import MAX_OBJECTS
from segzero_core.types import Box, ObjectPrompt, Point

_POINT_KEYS: Final = {"bbox_2d": ("point_2d",), "bbox": ("points_1", "points_2")}
"""The two forms: the key of an object's box, and the keys of its points."""
_BOX_KEY_OF: Final = {
    key: box_key for box_key, point_keys in _POINT_KEYS.items() for key in (box_key, *point_keys)
}
_NAMED_KEY = re.compile(rf"""["'](?:{"|".join(_BOX_KEY_OF)})["']\s*:""", re.I | re.A)
_BRACKET = re.compile(r"[\[{]")
_PLAIN_START = re.compile(r'(?:\[\s*+)?\{\s*+"bbox_2d"')
_NOTHING: Final = "there is no JSON object or list in it; [] means nothing"

# A value that has not ended is read again when there is more text. This many characters of it are
# read again at most, which keeps the time in proportion to the text.
_MAX_REREAD_CHARS: Final = 50_000


class AnswerRuleError(Exception):
    """The text in `<answer>` breaks a rule of the grammar; the message says which."""


def read_answer(text: str, *, native: bool = False) -> tuple[ObjectPrompt, ...]:
    """Return all objects of the text between the answer's tags; `native` boxes need no point.

    Raises:
        AnswerRuleError: The answer is broken, or holds no objects and no empty list.
    """
    reader = AnswerReader(native=native)
    reader.read(text, final=True)
    if not reader.prompts and reader.complaint:
        raise AnswerRuleError(reader.complaint)
    return tuple(reader.prompts)


class AnswerReader:
    """Reads one answer, which may still be growing; `native` boxes need no point.

    Each call of `read` gets the whole text so far and goes on where the last one stopped.
    """

    def __init__(self, *, native: bool = False) -> None:
        self._native = native
        self.prompts: list[ObjectPrompt] = []  # the objects that are complete
        # What is wrong with the answer if no object follows; empty for a right one.
        self.complaint = _NOTHING
        self._position = 0
        self._in_list = False
        self._reread_chars = 0

    def read(self, text: str, *, final: bool = False) -> None:
        """Read everything after `<answer>` so far, up to its end or a value that has not ended.

        Raises:
            AnswerRuleError: The answer is broken, whatever may follow.
        """
        if self._reread_chars > _MAX_REREAD_CHARS and not final:
            return
        try:
            while self._read_next(text, final=final):
                if len(self.prompts) > MAX_OBJECTS:
                    raise AnswerRuleError(f"more than {MAX_OBJECTS} objects")
        except IncompleteError as error:
            self._reread_chars += error.end - self._position
            if final:
                raise AnswerRuleError(f"its JSON is not closed: {error}") from error
        except JsonError as error:
            raise AnswerRuleError(f"its JSON is broken: {error}") from error

    def _read_next(self, text: str, *, final: bool) -> bool:
        """Read one object or one value of the prose; False at the end of the text."""
        if self._in_list:
            position = after_separator(text, self._position, "]")
            if text.startswith("]", position):
                self._in_list, self._position = False, position + 1
                return True
            if not (text.startswith("{", position) and self._read_plain(text, position)):
                value, self._position = read_value(text, position, depth=1)
                self._add(value)
            return True
        bracket = _BRACKET.search(text, self._position)
        if bracket is None:
            self._position = len(text)
            return False
        self._position = position = bracket.start()
        # A list that still grows is read object by object.
        if (final or text[position] == "{") and self._read_plain(text, position):
            return True
        inside = skip_space(text, position + 1)
        opens_list = text[position] == "[" and text.startswith("{", inside)
        try:
            value, end = read_value(text, inside, 1) if opens_list else read_value(text, position)
        except TooDeepError:
            raise
        except JsonError as error:
            may_go_on = isinstance(error, IncompleteError) and not final
            if may_go_on or _NAMED_KEY.search(text, position, error.end):
                raise
            self._position = error.end  # a bracket of the prose
            return True
        self._position, self._in_list = end, opens_list
        is_form = isinstance(value, Object) and any(key in _BOX_KEY_OF for key, _ in value.members)
        if opens_list or is_form:
            self._add(value)
        else:
            self._pass_over(value)
        return True

    def _read_plain(self, text: str, position: int) -> bool:
        """Read an object, or a list of them, that is plain JSON; False leaves it to the reader.

        Python's own decoder is many times faster, and training scores thousands of answers. What
        it takes here is a small part of the grammar, of which both give the same prompts.
        """
        if _PLAIN_START.match(text, position) is None:
            return False  # the decoder's errors take time in proportion to the place
        try:
            value, end = _PLAIN_JSON.raw_decode(text, position)
        except (ValueError, TypeError, RecursionError):
            return False
        found = value if isinstance(value, list) else [value]
        if not found or any(type(item) is not ObjectPrompt for item in found):
            return False
        if "\\" in text[position:end]:  # the grammar knows no escaped keys
            return False
        self.prompts += found
        self._position = end
        return True

    def _add(self, value: Value) -> None:
        try:
            self.prompts.append(prompt_from_value(value, native=self._native))
        except InputError as error:
            raise AnswerRuleError(f"object {len(self.prompts) + 1}: {error}") from error

    def _pass_over(self, value: Value) -> None:
        """Take a value that names no key of the forms for a part of the prose."""
        if isinstance(value, Object):
            self.complaint = "its object has neither 'bbox' nor 'bbox_2d'"
        elif _holds_object(value):
            raise AnswerRuleError("its list must hold objects and nothing else")
        elif value:
            self.complaint = "its list holds no objects"
        elif self.complaint == _NOTHING:
            self.complaint = ""  # the empty list


def _plain_prompt(pairs: list[tuple[str, Any]]) -> ObjectPrompt:
    """Make a prompt of the members of an object in the multi-object form.

    Raises:
        ValueError: It has other members, or numbers that cannot be used; a wrong number of them
            or a value of another type may raise TypeError. The reader says what is wrong.
    """
    (first, box), (second, point) = pairs
    if first != "bbox_2d" or second != "point_2d":
        raise ValueError("another form")
    x_1, y_1, x_2, y_2 = box
    if x_1 > x_2:
        x_1, x_2 = x_2, x_1
    if y_1 > y_2:
        y_1, y_2 = y_2, y_1
    return ObjectPrompt(Box(x_1, y_1, x_2, y_2), (Point(*point),))


_PLAIN_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_plain_prompt, parse_float=float, parse_int=float
)


def prompt_from_value(value: Value, *, native: bool = False) -> ObjectPrompt:
    """Turn one JSON object of either form into a prompt; a `native` box needs no point.

    Raises:
        InputError: It is of neither form, or a number in it cannot be used.
    """
    if not isinstance(value, Object):
        raise InputError(f"expected an object with a box, got {_name_of(value)}")
    members: dict[str, Value] = {}
    for key, item in value.members:
        if key in _BOX_KEY_OF:
            if key in members:
                raise InputError(f"{key!r} stands there twice")
            members[key] = item
    if not members:
        raise InputError("it has neither 'bbox' nor 'bbox_2d'")
    box_key, *others = {_BOX_KEY_OF[key] for key in members}
    if others:
        raise InputError("it mixes the keys of the two forms")
    x_1, y_1, x_2, y_2 = _numbers(members, box_key, 4)
    keys = [key for key in _POINT_KEYS[box_key] if key in members or not native]
    points = [Point(*_numbers(members, key, 2)) for key in keys]
    # Corners in the wrong order say the same box.
    if x_1 > x_2:
        x_1, x_2 = x_2, x_1
    if y_1 > y_2:
        y_1, y_2 = y_2, y_1
    return ObjectPrompt(Box(x_1, y_1, x_2, y_2), tuple(points))


def _numbers(members: dict[str, Value], key: str, count: int) -> list[float]:
    if key not in members:
        raise InputError(f"{key!r} is missing")
    values = members[key]
    if not isinstance(values, list) or len(values) != count:
        got = f"{len(values)} of them" if isinstance(values, list) else _name_of(values)
        raise InputError(f"{key!r} must be a list of {count} numbers, got {got}")
    numbers: list[float] = []
    for value in values:
        if not isinstance(value, float):
            raise InputError(f"{key!r} must hold numbers, got {_name_of(value)}")
        if not isfinite(value):
            raise InputError(f"{key!r} holds a number that is too large")
        numbers.append(value)
    return numbers


def _holds_object(value: Value) -> bool:
    """Whether a value contains an object; the reader limits how deep the value is."""
    if isinstance(value, list):
        return any(_holds_object(item) for item in value)
    return isinstance(value, Object)


def _name_of(value: Value) -> str:
    """Name a value for a message, without repeating a long one."""
    if isinstance(value, Object):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Word):
        return value
    return f"the text {shown(value, 20)}" if isinstance(value, str) else f"the number {value}"
