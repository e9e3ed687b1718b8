"""A reply while it is made: tokens become text, in a thread that can be stopped between two."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from segzero_core.completion.parser import TAGS, StreamReader

# How often a wait for the model looks whether it is still wanted [s].
_TURN_CHECK_S: Final = 0.05
_BROKEN_CHARACTER: Final = "\ufffd"

Take = Callable[[int], bool]
"""Receives each token of a reply; says whether the reply is over."""


class Detokenizer:
    """Turns tokens into text one by one, in time proportional to their number.

    A token may be half a character, and how a token reads can depend on the one before it: so
    a token is decoded together with those since the last whole character, and the one before.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._silent = silent_ids(tokenizer)
        self._context: list[int] = []
        self._pending: list[int] = []

    def add(self, token: int) -> str:
        """Return the text that this token completes, often a word, sometimes nothing."""
        if token in self._silent:
            return ""
        self._pending.append(token)
        text = self._new_text()
        if text.endswith(_BROKEN_CHARACTER):
            return ""
        self._context, self._pending = self._pending[-1:], []
        return text

    def flush(self) -> str:
        """Return what is left of an unfinished character."""
        return self._new_text() if self._pending else ""

    def _new_text(self) -> str:
        return self._decode(self._context + self._pending)[len(self._decode(self._context)) :]

    def _decode(self, tokens: list[int]) -> str:
        return decoded(self._tokenizer, tokens)


def decoded(tokenizer: Any, tokens: list[int]) -> str:
    """Return the text of tokens, as it stands in a reply."""
    text: str = tokenizer.decode(
        tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text


def silent_ids(tokenizer: Any) -> set[int]:
    """Return the special tokens that are no text, such as the end; the tags may be special too."""
    special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    return {int(i) for i, text in special if text.lower() not in TAGS}


class Reply:
    """One reply: a thread makes it, another reads its pieces.

    Attributes:
        pieces: The text, one piece per token, then None.
        stop: Set to end the reply at the next token.
        error: What went wrong, once `pieces` has ended.
    """

    def __init__(self, tokenizer: Any, end_ids: set[int]) -> None:
        self.pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._detokenizer = Detokenizer(tokenizer)
        self._end_ids = end_ids
        self._reader = StreamReader()

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._reader.text

    def run(self, make: Callable[[Take], None], turn: threading.Lock) -> None:
        """Make the reply until its answer closes, it ends by itself, or `stop` is set.

        Args:
            make: Gives every token to the function that it is called with, until that says that
                the reply is over.
            turn: Held while the model works.
        """
        try:
            while not turn.acquire(timeout=_TURN_CHECK_S):
                if self.stop.is_set():
                    return
            try:
                if not self.stop.is_set():
                    make(self._take)
            finally:
                turn.release()
            if rest := self._detokenizer.flush():
                self._tell(rest)
        except BaseException as error:  # crosses to the reading thread, which raises it
            self.error = error
        finally:
            self.pieces.put(None)

    def _take(self, token: int) -> bool:
        if token in self._end_ids:
            return True
        self._tell(self._detokenizer.add(token))
        return self.stop.is_set() or self._reader.answer_closed

    def _tell(self, piece: str) -> None:
        self._reader.feed(piece)
        self.pieces.put(piece)
