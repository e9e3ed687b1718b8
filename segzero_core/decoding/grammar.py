"""The grammar of a well-formed reply, read character by character.

`<think>` any text `</think><answer>` objects `</answer>`, with the JSON written in one way, and
numbers that make a box inside the frame. A reply that this grammar accepts to its end is always
usable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from segzero_core.completion.parser import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN
from segzero_core.errors import ConfigError
from segzero_core.prompt import asks_to_think, is_native, is_single_object
from segzero_core.types import SizeWH

# White space that may stand between the thinking and the answer.
_SPACES: Final = ("", " ", "\n", "  ", " \n", "\n ", "\n\n")


@dataclass(frozen=True, slots=True)
class State:
    """How far a reply is."""

    part: int = 0  # index of the grammar's part that is being written
    # The beginning of that part: of a fixed text, of a number, or the last characters of the
    # thinking.
    done: str = ""
    numbers: tuple[int, ...] = ()  # the last two numbers of the answer


@dataclass(frozen=True, slots=True)
class Thinking:
    """Any text that ends with a tag."""

    until: str


@dataclass(frozen=True, slots=True)
class Number:
    """An integer from 0 to a limit, with at most one space before it."""

    limit: int  # the largest
    differs: bool = False  # it must not equal the number before the last one: a box has an area


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several fixed texts, none of which begins with another."""

    # The text, and the index of the part that follows it. The first one leads to the end of the
    # reply on the shortest way.
    targets: dict[str, int]

    def possible(self, done: str, *, hurry: bool) -> list[str]:
        """Return the texts that begin with `done`; in a hurry only the first of them."""
        texts = [text for text in self.targets if text.startswith(done)]
        return texts[:1] if hurry else texts


Part: TypeAlias = Thinking | Number | Choice


class AnswerGrammar:
    """A state machine over the parts of a reply, which is over behind the last one."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts

    def advance(self, state: State, text: str, *, hurry: bool = False) -> State | None:
        """Return the state after more text, or None if the grammar does not accept the text.

        In a `hurry`, no further object may begin.
        """
        following: State | None = state
        for char in text:
            if following is None or self.is_over(following):
                return None
            following = self._after(following, char, hurry=hurry)
        return following

    def is_over(self, state: State) -> bool:
        """Say whether the reply is complete."""
        return state.part == len(self._parts)

    def is_thinking(self, state: State) -> bool:
        """Whether the reply is still in its thinking."""
        return not self.is_over(state) and isinstance(self._parts[state.part], Thinking)

    def closing(self, state: State) -> str:
        """Return the text that ends the thinking from here."""
        part = self._parts[state.part]
        assert isinstance(part, Thinking)
        tag = part.until
        kept = next(n for n in range(len(tag), -1, -1) if state.done.endswith(tag[:n]))
        return tag[kept:]

    def forced(self, state: State, *, hurry: bool = False) -> str:
        """Return the characters that must follow, whatever the model would choose."""
        text = ""
        while not self.is_over(state):
            part, at = self._parts[state.part], len(state.done)
            if not isinstance(part, Choice):
                break
            chars = {option[at] for option in part.possible(state.done, hurry=hurry)}
            if len(chars) != 1:
                break
            text += (char := chars.pop())
            following = self._choose(state, part, state.done + char, hurry=hurry)
            assert following is not None, "the character is one of a possible text"
            state = following
        return text

    def _after(self, state: State, char: str, *, hurry: bool) -> State | None:
        part, done = self._parts[state.part], state.done + char
        if isinstance(part, Choice):
            return self._choose(state, part, done, hurry=hurry)
        if isinstance(part, Number):
            return self._number(state, part, char, hurry=hurry)
        if done.endswith(part.until):
            return State(state.part + 1)
        return replace(state, done=done[-len(part.until) :])

    def _choose(self, state: State, part: Choice, done: str, *, hurry: bool) -> State | None:
        # Which text is the first is decided before the last character: a text that has begun may
        # be written to its end.
        options = part.possible(state.done, hurry=hurry)
        if done in options:
            return replace(state, part=part.targets[done], done="")
        return replace(state, done=done) if any(o.startswith(done) for o in options) else None

    def _number(self, state: State, part: Number, char: str, *, hurry: bool) -> State | None:
        digits = state.done.strip()
        other = state.numbers[0] if part.differs else None
        if char == " " and not state.done:
            return replace(state, done=" ")
        if "0" <= char <= "9":
            value = int(digits + char)
            fits = digits != "0" and value <= part.limit
            # It must be able to end: here, or with one digit more.
            ends = value != other or 0 < value * 10 <= part.limit
            return replace(state, done=digits + char) if fits and ends else None
        if not digits or int(digits) == other:
            return None
        ended = State(state.part + 1, numbers=(*state.numbers, int(digits))[-2:])
        return self._after(ended, char, hurry=hurry)


def grammar_of(template: str, frame_wh: SizeWH) -> AnswerGrammar:
    """Return the grammar of a template's replies, with numbers in a frame of this size.

    Raises:
        ConfigError: The template has no grammar.
    """
    if is_native(template):
        raise ConfigError(f"grammar: there is none for the template {template}")
    width, height = frame_wh
    point = (Number(width), Number(height))
    box = (*point, Number(width, differs=True), Number(height, differs=True))
    single = is_single_object(template)
    begin = '{"bbox": [' if single else '{"bbox_2d": ['
    parts: list[Part] = []

    def fixed(*texts: str) -> None:
        parts.append(Choice(dict.fromkeys(texts, len(parts) + 1)))

    def numbers(first: Number, *others: Number) -> None:
        parts.append(first)
        for number in others:
            fixed(",")
            parts.append(number)

    if asks_to_think(template):
        fixed(THINK_OPEN)
        parts.append(Thinking(THINK_CLOSE))
        fixed(*(space + ANSWER_OPEN for space in _SPACES))
    else:
        fixed(ANSWER_OPEN)
    first_number = len(parts) + 1
    opening = Choice({"[]": -1, begin if single else f"[{begin}": first_number})
    parts.append(opening)
    numbers(*box)
    for key in ("points_1", "points_2") if single else ("point_2d",):
        fixed(f'], "{key}": [')
        numbers(*point)
    if single:
        fixed("]}")
    else:
        parts.append(Choice({"]}]": len(parts) + 1, f"]}}, {begin}": first_number}))
    opening.targets["[]"] = len(parts)
    fixed(ANSWER_CLOSE)
    return AnswerGrammar(tuple(parts))
