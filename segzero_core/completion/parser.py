"""Parses a reasoner's completion; node, command line, rewards and evaluation use this one parser.

A reply is `<think>…</think><answer>…</answer>`; the tags in any case, the thinking optional,
other text around them ignored. The answer is the last complete one. An answer that stands in a
closed thinking block is a draft, and counts only when there is no other.

A native reply, which a Qwen model gives to the template `qwen_native`, has no `<answer>`: all that
stands behind the thinking is the answer.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final, TypeAlias

from segzero_core.completion.answer import AnswerReader, AnswerRuleError, read_answer
from segzero_core.completion.lenient_json import IncompleteError
from segzero_core.errors import AnswerParseError, TruncatedReplyError, shown
from segzero_core.events import AnswerDelta, PromptFound, ThinkingDelta
from segzero_core.limits import MAX_COMPLETION_CHARS
from segzero_core.types import Reasoning

THINK_OPEN: Final = "<think>"
THINK_CLOSE: Final = "</think>"
ANSWER_OPEN: Final = "<answer>"
ANSWER_CLOSE: Final = "</answer>"
TAGS: Final = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)

_Tag: TypeAlias = re.Match[str]
_TAG = re.compile("|".join(TAGS), re.IGNORECASE | re.ASCII)
_LONGEST_TAG = max(map(len, TAGS))

# Beyond this length an answer is no longer read while it grows, only at its end.
_LIVE_ANSWER_CHARS = 32_768


def parse_completion(text: str, *, native: bool = False) -> Reasoning:
    """Read a whole reply of the reasoner; `native` is Qwen's own form, see `prompt.is_native`.

    The prompts are in the coordinates written in the text. None means that the answer was an empty
    list: nothing matched.

    Raises:
        TruncatedReplyError: `<answer>` was opened and no answer is complete.
        AnswerParseError: There is no answer, or it breaks a rule.
    """
    if len(text) > MAX_COMPLETION_CHARS:
        raise AnswerParseError(
            f"a reply of {len(text)} characters; at most {MAX_COMPLETION_CHARS} are read", text
        )
    if native:
        return _parse_native(text)
    tags = list(_TAG.finditer(text))
    blocks, open_think = _thinking_blocks(tags)
    starts = [first.start() for first, _ in blocks]

    def is_outside(tag: _Tag) -> bool:
        before = bisect_right(starts, tag.start())
        return before == 0 or tag.start() >= blocks[before - 1][1].end()

    opened, answer = _last_answer(filter(is_outside, tags))
    if not opened:
        opened, answer = _last_answer(tags)
    if not opened:
        raise AnswerParseError(
            f"no {ANSWER_OPEN} in the reply of {len(text)} characters, which ends in"
            f" {shown(text[-40:])}; if it stops in the middle, raise max_new_tokens",
            text,
        )
    if answer is None:
        raise TruncatedReplyError(
            f"{ANSWER_OPEN} was opened and never closed; the reply ends in {shown(text[-40:])};"
            " raise max_new_tokens",
            text,
        )
    start, end = answer
    try:
        prompts = read_answer(text[start:end])
    except AnswerRuleError as error:
        raise AnswerParseError(
            f"unusable answer {shown(text[start:end])}: {error}", text
        ) from None
    spans = [(first.end(), last.start()) for first, last in blocks]
    if open_think is not None:
        spans.append((open_think.end(), len(text)))
    # A block that the answer stands in ends where the answer begins.
    opening = start - len(ANSWER_OPEN)
    parts = (text[i : opening if i <= opening < j else j].strip() for i, j in spans)
    return Reasoning("\n\n".join(filter(None, parts)), prompts, text)


def _parse_native(text: str) -> Reasoning:
    """Read a reply whose answer is all the text after the thinking."""
    lower = text.lower()
    thinking, closed, answer = text, THINK_CLOSE in lower, text
    if closed:
        end = lower.rindex(THINK_CLOSE)
        thinking, answer = text[:end], text[end + len(THINK_CLOSE) :]
    elif THINK_OPEN in lower:
        raise TruncatedReplyError("the thinking does not end; raise max_new_tokens", text)
    try:
        prompts = read_answer(answer, native=True)
    except AnswerRuleError as error:
        is_cut = isinstance(error.__cause__, IncompleteError)
        kind = TruncatedReplyError if is_cut else AnswerParseError
        raise kind(f"unusable answer {shown(answer.strip())}: {error}", text) from None
    start = thinking.lower().find(THINK_OPEN)
    thinking = thinking[start + len(THINK_OPEN) :] if start >= 0 else thinking
    return Reasoning(thinking.strip() if closed else "", prompts, text)


def _thinking_blocks(tags: list[_Tag]) -> tuple[list[tuple[_Tag, _Tag]], _Tag | None]:
    """Return the tags of the closed blocks of thinking, and the tag that was never closed.

    A second `</think>` shows that the first was only spoken of, and moves the end of the block.
    """
    blocks: list[tuple[_Tag, _Tag]] = []
    opening: _Tag | None = None
    for tag in tags:
        name = tag.group().lower()
        if name == THINK_OPEN and opening is None:
            opening = tag
        elif name == THINK_CLOSE and opening is not None:
            blocks.append((opening, tag))
            opening = None
        elif name == THINK_CLOSE and blocks:
            blocks[-1] = (blocks[-1][0], tag)
    return blocks, opening


def _last_answer(tags: Iterable[_Tag]) -> tuple[bool, tuple[int, int] | None]:
    """Return whether an answer was opened, and where the text of the last complete one is."""
    opened = False
    opening: _Tag | None = None
    span: tuple[int, int] | None = None
    for tag in tags:
        name = tag.group().lower()
        if name == ANSWER_OPEN:
            opened, opening = True, tag
        elif name == ANSWER_CLOSE and opening is not None:
            span, opening = (opening.end(), tag.start()), None
    return opened, span


class _State(Enum):
    OUTSIDE = auto()
    THINKING = auto()
    ANSWERING = auto()


class StreamReader:
    """Parses a completion while it grows, in chunks that may be split anywhere.

    What `feed` returns is the live view: it takes `<answer>` within open thinking for a mention,
    and yields no more objects when the answer breaks a rule. `finish` has the last word; it equals
    `parse_completion` of the whole text. Not safe for use by two threads at once.
    """

    def __init__(self, *, native: bool = False) -> None:
        self._native = native
        self._chunks: list[str] = []
        self._chars = 0
        self._held_back = ""
        self._state = _State.OUTSIDE
        self._answer_chunks: list[str] = []
        self._answer_chars = 0
        self._reader: AnswerReader | None = None
        self._answer_closed = False
        if native:
            self._begin_answer()

    @property
    def text(self) -> str:
        """All the text so far."""
        return "".join(self._chunks)

    @property
    def answer_closed(self) -> bool:
        """Whether an answer after the thinking is complete, so that the model may stop."""
        return self._answer_closed

    @property
    def is_too_long(self) -> bool:
        """Whether no more is read, so that the model may stop; `finish` raises."""
        return self._chars > MAX_COMPLETION_CHARS

    def feed(self, piece: str) -> list[ThinkingDelta | AnswerDelta | PromptFound]:
        """Take the next chunk and return the events that it completes."""
        self._chunks.append(piece)
        self._chars += len(piece)
        if self.is_too_long:
            return []
        text = self._held_back + piece
        self._held_back = ""
        events: list[ThinkingDelta | AnswerDelta | PromptFound] = []
        position = 0
        for tag in _TAG.finditer(text):
            if self._is_boundary(tag.group().lower()):
                events += self._events_of(text[position : tag.start()])
                self._enter(tag.group().lower())
                position = tag.end()
        rest = text[position:]
        kept = len(rest) - _length_of_tag_beginning(rest)
        self._held_back = rest[kept:]
        return events + self._events_of(rest[:kept])

    def finish(self) -> Reasoning:
        """Read the whole reply, now that it has ended.

        Raises:
            TruncatedReplyError: As `parse_completion`.
            AnswerParseError: As `parse_completion`.
        """
        return parse_completion(self.text, native=self._native)

    def _is_boundary(self, tag: str) -> bool:
        """Say whether a tag means something here; any other is part of the text."""
        if self._state is _State.THINKING:
            return tag == THINK_CLOSE
        if self._native:
            return tag == THINK_OPEN
        if self._state is _State.ANSWERING:
            return tag in (ANSWER_OPEN, ANSWER_CLOSE)
        return True

    def _enter(self, tag: str) -> None:
        if tag == THINK_OPEN:
            self._state = _State.THINKING
        elif tag == ANSWER_OPEN or self._native:
            self._begin_answer()
        else:
            self._answer_closed |= self._state is _State.ANSWERING
            self._state = _State.OUTSIDE

    def _begin_answer(self) -> None:
        self._state = _State.ANSWERING
        self._answer_chunks, self._answer_chars = [], 0
        self._reader = AnswerReader(native=self._native)

    def _events_of(self, text: str) -> list[ThinkingDelta | AnswerDelta | PromptFound]:
        if not text or self._state is _State.OUTSIDE:
            return []
        if self._state is _State.THINKING:
            return [ThinkingDelta(text)]
        self._answer_chunks.append(text)
        self._answer_chars += len(text)
        return [AnswerDelta(text), *self._new_prompts(text)]

    def _new_prompts(self, text: str) -> list[PromptFound]:
        """Read on in the answer; only a closing bracket can complete an object."""
        if self._answer_chars > _LIVE_ANSWER_CHARS:
            self._reader = None
        if self._reader is None or not ("}" in text or "]" in text):
            return []
        before = len(self._reader.prompts)
        found = self._reader.prompts
        try:
            self._reader.read("".join(self._answer_chunks))
        except AnswerRuleError:
            self._reader = None  # `finish` names the rule
        return [PromptFound(index, found[index]) for index in range(before, len(found))]


def _length_of_tag_beginning(text: str) -> int:
    """Return how many characters at the end of the text may be the beginning of a tag."""
    start = text.rfind("<", max(0, len(text) - _LONGEST_TAG + 1))
    if start < 0 or not any(tag.startswith(text[start:].lower()) for tag in TAGS):
        return 0
    return len(text) - start
