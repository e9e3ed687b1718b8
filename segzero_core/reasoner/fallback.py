"""Several reasoners in order: where one is down or too slow, the next one answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from segzero_core.errors import (
    AnswerParseError,
    CancelledError,
    ModelLoadError,
    OutOfMemoryError,
    ReasoningError,
    SegZeroError,
    TruncatedReplyError,
)
from segzero_core.events import Event
from segzero_core.reasoner.base import Reasoner
from segzero_core.reasoner.circuit_breaker import BreakerState, CircuitBreaker, ReasonerHealth
from segzero_core.types import ModelIdentity, Reasoning

_LOG: Final = logging.getLogger(__name__)
_POLL_S: Final = 0.02

Ask: TypeAlias = Callable[
    [Reasoner, threading.Event | None, Callable[[], None]], Generator[Event, None, Reasoning]
]
"""Asks a reasoner: gets it, what stops it, and what to call for every chunk of its reply."""


@dataclass(frozen=True, slots=True)
class NamedReasoner:
    """A reasoner and what results call it."""

    identity: ModelIdentity  # its name and weights, and the encoder that goes with it
    reasoner: Reasoner  # Answers


class ReasonerChain:
    """Asks reasoners in their order until one answers; safe to call from any thread.

    One that failed too often is left alone for a while. Where a query has a time limit and another
    reasoner may be asked, the first token must come within half of the time that is left.
    """

    def __init__(self, members: Sequence[NamedReasoner]) -> None:
        self._members = [(each, CircuitBreaker(each.identity.name)) for each in members]

    @property
    def health(self) -> tuple[ReasonerHealth, ...]:
        """How each of them has been doing, in order."""
        return tuple(breaker.health for _, breaker in self._members)

    def answer(
        self, ask: Ask, cancel: threading.Event | None, timeout_s: float | None
    ) -> Generator[Event, None, tuple[Reasoning, ModelIdentity]]:
        """Yield the events of the reply; return the reasoning and who gave it.

        The next reasoner is asked only while nothing of a reply has come.

        Args:
            ask: Asks one of them.
            cancel: Set by any thread to stop.
            timeout_s: What the caller is going to wait from now on [s].

        Raises:
            SegZeroError: As the last reasoner that was asked.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        untried = [breaker for _, breaker in self._members]
        failure: SegZeroError | None = None
        for member, breaker in self._in_order():
            if failure is not None:
                _LOG.warning("%s; %s is asked", failure, member.identity.name)
            untried.remove(breaker)
            others = any(other.health.state is not BreakerState.OPEN for other in untried)
            limit_s = (end_s - time.monotonic()) / 2 if others and end_s is not None else None
            attempt = _Attempt(cancel, limit_s)
            began_s = time.monotonic()
            try:
                reasoning = yield from ask(member.reasoner, attempt.stop, attempt.chunk_came)
            except BaseException as error:
                failure = attempt.failure(error)
                if failure is None:
                    breaker.abandoned()
                    raise
                breaker.failed(str(failure))
                if attempt.began:
                    raise
            else:
                breaker.succeeded(time.monotonic() - began_s)
                return reasoning, member.identity
        assert failure is not None, "there is at least one reasoner"
        raise failure

    def _in_order(self) -> Iterator[tuple[NamedReasoner, CircuitBreaker]]:
        """Yield the reasoners whose breaker is closed, then the others as a last resort."""
        left_alone = []
        for member, breaker in self._members:
            if breaker.allows():
                yield member, breaker
            else:
                left_alone.append((member, breaker))
        yield from left_alone


class _Attempt:
    """One reasoner asked once."""

    def __init__(self, cancel: threading.Event | None, limit_s: float | None) -> None:
        self._limit = None if limit_s is None else _FirstTokenLimit(cancel, limit_s)
        # Stops it: the caller, or the limit.
        self.stop = cancel if self._limit is None else self._limit
        self.began = False  # whether anything of its reply has come

    def chunk_came(self) -> None:
        """Note that the reply goes on."""
        self.began = True
        if self._limit is not None:
            self._limit.came = True

    def failure(self, error: BaseException) -> SegZeroError | None:
        """Return what an error says against the reasoner; None if it says nothing."""
        if isinstance(error, CancelledError) and self._limit is not None and self._limit.is_over:
            return ReasoningError(f"no text within {self._limit.seconds:.3g} s")
        if isinstance(error, TruncatedReplyError | AnswerParseError):
            return None  # it answers; another one may or may not answer better
        if isinstance(error, ReasoningError | OutOfMemoryError | ModelLoadError):
            return error
        return None


class _FirstTokenLimit(threading.Event):
    """Event that is set when the caller's event is set or the first token is late."""

    def __init__(self, cancel: threading.Event | None, seconds: float) -> None:
        super().__init__()
        self._cancel, self.seconds, self.came = cancel, seconds, False
        self._over_at_s = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether no text has come in time."""
        return not self.came and time.monotonic() >= self._over_at_s

    def is_set(self) -> bool:
        """Say whether to stop."""
        return self.is_over or (self._cancel is not None and self._cancel.is_set())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""
        end_s = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left_s = _POLL_S if end_s is None else min(_POLL_S, end_s - time.monotonic())
            if left_s <= 0:
                return False
            time.sleep(left_s)
        return True
