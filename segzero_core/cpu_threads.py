"""Divides the CPU threads between the reasoner and the image encoder while both work.

If each started as many threads as there are cores, they would wait for one another at every small
operation. Each gets half of the threads, and the reasoner gets all once the image is encoded.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import torch

_T = TypeVar("_T")


def in_own_thread(work: Callable[[], _T]) -> _T:
    """Run a function in a thread of its own; torch's worker threads end with it.

    A thread that has computed keeps its helpers. Where there are more of them than cores, OpenMP
    (libgomp) sends all helpers of the process to sleep after every operation, and waking them
    takes as long as a small operation. So what is done once should not be done in a thread that
    stays.
    """
    done: Future[_T] = Future()
    # Not the thread of a pool: an interrupt of the caller would wait for its end.
    threading.Thread(target=_fulfil, args=(done, work), name="segzero-once", daemon=True).start()
    try:
        return done.result()
    finally:
        del done


def _fulfil(done: Future[_T], work: Callable[[], _T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)
    finally:
        # An error knows its trace, and that the functions it went through. Did these know `done`,
        # which knows the error, half a model that failed to load would stay for a while.
        del done


class CpuThreads:
    """Shares torch's threads between two users that work at the same time.

    How many threads an operation takes is torch's own setting of the thread that calls it. Threads
    that begin meanwhile inherit what was set last, so everybody here puts it back. A total of 0
    means as many as torch has in the calling thread.
    """

    def __init__(self, total: int = 0) -> None:
        self.total = total or torch.get_num_threads()
        self._lock = threading.Lock()
        self._encoders = 0

    @property
    def encoder_share(self) -> int:
        """Threads of the image encoder."""
        return max(1, self.total // 2)

    @property
    def reasoner_share(self) -> int:
        """Threads of the reasoner at this moment."""
        return max(1, self.total - self.total // 2) if self._encoders else self.total

    @contextlib.contextmanager
    def encoding(self) -> Iterator[None]:
        """Let the calling thread encode an image with the encoder's share."""
        with self._lock:
            self._encoders += 1
        self._set(self.encoder_share)
        try:
            yield
        finally:
            with self._lock:
                self._encoders -= 1
            self._set(self.total)

    @contextlib.contextmanager
    def reasoning(self) -> Iterator[None]:
        """Let the calling thread reason; `take_share` says with how many threads."""
        self.take_share()
        try:
            yield
        finally:
            self._set(self.total)

    def take_share(self, most: int | None = None) -> None:
        """Give the calling thread the reasoner's share, `most` at most; call it between passes."""
        share = self.reasoner_share
        self._set(share if most is None else min(share, most))

    def _set(self, threads: int) -> None:
        if self.total > 1:
            torch.get_num_threads()  # a thread's first question would undo what was set before it
            torch.set_num_threads(threads)
