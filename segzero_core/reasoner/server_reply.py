"""Assembles the events of a chat-completions stream into a reply for the parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from segzero_core.completion.parser import THINK_CLOSE, THINK_OPEN
from segzero_core.errors import ReasoningError

END_TAG: Final = "</answer>"


class ServerError(ReasoningError):
    """The server could not be reached, refused, or broke off; another one may answer."""


class ReplyText:
    """Assembles the events of a server into a reply of limited length for `parse_completion`.

    If it `opens_thinking`, the reply begins within the thinking, unless that comes on its own.
    """

    def __init__(self, max_chars: int, *, opens_thinking: bool = False) -> None:
        self._max_chars = max_chars
        self._opening = THINK_OPEN if opens_thinking else ""
        self._text = ""
        self._thinking = False
        self._finish_reason: str | None = None

    @property
    def so_far(self) -> str:
        """The text that was yielded."""
        return self._text

    @property
    def is_complete(self) -> bool:
        """Whether the answer has ended."""
        return END_TAG in self._text

    def feed(self, event: Any) -> Iterator[str]:
        """Yield the text of one event; thoughts that come on their own get their tags."""
        for choice in (event.choices or ())[:1]:
            delta = choice.delta
            thought = getattr(delta, "reasoning_content", None) or getattr(
                delta, "reasoning", None
            )
            if isinstance(thought, str) and thought:
                yield from self._add(thought if self._thinking else THINK_OPEN + thought)
                self._thinking = True
            if isinstance(delta.content, str) and delta.content:
                opening = THINK_CLOSE if self._thinking else self._opening
                if not self._thinking and delta.content.lstrip().startswith("<think"):
                    opening = ""
                yield from self._add(opening + delta.content)
                self._thinking = False
            if self._text:
                self._opening = ""
            self._finish_reason = choice.finish_reason or self._finish_reason

    def finish(self) -> Iterator[str]:
        """Yield what a server left out at the end.

        Raises:
            ServerError: The connection ended before the reply did.
        """
        if self._finish_reason is None:
            raise ServerError("the server closed the connection within its reply", self._text)
        if not self._text:
            raise ServerError("the server sent an empty reply")
        # Most servers leave out the text that stopped them.
        opened = self._text.rfind("<answer>") > self._text.rfind(END_TAG)
        if opened and self._finish_reason == "stop":
            yield from self._add(END_TAG)

    def _add(self, text: str) -> Iterator[str]:
        before = len(self._text)
        whole = self._text + text
        end = whole.find(END_TAG, max(0, before - len(END_TAG)))
        if end >= 0:
            whole = whole[: end + len(END_TAG)]
        if len(whole) > self._max_chars:
            raise ServerError(
                f"the server's reply is longer than {self._max_chars} characters", self._text
            )
        self._text = whole
        if chunk := whole[before:]:
            yield chunk
