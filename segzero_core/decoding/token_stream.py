"""The text of a reply while a thread generates it, which can be stopped between two tokens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from segzero_core.completion.parser import TAGS, StreamReader
from segzero_core.errors import raise_if_cancelled

# How often a wait looks whether it is still wanted [s].
_POLL_S: Final = 0.05
_BROKEN_CHARACTER: Final = "\ufffd"

OnToken = Callable[[int], bool]
"""Receives each token of a reply; says whether the reply is over."""


class Detokenizer:
    """Turns tokens into text one by one, in time proportional to their number.

    A token may be half a character, and its text can depend on the token before it: so a token is
    decoded together with those since the last whole character, and the one before.
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
        text = self.flush()
        if text.endswith(_BROKEN_CHARACTER):
            return ""
        self._context, self._pending = self._pending[-1:], []
        return text

    def flush(self) -> str:
        """Return what is left of an unfinished character."""
        before = decode(self._tokenizer, self._context)
        return decode(self._tokenizer, self._context + self._pending)[len(before) :]


def decode(tokenizer: Any, tokens: list[int]) -> str:
    """Return the text of tokens, as it stands in a reply."""
    text: str = tokenizer.decode(
        tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text


def silent_ids(tokenizer: Any) -> set[int]:
    """Return the special tokens that are no text, such as the end; the tags may be special too."""
    special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    return {int(i) for i, text in special if text.lower() not in TAGS}


class TokenStream:
    """One reply: a thread generates it, the caller iterates over its text.

    Args:
        tokenizer: The model's.
        end_ids: The tokens that end a reply.
        generate: Calls the function that it is given with every token, until that returns True.
        lock: Held while the model works.
        opening: What the prompt has already said of the reply.
    """

    def __init__(
        self,
        tokenizer: Any,
        end_ids: set[int],
        generate: Callable[[OnToken], None],
        lock: threading.Lock,
        opening: str = "",
    ) -> None:
        self._opening = opening
        # What went wrong in the thread, once the chunks have ended.
        self.error: BaseException | None = None
        self._end_ids = end_ids
        self._generate = generate
        self._lock = lock
        self._detokenizer = Detokenizer(tokenizer)
        self._reader = StreamReader()
        self._chunks: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stop = threading.Event()

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._reader.text

    def chunks(self, cancel: threading.Event | None) -> Iterator[str]:
        """Yield the text, one chunk per token, until the answer closes or the model ends.

        Closing the iterator, or setting `cancel`, stops the thread after the model's present
        step. The iterator ends with the thread and not before, so that no work is left behind.

        Raises:
            CancelledError: `cancel` was set.
        """
        thread = threading.Thread(target=self._run, name="segzero-reasoner", daemon=True)
        thread.start()
        try:
            while True:
                raise_if_cancelled(cancel)
                try:
                    chunk = self._chunks.get(timeout=None if cancel is None else _POLL_S)
                except queue.Empty:
                    continue
                if chunk is None:
                    return
                raise_if_cancelled(cancel)  # it may have been set while this waited
                yield chunk
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        try:
            while not self._lock.acquire(timeout=_POLL_S):
                if self._stop.is_set():
                    return
            try:
                if not self._stop.is_set():
                    self._generate(self._on_token)
            finally:
                self._lock.release()
            if rest := self._detokenizer.flush():
                self._put(rest)
        except BaseException as error:  # the caller's thread raises it
            self.error = error
        finally:
            self._chunks.put(None)

    def _on_token(self, token: int) -> bool:
        if token in self._end_ids:
            return True
        self._put(self._detokenizer.add(token))
        reader = self._reader
        return self._stop.is_set() or reader.answer_closed or reader.is_too_long

    def _put(self, chunk: str) -> None:
        chunk, self._opening = self._opening + chunk, ""
        self._reader.feed(chunk)
        self._chunks.put(chunk)
