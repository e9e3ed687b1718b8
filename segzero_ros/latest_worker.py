"""Works on the newest of what comes, in a thread of its own, and not too often."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class NewestWorker(Generic[T]):
    """A thread that takes the newest item, works on it, and leaves out what came meanwhile.

    It begins with the first item. All methods are thread-safe; only `stop` waits.

    Args:
        name: Of the thread.
        work: Works on an item, in the thread; it must not raise.
        period_s: Returns the shortest time between two items that are worked on [s].
    """

    def __init__(
        self, name: str, work: Callable[[T], None], period_s: Callable[[], float]
    ) -> None:
        self._name = name
        self._work = work
        self._period_s = period_s
        self._changed = threading.Condition()
        self._next: T | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def offer(self, item: T) -> None:
        """Work on an item as soon as it may be; a newer one takes its place until then."""
        with self._changed:
            if self._stopping:
                return
            self._next = item
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def forget(self) -> None:
        """Drop the item that waits, if there is one."""
        with self._changed:
            self._next = None

    def stop(self, timeout_s: float) -> None:
        """End the thread after the item that it is at; nothing is taken any more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._next is not None)
                if self._stopping:
                    return
                item, self._next = self._next, None
            assert item is not None
            began_s = time.monotonic()
            self._work(item)
            del item
            with self._changed:
                left_s = began_s + self._period_s() - time.monotonic()
                self._changed.wait_for(lambda: self._stopping, max(0.0, left_s))
