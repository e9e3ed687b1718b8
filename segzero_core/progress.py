"""Masks and times of one answer while it is made."""

from __future__ import annotations

import time
from collections.abc import Iterator

from segzero_core.events import MaskReady, PromptFound
from segzero_core.segmenter.mask_worker import MaskWorker
from segzero_core.types import ObjectPrompt, Timings


class AnswerProgress:
    """Requests the mask of each object as soon as it is found, and measures from construction."""

    def __init__(self, worker: MaskWorker) -> None:
        self._worker = worker
        self._awaited: dict[int, ObjectPrompt] = {}
        self._start = time.perf_counter()
        self._first_chunk_ms: float | None = None
        self._reasoner_ms = 0.0
        self._first_mask_ms = 0.0
        self._chunks = 0

    def found(self, event: PromptFound) -> None:
        """Request the mask of an object; one with the same index replaces it."""
        self._awaited[event.index] = event.prompt
        self._worker.ask([event.prompt])

    def chunk_came(self) -> None:
        """Count a chunk of the reply; raise if the encoder failed, so that the reply ends."""
        if self._first_chunk_ms is None:
            self._first_chunk_ms = self._now_ms()
        self._chunks += 1
        self._worker.raise_failure()

    def ready(self) -> Iterator[MaskReady]:
        """Yield the masks that were made since the last call."""
        for index, prompt in list(self._awaited.items()):
            if made := self._worker.mask(prompt):
                del self._awaited[index]
                self._first_mask_ms = self._first_mask_ms or self._now_ms()
                yield MaskReady(index, prompt, *made)

    def stop_reasoner(self) -> None:
        """Note that the completion has ended."""
        self._reasoner_ms = self._now_ms()

    def timings(self) -> Timings:
        """Return all times, with the total up to now."""
        return Timings(
            self._reasoner_ms if self._first_chunk_ms is None else self._first_chunk_ms,
            self._reasoner_ms,
            self._worker.encoder_ms,
            self._worker.decoder_ms,
            self._now_ms(),
            self._chunks,
            self._first_mask_ms,
        )

    def _now_ms(self) -> float:
        return (time.perf_counter() - self._start) * 1e3
