"""Masks and times of one answer while it is made."""

from __future__ import annotations

import time
from collections.abc import Iterator

from segzero_core.events import MaskReady, PromptFound
from segzero_core.segmenter.mask_worker import MaskWorker
from segzero_core.types import ObjectPrompt, Timings


class MaskProgress:
    """Requests the mask of each object as soon as it is found, and yields each mask once."""

    def __init__(self, worker: MaskWorker, clock: AnswerClock) -> None:
        self._worker = worker
        self._clock = clock
        self._awaited: dict[int, ObjectPrompt] = {}

    def found(self, event: PromptFound) -> None:
        """Request the mask of an object; one with the same index replaces it."""
        self._awaited[event.index] = event.prompt
        self._worker.ask([event.prompt])

    def chunk_came(self) -> None:
        """Count a chunk of the reply; raise if the encoder failed, so that the reply ends."""
        self._clock.count_chunk()
        self._worker.raise_failure()

    def ready(self) -> Iterator[MaskReady]:
        """Yield the masks that were made since the last call."""
        for index, prompt in list(self._awaited.items()):
            if made := self._worker.mask(prompt):
                del self._awaited[index]
                self._clock.count_mask()
                yield MaskReady(index, prompt, *made)


class AnswerClock:
    """Measures the times of one answer, from its construction."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first_chunk_ms: float | None = None
        self._reasoner_ms = 0.0
        self._first_mask_ms = 0.0
        self._chunks = 0

    def count_chunk(self) -> None:
        """Count a chunk of the completion; the first one has its own time."""
        if self._first_chunk_ms is None:
            self._first_chunk_ms = _ms_since(self._start)
        self._chunks += 1

    def count_mask(self) -> None:
        """Note the time of the first mask."""
        self._first_mask_ms = self._first_mask_ms or _ms_since(self._start)

    def stop_reasoner(self) -> None:
        """Note that the completion has ended."""
        self._reasoner_ms = _ms_since(self._start)

    def timings(self, encoder_ms: float, decoder_ms: float) -> Timings:
        """Return all times, with the total up to now."""
        first = self._reasoner_ms if self._first_chunk_ms is None else self._first_chunk_ms
        total = _ms_since(self._start)
        return Timings(
            first,
            self._reasoner_ms,
            encoder_ms,
            decoder_ms,
            total,
            self._chunks,
            self._first_mask_ms,
        )


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
