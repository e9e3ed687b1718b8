"""Leaves a failing reasoner alone for a while, so that a fallback answers at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from segzero_core.errors import ConfigError

_LATENCIES_KEPT: Final = 100


class BreakerState(Enum):
    """What a circuit breaker does with the next query."""

    CLOSED = "closed"
    """The reasoner is asked."""
    OPEN = "open"
    """It failed too often; it is not asked until its pause is over."""
    HALF_OPEN = "half_open"
    """The pause is over: one query tries it, the others go on to the fallback."""


@dataclass(frozen=True, slots=True)
class ReasonerHealth:
    """How a reasoner has been doing, for diagnostics."""

    name: str  # what the reasoner is called
    state: BreakerState  # of its circuit breaker
    answered: int  # queries that it answered
    failed: int  # queries that it failed to answer
    median_s: float  # median time to the end of its latest replies [s]; 0 before the first
    last_error: str  # its last failure in one line; empty where there was none


class CircuitBreaker:
    """Counts failures in a row, and opens when there are too many.

    Safe to call from any thread.

    Args:
        name: What the reasoner is called.
        max_failures: Failures in a row that open it.
        first_pause_s: Until the reasoner is tried again [s]; doubled after every failed try.
        max_pause_s: Longest pause [s].
        clock: Seconds that only grow.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        name: str,
        max_failures: int = 2,
        first_pause_s: float = 1.0,
        max_pause_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_failures < 1 or not 0 < first_pause_s <= max_pause_s:
            raise ConfigError(
                f"circuit breaker: expected 1 failure or more and 0 < first pause <= longest,"
                f" got {max_failures}, {first_pause_s} s and {max_pause_s} s"
            )
        self._name, self._clock = name, clock
        self._max_failures = max_failures
        self._first_pause_s, self._max_pause_s = first_pause_s, max_pause_s
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._pause_s = first_pause_s
        self._open_until_s: float | None = None
        self._trying = False
        self._answered, self._failed, self._last_error = 0, 0, ""
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)

    def allows(self) -> bool:
        """Say whether the reasoner may be asked now.

        Whoever is allowed must report with `succeeded`, `failed` or `abandoned`.
        """
        with self._lock:
            if self._open_until_s is None:
                return True
            if self._trying or self._clock() < self._open_until_s:
                return False
            self._trying = True
            return True

    def succeeded(self, latency_s: float) -> None:
        """Report a whole reply and how long it took; closes the breaker."""
        with self._lock:
            self._answered += 1
            self._latencies_s.append(latency_s)
            self._failures_in_a_row, self._pause_s = 0, self._first_pause_s
            self._open_until_s, self._trying = None, False

    def failed(self, reason: str) -> None:
        """Report a failure of the reasoner, not of the query."""
        with self._lock:
            self._failed += 1
            self._failures_in_a_row += 1
            self._last_error = reason
            if self._trying:
                self._pause_s = min(2 * self._pause_s, self._max_pause_s)
            if self._trying or self._failures_in_a_row >= self._max_failures:
                self._open_until_s = self._clock() + self._pause_s
            self._trying = False

    def abandoned(self) -> None:
        """Report that the caller stopped, which tells nothing about the reasoner."""
        with self._lock:
            self._trying = False

    @property
    def health(self) -> ReasonerHealth:
        """The counts so far."""
        with self._lock:
            latencies = sorted(self._latencies_s)
            median_s = latencies[len(latencies) // 2] if latencies else 0.0
            return ReasonerHealth(
                self._name, self._state(), self._answered, self._failed, median_s, self._last_error
            )

    def _state(self) -> BreakerState:
        if self._open_until_s is None:
            return BreakerState.CLOSED
        if self._trying or self._clock() >= self._open_until_s:
            return BreakerState.HALF_OPEN
        return BreakerState.OPEN
