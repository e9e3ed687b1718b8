"""Tracks the objects of the last answer through the camera's images, in a thread of its own.

A query goes first: while one runs or waits, nothing is tracked. Images that come meanwhile, or
faster than they can be worked on, are skipped. Nothing is computed unless somebody subscribes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from segzero_core.errors import InputError, SegZeroError
from segzero_core.tracking.scene_change import View
from segzero_ros.camera.image_buffer import CameraFrame
from segzero_ros.diagnostics.guard import Guard
from segzero_ros.latest_worker import LatestItemWorker
from segzero_ros.messages.tracks import tracks_to_msg
from segzero_ros.msg import TrackArray
from segzero_ros.queries.answer import Answer

if TYPE_CHECKING:
    from segzero_core.tracking.tracker import Tracker, Tracks

NOTHING: Final = "nothing is followed"


@dataclass(eq=False)
class TrackingWorker:
    """Owns the tracker and its thread. All methods are thread-safe; only `stop` waits."""

    new_tracker: Callable[[], Tracker]  # makes a tracker of the loaded model; called in the thread
    publish: Callable[[TrackArray], None]
    may_work: Callable[[], bool]  # says whether somebody subscribes and no query runs or waits
    # Returns the shortest time between two images that are worked on [s].
    period_s: Callable[[], float]
    # Called with a line for people whenever `state` has changed, one call at a time.
    on_state: Callable[[str], None]
    guard: Guard

    def __post_init__(self) -> None:
        self._worker: LatestItemWorker[tuple[Answer, CameraFrame]] = LatestItemWorker(
            "segzero-tracks", self._work, self.period_s, self.guard
        )
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._tracker: Tracker | None = None
        self._state_lock = threading.Lock()
        self.state = NOTHING
        """What it does, in words."""

    def begin(self, answer: Answer) -> None:
        """Track the objects of this answer from now on in later images, in place of all others."""
        self._replace(answer)
        self._report("the objects are followed as soon as somebody subscribes to ~/tracks")

    def frame_arrived(self, frame: CameraFrame) -> None:
        """Take the camera's latest image; one that was not worked on yet is skipped."""
        answer = self._answer
        if answer is None or frame is answer.frame or not self.may_work():
            return
        self._worker.offer((answer, frame))

    def reset(self) -> bool:
        """Forget everything, and return whether something was tracked."""
        was_tracking = self._replace(None) is not None
        self._report(NOTHING)
        return was_tracking

    def stop(self, timeout_s: float) -> None:
        """End the thread after the image that it works on."""
        self._worker.stop(timeout_s)

    def _replace(self, answer: Answer | None) -> Answer | None:
        """Replace the tracked answer by another one or None, and return the old one."""
        with self._lock:
            before, self._answer, self._tracker = self._answer, answer, None
        self._worker.forget()
        return before

    def _report(self, state: str) -> None:
        # Held during the call, so that the last line reported is the state.
        with self._state_lock:
            if state != self.state:
                self.state = state
                self.on_state(state)

    def _work(self, item: tuple[Answer, CameraFrame]) -> None:
        """Track one image."""
        answer, frame = item
        # Meanwhile there may be another answer, or a query, which goes first.
        if answer is not self._answer or not self.may_work():
            return
        try:
            rgb = frame.rgb()
        except InputError as error:
            self._report(f"an image is skipped: {error}")
            return
        try:
            tracks = self._tracker_of(answer).step(rgb)
            latency_ms = (time.monotonic() - frame.arrived_s) * 1000.0
            msg = tracks_to_msg(tracks, frame.header, answer.query.id, latency_ms)
        except Exception as error:
            if not isinstance(error, SegZeroError):
                where = f"while tracking the objects of query {answer.query.id}"
                self.guard.report(where, error)
            with self._lock:
                if self._answer is not answer:
                    return
                self._answer = self._tracker = None
            reason = f"{type(error).__name__}: {error}"
            self._report(f"query {answer.query.id} is not followed: {reason}")
            return
        if self._answer is not answer:
            return  # replaced or forgotten meanwhile: these tracks belong to no answer
        with self.guard("while publishing tracks"):
            self.publish(msg)
        self._report(describe(tracks))

    def _tracker_of(self, answer: Answer) -> Tracker:
        """Return the tracker of an answer, which is made with the first image after it."""
        with self._lock:
            tracker = self._tracker
        if tracker is None:
            tracker = self.new_tracker()
            assert answer.rgb is not None
            assert answer.result is not None
            tracker.start(answer.rgb, answer.result.segmentation, answer.query.text)
            with self._lock:
                if self._answer is answer:
                    self._tracker = tracker
        return tracker


def describe(tracks: Tracks) -> str:
    """Say in words how the tracking goes."""
    count, lost = len(tracks.tracks), sum(track.lost for track in tracks.tracks)
    if tracks.view is not View.SAME:
        return f"all {count} tracks are lost: {tracks.view.value}"
    return f"{count - lost} of {count} objects are followed" + (f", {lost} lost" if lost else "")
