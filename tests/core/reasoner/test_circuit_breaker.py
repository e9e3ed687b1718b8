"""A failing reasoner is left alone, tried again by one query, and taken back."""

from __future__ import annotations

import threading

import pytest

from segzero_core import ConfigError
from segzero_core.reasoner.circuit_breaker import BreakerState, CircuitBreaker


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("it", max_failures=2, first_pause_s=1.0, max_pause_s=3.0, clock=clock)


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        assert breaker.allows()
        breaker.failed("it is down")


def test_one_failure_is_forgiven(breaker: CircuitBreaker) -> None:
    fail(breaker, 1)

    assert breaker.allows()
    assert breaker.health.state is BreakerState.CLOSED


def test_failures_in_a_row_open_it(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)

    assert not breaker.allows()
    assert breaker.health.state is BreakerState.OPEN


def test_a_success_in_between_starts_the_count_anew(breaker: CircuitBreaker) -> None:
    fail(breaker, 1)
    breaker.allows()
    breaker.succeeded(0.5)
    fail(breaker, 1)

    assert breaker.allows()


def test_after_the_pause_one_query_tries_it(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 2)
    clock.now_s += 1.0

    assert breaker.allows()
    assert not breaker.allows()
    assert breaker.health.state is BreakerState.HALF_OPEN


def test_a_try_that_succeeds_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 2)
    clock.now_s += 1.0
    breaker.allows()
    breaker.succeeded(0.5)

    assert breaker.allows()
    assert breaker.allows()
    assert breaker.health.state is BreakerState.CLOSED


def test_every_failed_try_doubles_the_pause_up_to_the_longest(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, 2)
    pauses = []
    for _ in range(4):
        start = clock.now_s
        while not breaker.allows():
            clock.now_s += 0.25
        pauses.append(clock.now_s - start)
        breaker.failed("still down")

    assert pauses == [1.0, 2.0, 3.0, 3.0]


def test_a_try_that_was_abandoned_lets_the_next_one_try(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, 2)
    clock.now_s += 1.0
    breaker.allows()
    breaker.abandoned()

    assert breaker.allows()


def test_of_many_threads_one_tries(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 2)
    clock.now_s += 1.0
    start, allowed = threading.Barrier(8), []

    def ask() -> None:
        start.wait(10.0)
        if breaker.allows():
            allowed.append(True)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)

    assert len(allowed) == 1


def test_health_counts_and_names_the_last_failure(breaker: CircuitBreaker) -> None:
    for latency_s in (0.1, 0.9, 0.3):
        breaker.allows()
        breaker.succeeded(latency_s)
    fail(breaker, 1)
    health = breaker.health

    assert (health.name, health.answered, health.failed) == ("it", 3, 1)
    assert (health.median_s, health.last_error) == (0.3, "it is down")


@pytest.mark.parametrize(
    "numbers", [{"max_failures": 0}, {"first_pause_s": 0.0}, {"first_pause_s": 60.0}], ids=str
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="circuit breaker"):
        CircuitBreaker("it", **numbers)  # type: ignore[arg-type]
