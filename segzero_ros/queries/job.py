"""A query from its arrival to its result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

from segzero_ros.camera.image_buffer import CameraFrame
from segzero_ros.msg import ReasoningTrace, SegmentationResult
from segzero_ros.queries.trace import TraceWriter

FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Query:
    """A question as it arrived; its id is unique while the node runs."""

    id: str
    text: str
    arrived_s: float = field(default_factory=time.monotonic)

    def age_ms(self) -> float:
        """Milliseconds since the query arrived."""
        return (time.monotonic() - self.arrived_s) * 1000.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Why and since when a query is to stop, with the code of its result."""

    code: int
    reason: str
    since_s: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Job:
    """A query with its image; it gets exactly one result.

    Safe to use from several threads: a model that is slow to stop may come back long after its
    query was answered by another thread.
    """

    query: Query  # the question
    _: KW_ONLY
    # The image it is about; None takes the camera's latest when work begins.
    frame: CameraFrame | None = None
    timeout_s: float = 0.0  # from the arrival [s]; 0 is no limit
    # Called with every trace, besides its topic.
    on_trace: Callable[[ReasoningTrace], None] = lambda _: None
    # Called once with the result, besides its topic.
    on_result: Callable[[SegmentationResult], None] = lambda _: None

    def __post_init__(self) -> None:
        self.cancel = threading.Event()  # set when the model is to stop
        # Called whenever the job is stopped or its result is out; the worker's.
        self.notify: Callable[[], None] = lambda: None
        # When work began, on the monotonic clock [s]; None while it waits.
        self.began_s: float | None = None
        # Of its thinking; silent until another is put in its place.
        self.trace = TraceWriter(self.query.id, lambda _: None)
        self._lock = threading.Lock()
        self.stopped: Stop | None = None  # why it is to stop, once it is
        self.is_concluded = False  # whether a thread gives, or gave, its result
        self.is_answered = False  # whether its result is out

    @property
    def wait_ms(self) -> float:
        """From the arrival until work began; until now while it waits."""
        until_s = time.monotonic() if self.began_s is None else self.began_s
        return max(0.0, (until_s - self.query.arrived_s) * 1000.0)

    def stop(self, code: int, reason: str) -> bool:
        """Ask the model to stop, and return whether this reason is the first; only that counts."""
        with self._lock:
            if self.stopped is not None or self.is_concluded:
                return False
            self.stopped = Stop(code, reason)
        self.cancel.set()
        self.notify()
        return True

    def seconds_left(self) -> float:
        """Return the time until the deadline [s]; infinite without a limit."""
        end_s = self.query.arrived_s + self.timeout_s if self.timeout_s else FOREVER
        return end_s - time.monotonic()

    def check_deadline(self) -> bool:
        """Stop when the time is over, and say whether it is."""
        if self.seconds_left() > 0:
            return False
        reason = f"no answer within {self.timeout_s:g} s (timeout_s of the goal or the node)"
        self.stop(SegmentationResult.TIMEOUT, reason)
        return True

    def conclude(self) -> bool:
        """Claim the right to give the result; True only for the first caller."""
        with self._lock:
            first, self.is_concluded = not self.is_concluded, True
            return first

    def finish(self) -> None:
        """Note that the result is out."""
        self.is_answered = True
        self.notify()
