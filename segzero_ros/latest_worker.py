"""Works on the latest of the items that come, in a thread of its own, and not too often."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from segzero_ros.diagnostics.guard import Guard

T = TypeVar("T")


class LatestItemWorker(Generic[T]):
    """A thread that takes the latest item, works on it, and skips what came meanwhile.

    It starts with the first item. `period_s` returns the shortest time between two items that are
    worked on [s]. All methods are thread-safe; only `stop` waits.
    """

    def __init__(
        self, name: str, work: Callable[[T], None], period_s: Callable[[], float], guard: Guard
    ) -> None:
        self._work = work
        self._period_s = period_s
        self._changed = threading.Condition()
        self._next: T | None = None
        self._stopping = False
        run = partial(guard.loop, name, self._step)
        self._thread = threading.Thread(target=run, name=name, daemon=True)

    def offer(self, item: T) -> None:
        """Work on an item as soon as possible, unless a newer one comes before."""
        with self._changed:
            if self._stopping:
                return
            self._next = item
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()

    def forget(self) -> None:
        """Drop the item that waits, if there is one."""
        with self._changed:
            self._next = None

    def stop(self, timeout_s: float) -> None:
        """End the thread after the item that it works on; no further one is taken."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _step(self) -> bool:
        """Wait for an item and work on it; False when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._next is not None)
            if self._stopping:
                return False
            item, self._next = self._next, None
        assert item is not None
        began_s = time.monotonic()
        self._work(item)
        del item
        with self._changed:
            left_s = began_s + self._period_s() - time.monotonic()
            self._changed.wait_for(lambda: self._stopping, max(0.0, left_s))
        return True
