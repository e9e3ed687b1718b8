"""The worker: one job runs, one waits, the newest wins."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from segzero_ros.worker import LatestWorker

TIMEOUT_S = 10.0


class Log:
    """A job that says when it begins and waits until it may end."""

    def __init__(self) -> None:
        self.may_prepare = threading.Event()
        self.may_end = threading.Event()
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.changed = threading.Condition()
        self.worker = LatestWorker[str](self.prepare, self.work, name="test")

    def prepare(self) -> None:
        assert self.may_prepare.wait(TIMEOUT_S)

    def work(self, job: str, cancel: threading.Event) -> None:
        with self.changed:
            self.begun.append(job)
            self.changed.notify_all()
        while not self.may_end.wait(0.01):
            if cancel.is_set():
                self.cancelled.append(job)
                return

    def wait_for(self, *jobs: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.begun == list(jobs), TIMEOUT_S), self.begun


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    log.worker.start()
    yield log
    log.may_prepare.set()
    log.worker.stop(TIMEOUT_S)
    assert not log.worker.is_alive


def test_a_job_waits_for_the_preparation(log: Log) -> None:
    assert log.worker.submit("a") is None
    assert not log.begun
    log.may_prepare.set()
    log.wait_for("a")


def test_the_newest_waiting_job_replaces_the_older(log: Log) -> None:
    log.may_prepare.set()
    log.worker.submit("a")
    log.wait_for("a")
    assert log.worker.submit("b") is None
    assert log.worker.submit("c") == "b"
    log.may_end.set()
    log.wait_for("a", "c")


def test_stopping_cancels_the_running_job_and_returns_the_waiting_one(log: Log) -> None:
    log.may_prepare.set()
    log.worker.submit("a")
    log.wait_for("a")
    log.worker.submit("b")
    assert log.worker.stop(TIMEOUT_S) == "b"
    assert log.cancelled == ["a"]
    assert log.begun == ["a"]


def test_a_stopped_worker_gives_a_job_back(log: Log) -> None:
    log.may_prepare.set()
    assert log.worker.stop(TIMEOUT_S) is None
    assert log.worker.submit("a") == "a"


def test_stopping_does_not_wait_longer_for_a_load_than_asked(log: Log) -> None:
    assert log.worker.stop(0.01) is None
    assert log.worker.is_alive
