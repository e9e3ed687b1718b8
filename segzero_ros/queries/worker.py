"""One thread in which the model lives, and one that watches it.

The model's thread does one job at a time. The watching thread hands jobs over, tells them when
their time is over, and gives up a model that does not stop: its thread is abandoned, because
Python cannot end it, and the next job gets a fresh one.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from segzero_ros.queries.job import FOREVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from segzero_ros.queries.job import Job

REPLACE: Final = "replace"
QUEUE: Final = "queue"
REJECT: Final = "reject"
MAX_HANGS: Final = 2


@dataclass(frozen=True, slots=True)
class Refused:
    """A job that will not be done.

    Attributes:
        job: The one that was submitted, or one that it replaces.
        is_replaced: Whether a newer one took its place.
    """

    job: Job
    is_replaced: bool


class ModelThread:
    """Runs one job after the other until it is let go."""

    def __init__(self, work: Callable[[Job], None], name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._work = work
        # A daemon: a model that cannot be interrupted must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def do(self, job: Job) -> None:
        """Begin a job."""
        self._jobs.put(job)

    def let_go(self) -> None:
        """End the thread after the job that it does."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._work(job)
            finally:
                job.finish()
            del job  # its picture must not stay until the next one comes


class Worker:
    """Does one job at a time and keeps at most one waiting. All methods are thread-safe.

    Args:
        work: Called in the model's thread with each job; it must not raise.
        on_late: Called with a job whose time was over while it waited.
        on_hang: Called with a job whose model did not stop, and how many hung in a row without
            a good answer in between.
        grace_s: Returns how long a model may take to stop [s].
        name: Of the threads, for people who debug.
    """

    def __init__(
        self,
        work: Callable[[Job], None],
        on_late: Callable[[Job], None],
        on_hang: Callable[[Job, int], None],
        grace_s: Callable[[], float],
        *,
        name: str,
    ) -> None:
        self._work = work
        self._on_late = on_late
        self._on_hang = on_hang
        self._grace_s = grace_s
        self._name = name
        self._changed = threading.Condition()
        self._running: Job | None = None
        self._pending: Job | None = None
        self._stopping = False
        self._hangs = 0
        self._abandoned: list[ModelThread] = []
        self._model = ModelThread(work, f"{name}-model")
        self._thread = threading.Thread(target=self._supervise, name=f"{name}-watch", daemon=True)
        self._thread.start()

    @property
    def running(self) -> Job | None:
        """The job that is being done."""
        return self._running

    @property
    def pending(self) -> Job | None:
        """The job that waits."""
        return self._pending

    @property
    def is_alive(self) -> bool:
        """Whether a thread still runs."""
        return self._thread.is_alive() or self._model.is_alive

    @property
    def abandoned(self) -> int:
        """How many threads were abandoned and still run."""
        self._abandoned = [each for each in self._abandoned if each.is_alive]
        return len(self._abandoned)

    def would_refuse(self, when_busy: str) -> bool:
        """Whether a job that comes now would be refused."""
        with self._changed:
            return self._stopping or self._refuses(when_busy)

    def submit(self, job: Job, when_busy: str) -> Refused | None:
        """Queue a job.

        Args:
            job: What to do.
            when_busy: `replace`, `queue` or `reject`; see `NodeConfig`.

        Returns:
            The job that will not be done because of it, which is itself or the one that waited.
        """
        with self._changed:
            if self._stopping or self._refuses(when_busy):
                return Refused(job, is_replaced=False)
            job.notify = self._wake
            replaced, self._pending = self._pending, job
            self._changed.notify_all()
        return None if replaced is None else Refused(replaced, is_replaced=True)

    def take_pending(self, job: Job | None = None) -> Job | None:
        """Take the job that waits out of the queue.

        Args:
            job: Take this one only; None takes any.
        """
        with self._changed:
            if job is not None and self._pending is not job:
                return None
            waiting, self._pending = self._pending, None
            self._changed.notify_all()
            return waiting

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no job runs or waits.

        Returns:
            Whether that came in time.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self._running is None and self._pending is None, timeout_s
            )

    def answered_well(self) -> None:
        """Forget earlier hangs, unless a thread of theirs still runs."""
        if not self.abandoned:
            self._hangs = 0

    def stop(self, timeout_s: float) -> Job | None:
        """Take no further job and wait for the running one, which the caller has stopped.

        Returns:
            The job that was still waiting.
        """
        with self._changed:
            self._stopping = True
            waiting, self._pending = self._pending, None
            self._changed.notify_all()
        end_s = time.monotonic() + timeout_s
        for thread in (self._thread, self._model):
            if thread is not threading.current_thread():
                thread.join(max(0.0, end_s - time.monotonic()))
        return waiting

    def _refuses(self, when_busy: str) -> bool:
        if when_busy == REJECT:
            return self._running is not None or self._pending is not None
        return when_busy == QUEUE and self._pending is not None

    def _supervise(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._pending is not None)
                if self._pending is None:
                    break
                job, self._pending = self._pending, None
                self._running = job
            self._follow(job)
            with self._changed:
                self._running = None
                self._changed.notify_all()
            del job
        self._model.let_go()

    def _follow(self, job: Job) -> None:
        """Have a job done, and give up a model that does not stop."""
        self._model.do(job)
        while not (job.done.is_set() or job.cancel.is_set()):
            if (late := self._wait_for_change(job)) is not None:
                self._on_late(late)
        if not job.done.wait(self._grace_s()):
            self._abandoned.append(self._model)
            self._model.let_go()
            self._model = ModelThread(self._work, f"{self._name}-model")
            self._hangs += 1
            self._on_hang(job, self._hangs)

    def _wait_for_change(self, job: Job) -> Job | None:
        """Wait until something happens to the running job or its time is over.

        Returns:
            The waiting job, if its own time is over.
        """
        with self._changed:
            if job.done.is_set() or job.cancel.is_set():
                return None
            left_s = min(
                job.seconds_left(), self._pending.seconds_left() if self._pending else FOREVER
            )
            self._changed.wait(None if left_s == FOREVER else max(0.0, left_s))
            job.check_deadline()
            waiting = self._pending
            if waiting is None or not waiting.check_deadline():
                return None
            self._pending = None
            return waiting

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
