"""The grammar of what stands inside `<answer>`.

Two forms of one object are known, and a list of either, or several in a row:

    {'bbox': [x, y, x, y], 'points_1': [x, y], 'points_2': [x, y]}     single object, Seg-Zero
    [{"bbox_2d": [x, y, x, y], "point_2d": [x, y]}, …]                 multi object, VisionReasoner

Around the JSON there may be prose or a code fence. The first value that speaks of a box decides;
from there on every fault is an error, so that half of a broken list is never taken for the
whole. `[]` means that nothing matched.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from segzero_core.completion.lenient_json import (
    IncompleteError,
    JsonError,
    Literal,
    Object,
    TooDeepError,
    Value,
    read_value,
    skip_space,
)
from segzero_core.errors import InputError, shown
from segzero_core.types import Box, ObjectPrompt, Point, checked_prompt


@dataclass(frozen=True, slots=True)
class _Form:
    """One way of writing an object: the key of its box and the keys of its points."""

    box_key: str
    point_keys: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.box_key, *self.point_keys)


_FORMS: Final = (_Form("bbox_2d", ("point_2d",)), _Form("bbox", ("points_1", "points_2")))
_KEYS: Final = tuple(key for form in _FORMS for key in form.keys)
_SPOKEN_KEY = re.compile(rf"""["'](?:{"|".join(_KEYS)})["']\s*:""", re.IGNORECASE | re.ASCII)
_BRACKET = re.compile(r"[\[{]")
_BETWEEN_OBJECTS = re.compile(r"[\s,]*+")


def _plain_list_pattern() -> re.Pattern[str]:
    """The multi-object form with its keys in the usual order and one kind of quotes.

    Possessive throughout: a text of another kind costs one pass. The numbers are too short to be
    infinite.
    """
    number = r"(?:0|-?+[1-9][0-9]{0,8}+)(?:\.[0-9]{1,9}+)?+"
    four, two = (r"\[ " + " , ".join([number] * count) + r" \]" for count in (4, 2))
    one = rf"\{{ \1bbox_2d\1 : {four} , \1point_2d\1 : {two} \}}"
    first = one.replace(r"\1", "([\"'])", 1)
    pattern = rf" \[ {first}(?: , {one})*+ \] "
    return re.compile(pattern.replace(" ", r"[ \t\r\n]*+"))


_PLAIN_LIST: Final = _plain_list_pattern()
_NO_NUMBER: Final = str.maketrans(dict.fromkeys("[]{}:,\"'bboxpoint", " "))
"""What else stands in such a list, once the 2 of its keys is gone."""

# Bounds on prose full of brackets: they keep the time in proportion to the text.
_MAX_FALSE_STARTS = 256
_REREAD_CHARS = 50_000
_REREAD_FACTOR = 2


class AnswerRuleError(Exception):
    """The text in `<answer>` breaks a rule of the grammar; the message says which."""


def read_answer(text: str) -> tuple[ObjectPrompt, ...]:
    """Return all objects of a complete answer.

    Args:
        text: Everything between `<answer>` and `</answer>`.

    Raises:
        AnswerRuleError: The answer is broken, or holds no objects and no empty list.
    """
    if _PLAIN_LIST.fullmatch(text):
        # The pattern has fixed the order: six numbers an object, none of them infinite.
        numbers = iter(map(float, text.replace("_2d", "").translate(_NO_NUMBER).split()))
        prompts = [_plain_prompt(*six) for six in zip(*[numbers] * 6, strict=True)]
        usable = tuple([prompt for prompt in prompts if prompt is not None])
        if len(usable) == len(prompts):
            return usable
    return AnswerReader().finish(text)  # which tells what is wrong with which object


def _plain_prompt(
    x_1: float, y_1: float, x_2: float, y_2: float, x: float, y: float
) -> ObjectPrompt | None:
    """Make a prompt; None where the box has no area."""
    if x_1 > x_2:
        x_1, x_2 = x_2, x_1
    if y_1 > y_2:
        y_1, y_2 = y_2, y_1
    return None if x_1 == x_2 or y_1 == y_2 else checked_prompt(x_1, y_1, x_2, y_2, x, y)


class _Place(Enum):
    """What the reader expects next."""

    SEARCH = auto()
    """The first bracket of the JSON, after any prose."""
    IN_LIST = auto()
    """A comma or the end of the list, after one of its objects."""
    AFTER_OBJECT = auto()
    """Another object without a list around it, or prose to the end."""
    DONE = auto()


class AnswerReader:
    """Reads one answer, which may still be growing.

    Each call of `advance` gets the whole text so far and goes on where the last one stopped.
    """

    def __init__(self) -> None:
        self._place = _Place.SEARCH
        self._position = 0
        self._complete = False
        self._prompts: list[ObjectPrompt] = []
        self._met_empty_list = False
        self._complaint = ""
        self._false_starts = 0
        self._reread_chars = 0

    def advance(self, text: str) -> list[ObjectPrompt]:
        """Return the objects that were completed since the last call.

        Args:
            text: Everything after `<answer>` so far.

        Raises:
            AnswerRuleError: The answer is broken, whatever may follow.
        """
        before = len(self._prompts)
        # A value that has not ended is read again when more text is there: not without limit.
        if self._reread_chars <= _REREAD_CHARS + _REREAD_FACTOR * len(text):
            self._run(text)
        return self._prompts[before:]

    def finish(self, text: str) -> tuple[ObjectPrompt, ...]:
        """Return all objects of the answer, now that it is complete.

        Args:
            text: Everything between `<answer>` and `</answer>`.

        Raises:
            AnswerRuleError: The answer is broken, or holds no objects and no empty list.
        """
        self._reread_chars = 0
        self._complete = True
        self._run(text)
        if self._place is _Place.SEARCH and (self._complaint or not self._met_empty_list):
            raise AnswerRuleError(
                self._complaint or "there is no JSON object or list in it; [] means nothing"
            )
        return tuple(self._prompts)

    def _run(self, text: str) -> None:
        steps = {
            _Place.SEARCH: self._search,
            _Place.IN_LIST: self._read_next_in_list,
            _Place.AFTER_OBJECT: self._read_next_object,
        }
        try:
            while step := steps.get(self._place):
                if not step(text):
                    break
        except IncompleteError as error:
            self._reread_chars += error.end - self._position
            if self._complete:
                raise AnswerRuleError(f"its JSON is not closed: {error}") from error
        except JsonError as error:
            raise AnswerRuleError(f"its JSON is broken: {error}") from error

    def _search(self, text: str) -> bool:
        """Try the next bracket as the beginning of the JSON; False at the end of the text."""
        bracket = _BRACKET.search(text, self._position)
        if bracket is None:
            self._position = len(text)
            return False
        self._position = bracket.start()
        inside = skip_space(text, bracket.end())
        try:
            if bracket.group() == "[" and text.startswith("{", inside):
                self._accept_first_of_list(*read_value(text, inside, depth=1))
            else:
                self._accept_first(*read_value(text, self._position))
        except TooDeepError:
            raise
        except JsonError as error:
            if isinstance(error, IncompleteError) and not self._complete:
                raise
            self._skip_false_start(text, error)
        return True

    def _accept_first_of_list(self, value: Value, end: int) -> None:
        self._prompts.append(self._prompt_from(value))
        self._place, self._position = _Place.IN_LIST, end

    def _accept_first(self, value: Value, end: int) -> None:
        """Take an object that stands alone; pass over values that can be part of the prose."""
        if isinstance(value, Object) and any(key in value for key in _KEYS):
            self._prompts.append(self._prompt_from(value))
            self._place = _Place.AFTER_OBJECT
        elif value == []:
            self._met_empty_list = True
        elif _holds_object(value) and not isinstance(value, Object):
            raise AnswerRuleError("its list must hold objects and nothing else")
        else:
            self._complaint = (
                "its object has neither 'bbox' nor 'bbox_2d'"
                if isinstance(value, Object)
                else "its list holds no objects"
            )
        self._position = end

    def _skip_false_start(self, text: str, error: JsonError) -> None:
        """Go on behind a bracket of the prose, unless it began to speak of a box."""
        if _SPOKEN_KEY.search(text, self._position, error.end):
            raise error
        self._false_starts += 1
        self._reread_chars += error.end - self._position
        if (
            self._false_starts > _MAX_FALSE_STARTS
            or self._reread_chars > _REREAD_CHARS + _REREAD_FACTOR * len(text)
        ):
            raise AnswerRuleError("it has too many brackets that are no JSON")
        self._position += 1

    def _read_next_in_list(self, text: str) -> bool:
        position = skip_space(text, self._position)
        if text.startswith(",", position):
            position = skip_space(text, position + 1)
        elif not text.startswith("]", position) and position < len(text):
            raise JsonError(f"expected ',' or ']', got {text[position]!a}", position)
        if text.startswith("]", position):
            self._place = _Place.DONE
            return False
        if position == len(text):
            raise IncompleteError("the text ends before ']'", position)
        value, end = read_value(text, position, depth=1)
        self._prompts.append(self._prompt_from(value))
        self._position = end
        return True

    def _read_next_object(self, text: str) -> bool:
        """Read another object in a row; anything else is prose, and the answer is over."""
        between = _BETWEEN_OBJECTS.match(text, self._position)
        position = between.end() if between else self._position
        if position == len(text):
            return False
        try:
            value, end = read_value(text, position) if text[position] == "{" else (None, 0)
        except JsonError as error:
            incomplete = isinstance(error, IncompleteError)
            if (incomplete and not self._complete) or _SPOKEN_KEY.search(
                text, position, error.end
            ):
                raise
            value, end = None, 0
        if not isinstance(value, Object) or not any(key in value for key in _KEYS):
            self._place = _Place.DONE
            return False
        self._prompts.append(self._prompt_from(value))
        self._position = end
        return True

    def _prompt_from(self, value: Value) -> ObjectPrompt:
        number = len(self._prompts) + 1
        try:
            return prompt_from_value(value)
        except InputError as error:
            raise AnswerRuleError(f"object {number}: {error}") from error


def prompt_from_value(value: Value) -> ObjectPrompt:
    """Turn one JSON object of either form into a prompt.

    Raises:
        InputError: It is of neither form, or a number in it cannot be used.
    """
    if not isinstance(value, Object):
        raise InputError(f"expected an object with a box, got {_name_of(value)}")
    forms = [form for form in _FORMS if any(key in value for key in form.keys)]
    if not forms:
        raise InputError("it has neither 'bbox' nor 'bbox_2d'")
    if len(forms) > 1:
        raise InputError("it mixes the keys of the two forms")
    (form,) = forms
    x_1, y_1, x_2, y_2 = _numbers(value, form.box_key, count=4)
    points = (Point(*_numbers(value, key, count=2)) for key in form.point_keys)
    # Corners in the wrong order say the same box.
    box = Box(min(x_1, x_2), min(y_1, y_2), max(x_1, x_2), max(y_1, y_2))
    return ObjectPrompt(box, tuple(points))


def _numbers(value: Object, key: str, count: int) -> list[float]:
    found = [item for name, item in value.items if name == key]
    if len(found) != 1:
        raise InputError(f"{key!r} is missing" if not found else f"{key!r} stands there twice")
    (numbers,) = found
    if not isinstance(numbers, list) or len(numbers) != count:
        got = f"{len(numbers)} of them" if isinstance(numbers, list) else _name_of(numbers)
        raise InputError(f"{key!r} must be a list of {count} numbers, got {got}")
    checked: list[float] = []
    for number in numbers:
        if not isinstance(number, float):
            raise InputError(f"{key!r} must hold numbers, got {_name_of(number)}")
        if not math.isfinite(number):
            raise InputError(f"{key!r} holds a number that is too large")
        checked.append(number)
    return checked


def _name_of(value: Value) -> str:
    """Name a value for a message, without repeating a long one."""
    if isinstance(value, Object):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Literal):
        return value.value
    return f"the text {shown(value, 20)}" if isinstance(value, str) else f"the number {value}"


def _holds_object(value: Value) -> bool:
    """Say whether an object stands anywhere in a value; its depth is bounded by the reader."""
    if isinstance(value, list):
        return any(_holds_object(item) for item in value)
    return isinstance(value, Object)
