"""Keeps threads and callbacks alive: what they raise is logged and reported."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from segzero_ros.diagnostics.log_bridge import log_defect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rclpy.impl.rcutils_logger import RcutilsLogger

    from segzero_ros.diagnostics.health import Health

PAUSE_S: Final = 0.2
"""After a step of a loop has failed: one that always fails must not take a core."""


class Guard:
    """The last border of every thread of the node; safe to use from several."""

    def __init__(self, log: RcutilsLogger, health: Health) -> None:
        self._log = log
        self._health = health

    @contextmanager
    def __call__(self, where: str) -> Iterator[None]:
        """Run a block that must not end its thread; `where` names it for people."""
        try:
            yield
        except Exception as error:
            self.report(where, error)

    def report(self, where: str, error: Exception) -> None:
        """Log the exception that is being handled, and tell of it on /diagnostics."""
        self._health.defect(f"{where}: {type(error).__name__}: {error}")
        log_defect(self._log, where)

    def loop(self, thread: str, step: Callable[[], bool]) -> None:
        """Repeat a thread's step until it returns False; a failed one is followed by the next."""
        goes_on = True
        while goes_on:
            with self(f"in the thread {thread}"):
                goes_on = step()
                continue
            time.sleep(PAUSE_S)  # type: ignore[unreachable] # the guard keeps exceptions
