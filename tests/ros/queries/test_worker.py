"""The worker: one job runs, one waits; what happens to the others and to a model that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from segzero_ros.diagnostics.guard import Guard
from segzero_ros.diagnostics.health import Health
from segzero_ros.msg import SegmentationResult
from segzero_ros.queries.job import Job, Query
from segzero_ros.queries.worker import QUEUE, REJECT, REPLACE, Refused, Worker

TIMEOUT_S = 10.0
GUARD = Guard(None, Health())


def job(name: str, timeout_s: float = 0.0) -> Job:
    return Job(Query(name, name), timeout_s=timeout_s)


class Bench:
    """A worker whose model works until the test lets it, and notices a cancellation if it may."""

    def __init__(self, grace_s: float) -> None:
        self.may_end = threading.Event()
        self.hears_cancel = True
        self.changed = threading.Condition()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.late: list[str] = []
        self.hung: list[str] = []
        self.worker = Worker(self.work, self.on_late, self.on_hang, lambda: grace_s, GUARD)

    def work(self, job: Job) -> None:
        self.note(self.begun, job.query.id)
        while not self.may_end.wait(0.01):
            if job.cancel.is_set() and self.hears_cancel:
                break
        self.note(self.ended, job.query.id)

    def on_late(self, job: Job) -> None:
        job.conclude()
        self.note(self.late, job.query.id)

    def on_hang(self, job: Job) -> None:
        self.note(self.hung, job.query.id)

    def note(self, where: list, what: object) -> None:
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, TIMEOUT_S)

    def run(self, name: str) -> Job:
        """Submit a job and wait until it runs."""
        running = job(name)
        assert self.worker.submit(running, REPLACE) is None
        self.wait_for(lambda: name in self.begun)
        return running


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made = []

    def make(grace_s: float = TIMEOUT_S) -> Bench:
        made.append(Bench(grace_s))
        return made[-1]

    yield make
    for bench in made:
        bench.may_end.set()
        assert bench.worker.stop(TIMEOUT_S)


def test_the_newest_waiting_job_replaces_the_older(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.run("a")
    second, third = job("b"), job("c")
    assert bench.worker.submit(second, REPLACE) is None
    assert bench.worker.submit(third, REPLACE) == Refused(second, is_replaced=True)
    bench.may_end.set()
    bench.wait_for(lambda: bench.ended == ["a", "c"])


def test_a_queue_keeps_the_job_that_came_first(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.run("a")
    assert bench.worker.submit(job("b"), QUEUE) is None
    third = job("c")
    assert bench.worker.would_refuse(QUEUE)
    assert bench.worker.submit(third, QUEUE) == Refused(third, is_replaced=False)
    bench.may_end.set()
    bench.wait_for(lambda: bench.ended == ["a", "b"])


def test_reject_lets_nothing_wait(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert not bench.worker.would_refuse(REJECT)
    bench.run("a")
    second = job("b")
    assert bench.worker.submit(second, REJECT) == Refused(second, is_replaced=False)


def test_a_stopped_worker_takes_no_job(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    running, waiting, late = bench.run("a"), job("b"), job("c")
    bench.worker.submit(waiting, REPLACE)
    assert bench.worker.take_pending() is waiting
    running.stop(SegmentationResult.CANCELLED, "the end")
    assert bench.worker.stop(TIMEOUT_S)
    assert bench.ended == ["a"]
    assert bench.worker.submit(late, REPLACE) == Refused(late, is_replaced=False)


def test_a_waiting_job_can_be_taken_out_and_another_not(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    running, waiting = bench.run("a"), job("b")
    bench.worker.submit(waiting, REPLACE)
    assert bench.worker.take_pending(running) is None
    assert bench.worker.take_pending(waiting) is waiting
    bench.may_end.set()
    bench.wait_for(lambda: bench.ended == ["a"])
    assert bench.worker.stop(TIMEOUT_S)
    assert bench.begun == ["a"]


def test_a_running_job_is_stopped_when_its_time_is_over(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    running = job("a", timeout_s=0.05)
    bench.worker.submit(running, REPLACE)
    bench.wait_for(lambda: bench.ended == ["a"])
    assert running.stopped is not None
    assert running.stopped.code == SegmentationResult.TIMEOUT
    assert not bench.hung


def test_a_waiting_job_need_not_wait_for_the_running_one(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.run("a")
    bench.worker.submit(job("b", timeout_s=0.05), REPLACE)
    bench.wait_for(lambda: bench.late == ["b"])
    assert bench.ended == []


def test_a_job_whose_model_is_slow_to_stop_need_not_wait_for_it(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.hears_cancel = False
    bench.run("a").stop(SegmentationResult.CANCELLED, "enough")
    bench.wait_for(lambda: bench.late == ["a"])
    assert bench.ended == []
    bench.may_end.set()
    bench.run("b")
    assert bench.hung == []


def test_a_model_that_does_not_stop_is_a_hang_and_no_further_job_is_taken(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(grace_s=0.05)
    bench.hears_cancel = False
    bench.run("a").stop(SegmentationResult.CANCELLED, "enough")
    bench.wait_for(lambda: bench.hung == ["a"])
    late = job("b")
    assert bench.worker.submit(late, REPLACE) == Refused(late, is_replaced=False)
    assert not bench.worker.stop(0.0)
    assert bench.begun == ["a"]


def test_only_the_first_concludes_a_job() -> None:
    once = job("a")
    assert [once.conclude(), once.conclude()] == [True, False]
    assert not once.stop(SegmentationResult.CANCELLED, "too late")
