"""The model's thread, with one query running and one waiting, and the thread that watches it.

The watching thread stops queries whose time is over and notices a model that does not stop. Python
cannot end such a thread, and it may hold locks of the model: a hung worker is not used again.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from segzero_core.limits import MAX_TIMEOUT_S
from segzero_ros.diagnostics.guard import Guard
from segzero_ros.queries.job import FOREVER, Job

REPLACE: Final = "replace"
QUEUE: Final = "queue"
REJECT: Final = "reject"
RESULT_GRACE_S: Final = 1.0
"""A query that is stopped gets its result after this long, also when the model is slow to stop."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A job that will not be done: one that was submitted, or the one that it replaced."""

    job: Job
    is_replaced: bool


@dataclass(eq=False)
class Worker:
    """Does one job at a time and keeps at most one waiting. All methods are thread-safe."""

    work: Callable[[Job], None]  # called in the model's thread with each job
    # Called with a job that has to be answered now: its time was over while it waited, or it was
    # stopped and the model has not come back yet.
    on_late: Callable[[Job], None]
    # Called once, with the job whose model did not stop; the worker does no more jobs.
    on_hang: Callable[[Job], None]
    grace_s: Callable[[], float]  # returns how long a model may take to stop [s]
    guard: Guard  # keeps both threads alive

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self.running: Job | None = None  # the job that is being done
        self.pending: Job | None = None  # the job that waits
        self._stopping = False
        # Daemons: a model that cannot be interrupted must not keep the process alive.
        self._threads = [
            threading.Thread(target=self.guard.loop, args=(name, step), name=name, daemon=True)
            for step, name in ((self._do_next, "segzero-model"), (self._watch, "segzero-watch"))
        ]
        for thread in self._threads:
            thread.start()

    def would_refuse(self, when_busy: str) -> bool:
        """Whether a job that comes now would be refused."""
        with self._changed:
            return self._stopping or self._refuses(when_busy)

    def submit(self, job: Job, when_busy: str) -> Refused | None:
        """Queue a job; return the one that is now not done: itself, or the one that waited."""
        with self._changed:
            if self._stopping or self._refuses(when_busy):
                return Refused(job, is_replaced=False)
            job.notify = self._wake
            replaced, self.pending = self.pending, job
            self._changed.notify_all()
        return None if replaced is None else Refused(replaced, is_replaced=True)

    def take_pending(self, job: Job | None = None) -> Job | None:
        """Take the job that waits out of the queue; given one, only that one."""
        with self._changed:
            if job is not None and self.pending is not job:
                return None
            waiting, self.pending = self.pending, None
            self._changed.notify_all()
            return waiting

    def wait_answered(self, timeout_s: float) -> bool:
        """Wait until every result is out, say if in time; the model may still be slow to stop."""
        with self._changed:
            return self._changed.wait_for(
                lambda: (
                    self.pending is None and (self.running is None or self.running.is_answered)
                ),
                timeout_s,
            )

    def stop(self, timeout_s: float) -> bool:
        """Take no further job; return whether the threads end, once the caller stopped the job."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        end_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _refuses(self, when_busy: str) -> bool:
        if when_busy == REJECT:
            return self.running is not None or self.pending is not None
        return when_busy == QUEUE and self.pending is not None

    def _do_next(self) -> bool:
        """Wait for a job and do it; False when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self.pending is not None)
            if self._stopping:
                return False
            job, self.pending = self.pending, None
            self.running = job
            self._changed.notify_all()
        assert job is not None
        try:
            self.work(job)
        finally:
            del job  # its image must not stay until the next one comes
            with self._changed:
                self.running = None
                self._changed.notify_all()
        return True

    def _watch(self) -> bool:
        """Do what is overdue, or wait for it; False when the thread is to end."""
        with self._changed:
            if self._stopping:
                return False
            overdue, wait_s = self._overdue()
            if overdue is None:
                self._changed.wait(None if wait_s == FOREVER else min(wait_s, MAX_TIMEOUT_S))
                return True
        overdue()
        return True

    def _overdue(self) -> tuple[Callable[[], None] | None, float]:
        """Return what has to be done now, or how long to wait for it [s]."""
        running, pending, wait_s = self.running, self.pending, FOREVER
        if pending is not None:
            if pending.check_deadline():
                self.pending = None
                return functools.partial(self.on_late, pending), 0.0
            wait_s = pending.seconds_left()
        if running is None:
            return None, wait_s
        if running.stopped is None and not running.is_concluded and not running.check_deadline():
            return None, min(wait_s, running.seconds_left())
        if running.stopped is None:  # it was answered this moment
            return None, wait_s
        slow_s, grace_s = time.monotonic() - running.stopped.since_s, self.grace_s()
        if slow_s >= grace_s:
            self._stopping = True
            self._changed.notify_all()
            return functools.partial(self.on_hang, running), 0.0
        wait_s = min(wait_s, grace_s - slow_s)
        if running.is_concluded:
            return None, wait_s
        if slow_s >= RESULT_GRACE_S:
            return functools.partial(self.on_late, running), 0.0
        return None, min(wait_s, RESULT_GRACE_S - slow_s)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
