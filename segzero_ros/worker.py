"""One thread in which the model lives, so that no model call ever blocks the executor."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

JobT = TypeVar("JobT")


class LatestWorker(Generic[JobT]):
    """Does one job at a time and keeps at most one waiting: a newer one takes its place.

    `prepare` runs first in the thread; jobs wait for it. Neither it nor `work` may raise: they
    know whom to tell. All methods may be called from any thread.

    Args:
        prepare: Called once before the first job, for what takes long to load.
        work: Called with each job and an event that is set when the job is to stop.
        name: Of the thread, for people who debug.
    """

    def __init__(
        self,
        prepare: Callable[[], None],
        work: Callable[[JobT, threading.Event], None],
        *,
        name: str,
    ) -> None:
        self._prepare = prepare
        self._work = work
        self._changed = threading.Condition()
        self._pending: JobT | None = None
        self._cancel = threading.Event()
        self._stopping = False
        # A daemon: a load that cannot be interrupted must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to prepare."""
        self._thread.start()

    def submit(self, job: JobT) -> JobT | None:
        """Queue a job.

        Returns:
            The job that will not be done because of it: the waiting one that it replaces, or
            itself when the worker has been stopped. None otherwise.
        """
        with self._changed:
            if self._stopping:
                return job
            replaced, self._pending = self._pending, job
            self._changed.notify()
            return replaced

    def stop(self, timeout_s: float) -> JobT | None:
        """Cancel the running job, take no further one, and wait for the thread.

        Returns:
            The job that was still waiting.
        """
        with self._changed:
            self._stopping = True
            self._cancel.set()
            waiting, self._pending = self._pending, None
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return waiting

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        self._prepare()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._pending is not None)
                if self._stopping:
                    return
                job, self._pending = self._pending, None
                cancel = self._cancel = threading.Event()
            assert job is not None
            self._work(job, cancel)
