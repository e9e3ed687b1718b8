"""Threads that must not die: what they raise is logged, reported, and they go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from builtin_interfaces.msg import Time

from segzero_ros.diagnostics.guard import Guard
from segzero_ros.diagnostics.health import Health
from segzero_ros.latest_worker import LatestItemWorker
from segzero_ros.msg import Status
from segzero_ros.queries.job import Job, Query
from segzero_ros.queries.worker import REPLACE, Worker

TIMEOUT_S = 30.0


class Log:
    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, text: str) -> None:
        self.errors.append(text)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def guard(log: Any, health: Health) -> Guard:
    return Guard(log, health)


def defects(health: Health) -> dict[str, str]:
    facts = {"clock_jumps": 0, "image_topic": "/image"}
    msg = health.to_msg("/segzero", Time(), Status(state=Status.READY), 0.0, facts)
    (model,) = [each for each in msg.status if each.name.endswith(": model")]
    return {each.key: each.value for each in model.values}


def test_what_a_guard_catches_is_in_the_log_and_in_the_diagnostics(
    guard: Guard, log: Log, health: Health
) -> None:
    with guard("while testing"):
        raise RuntimeError("broken")
    assert "while testing" in log.errors[0]
    assert "Traceback" in log.errors[0]
    assert defects(health)["defects"] == "1"
    assert defects(health)["last_defect"] == "while testing: RuntimeError: broken"


def test_a_worker_of_the_latest_item_survives_its_work(guard: Guard, health: Health) -> None:
    seen, both = [], threading.Event()

    def work(item: int) -> None:
        seen.append(item)
        if item == 1:
            worker.offer(2)
            raise OverflowError("timeout value is too large")
        both.set()

    worker = LatestItemWorker("test", work, lambda: 0.0, guard)
    worker.offer(1)
    assert both.wait(TIMEOUT_S)
    worker.stop(TIMEOUT_S)
    assert seen == [1, 2]
    assert defects(health)["defects"] == "1"


@pytest.fixture
def make_worker(guard: Guard) -> Iterator[Callable[..., Worker]]:
    made = []

    def make(work: Any, on_late: Any = lambda _: None) -> Worker:
        made.append(Worker(work, on_late, lambda _: None, lambda: TIMEOUT_S, guard))
        return made[-1]

    yield make
    for worker in made:
        assert worker.stop(TIMEOUT_S)


def test_the_models_thread_survives_what_its_work_raises(
    make_worker: Callable[..., Worker], health: Health
) -> None:
    done = threading.Event()

    def work(job: Job) -> None:
        if job.query.id == "bad":
            raise ValueError("a defect")
        done.set()

    worker = make_worker(work)
    worker.submit(Job(Query("bad", "bad")), REPLACE)
    assert worker.wait_answered(TIMEOUT_S)
    worker.submit(Job(Query("good", "good")), REPLACE)
    assert done.wait(TIMEOUT_S)
    assert defects(health)["defects"] == "1"


def test_the_watching_thread_survives_a_wait_that_python_cannot_make(
    make_worker: Callable[..., Worker],
) -> None:
    """A limit beyond Python's largest wait ended the thread, and with it every time limit."""
    begun, may_end, late = threading.Event(), threading.Event(), threading.Event()

    def work(_: Job) -> None:
        begun.set()
        may_end.wait(TIMEOUT_S)

    worker = make_worker(work, lambda job: late.set())
    worker.submit(Job(Query("1", "a"), timeout_s=1e12), REPLACE)
    assert begun.wait(TIMEOUT_S)
    worker.submit(Job(Query("2", "b"), timeout_s=0.05), REPLACE)
    assert late.wait(TIMEOUT_S)
    may_end.set()
