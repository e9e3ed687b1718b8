"""What a well-formed reply may look like, character by character.

`<think>` any text `</think><answer>` objects `</answer>`, with the JSON written in one way, and
numbers that make a box inside the frame. A reply that this grammar lets through to its end is
always usable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from segzero_core.completion.parser import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN
from segzero_core.prompt import asks_to_think, is_single_object
from segzero_core.types import SizeWH

_SPACE: Final = " \n"


@dataclass(frozen=True, slots=True)
class State:
    """A place in a reply.

    Attributes:
        part: Index of the grammar's part that is being written.
        done: What of that part is there already: of a fixed text its beginning, of a number its
            digits, of the thinking its last characters.
        numbers: The numbers of the present object.
        objects: How many objects are complete.
        spaces: White space before the part.
    """

    part: int = 0
    done: str = ""
    numbers: tuple[int, ...] = ()
    objects: int = 0
    spaces: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """Characters that are always the same.

    Attributes:
        text: The characters.
        spaces: So much white space may stand before them.
    """

    text: str
    spaces: int = 0


@dataclass(frozen=True, slots=True)
class Thinking:
    """Any text that ends with a tag."""

    until: str


@dataclass(frozen=True, slots=True)
class Number:
    """An integer from 0 to a limit.

    Attributes:
        limit: The largest.
        differs_from: Index of an earlier number of the object that it must not equal: a box has
            an area.
    """

    limit: int
    differs_from: int | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """One of two texts.

    Attributes:
        stop: Ends the answer.
        go_on: Begins another object.
        next_part: Where another object goes on.
    """

    stop: str
    go_on: str
    next_part: int


Part = Text | Thinking | Number | Fork


class AnswerGrammar:
    """The grammar of one template's replies.

    Args:
        parts: In their order.
        end: Index of the part that follows when an answer is stopped at a fork.
    """

    def __init__(self, parts: tuple[Part, ...], end: int) -> None:
        self._parts = parts
        self._end = end

    def advance(self, state: State, text: str, *, hurry: bool = False) -> State | None:
        """Return the state after more text, or None if the text is not allowed.

        Args:
            state: Before the text.
            text: Any number of characters.
            hurry: No further object may begin.
        """
        for char in text:
            following = self._after(state, char, hurry=hurry)
            if following is None:
                return None
            state = following
        return state

    def is_over(self, state: State) -> bool:
        """Say whether the reply is complete."""
        return state.part == len(self._parts)

    def is_thinking(self, state: State) -> bool:
        """Say whether the thinking goes on, or an answer has not begun."""
        return not self.is_over(state) and isinstance(self._parts[state.part], Thinking)

    def closing(self, state: State) -> str:
        """Return what ends the thinking from here."""
        part = self._parts[state.part]
        assert isinstance(part, Thinking)
        tag = part.until
        kept = next(n for n in range(len(tag), -1, -1) if state.done.endswith(tag[:n]))
        return tag[kept:]

    def forced(self, state: State, *, hurry: bool = False) -> str:
        """Return the characters that must follow, whatever the model says."""
        text = ""
        while not self.is_over(state):
            char = self._only(state, hurry=hurry)
            following = self._after(state, char, hurry=hurry) if char else None
            if following is None:
                break
            text, state = text + char, following
        return text

    def _only(self, state: State, *, hurry: bool) -> str:
        """Return the one character that may follow, or nothing if there are several."""
        part = self._parts[state.part]
        if isinstance(part, Text):
            may_wait = not hurry and not state.done and state.spaces < part.spaces
            return "" if may_wait else part.text[len(state.done)]
        if isinstance(part, Fork):
            options = [part.stop] if hurry else [part.stop, part.go_on]
            chars = {o[len(state.done)] for o in options if o.startswith(state.done)}
            return chars.pop() if len(chars) == 1 else ""
        return ""

    def _after(self, state: State, char: str, *, hurry: bool) -> State | None:
        if self.is_over(state):
            return None
        part = self._parts[state.part]
        if isinstance(part, Thinking):
            done = (state.done + char)[-len(part.until) :]
            return self._next(state) if done == part.until else replace(state, done=done)
        if isinstance(part, Text):
            if char in _SPACE and not state.done and state.spaces < part.spaces:
                return replace(state, spaces=state.spaces + 1)
            if part.text[len(state.done)] != char:
                return None
            done = state.done + char
            return self._next(state) if done == part.text else replace(state, done=done)
        if isinstance(part, Fork):
            return self._fork(state, part, state.done + char, hurry=hurry)
        return self._number(state, part, char, hurry=hurry)

    def _next(self, state: State) -> State:
        return replace(state, part=state.part + 1, done="", spaces=0)

    def _fork(self, state: State, part: Fork, done: str, *, hurry: bool) -> State | None:
        if done == part.stop:
            return replace(state, part=self._end, done="")
        if hurry and not part.stop.startswith(done):
            return None
        if done == part.go_on:
            return State(part.next_part, objects=state.objects + 1)
        if part.stop.startswith(done) or part.go_on.startswith(done):
            return replace(state, done=done)
        return None

    def _number(self, state: State, part: Number, char: str, *, hurry: bool) -> State | None:
        digits = state.done
        other = None if part.differs_from is None else state.numbers[part.differs_from]
        if char == " " and not digits and not state.spaces:
            return replace(state, spaces=1)  # after the comma
        if "0" <= char <= "9":
            value = int(digits + char)
            fits = digits != "0" and value <= part.limit
            # It must be able to end: here, or with one digit more.
            ends = value != other or 0 < value * 10 <= part.limit
            return replace(state, done=digits + char) if fits and ends else None
        if not digits or int(digits) == other:
            return None
        ended = replace(self._next(state), numbers=(*state.numbers, int(digits)))
        return self._after(ended, char, hurry=hurry)


def grammar_of(template: str, frame_wh: SizeWH) -> AnswerGrammar:
    """Return the grammar of a template's replies.

    Args:
        template: A key of `prompt.TEMPLATES`.
        frame_wh: Width and height of the frame that numbers are in.
    """
    width, height = frame_wh
    head: list[Part] = [Text(ANSWER_OPEN)]
    if asks_to_think(template):
        head = [Text(THINK_OPEN), Thinking(THINK_CLOSE), Text(ANSWER_OPEN, spaces=2)]
    box = _numbers([Number(width), Number(height), Number(width, 0), Number(height, 1)])
    point = _numbers([Number(width), Number(height)])
    if is_single_object(template):
        begin, middle, more = '{"bbox": [', '], "points_1": [', '], "points_2": ['
        points: list[Part] = [Text(middle), *point, Text(more), *point]
        # One object or none; the fork never comes back.
        fork = Fork("[]", begin, len(head) + 1)
        parts = [*head, fork, *box, *points, Text("]}"), Text(ANSWER_CLOSE)]
        return AnswerGrammar(tuple(parts), end=len(parts) - 1)
    begin = '{"bbox_2d": ['
    first = len(head) + 1
    parts = [*head, Fork("[]", f"[{begin}", first), *box, Text('], "point_2d": ['), *point]
    parts += [Fork("]}]", f"]}}, {begin}", first), Text(ANSWER_CLOSE)]
    return AnswerGrammar(tuple(parts), end=len(parts) - 1)


def _numbers(numbers: list[Number]) -> list[Part]:
    parts: list[Part] = []
    for number in numbers:
        parts += [Text(","), number] if parts else [number]
    return parts
