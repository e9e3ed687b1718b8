"""Draws ~/overlay in a thread of its own, only for somebody who looks, and not too often."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from segzero_ros.answering import Answer


class OverlayPainter:
    """Draws the newest answer, at most so many times a second.

    A drawing costs more than the rest of the node's work on an answer, which must not wait for it.

    Args:
        draw: Draws and publishes an answer, in the painter's thread; it must not raise.
        period_s: Returns the shortest time between two drawings [s].
    """

    def __init__(self, draw: Callable[[Answer], None], period_s: Callable[[], float]) -> None:
        self._draw = draw
        self._period_s = period_s
        self._changed = threading.Condition()
        self._next: Answer | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def paint(self, answer: Answer) -> None:
        """Draw an answer as soon as it may be; a newer one takes its place until then."""
        with self._changed:
            self._next = answer
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="segzero-overlay", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def stop(self, timeout_s: float) -> None:
        """End the thread after the drawing that it is at."""
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
                answer, self._next = self._next, None
            assert answer is not None
            drawn_s = time.monotonic()
            self._draw(answer)
            del answer
            with self._changed:
                left_s = drawn_s + self._period_s() - time.monotonic()
                self._changed.wait_for(lambda: self._stopping, max(0.0, left_s))
