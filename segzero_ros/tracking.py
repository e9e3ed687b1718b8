"""Tracks the objects of the last answer through the camera's images, in a thread of its own.

A query goes first: while one runs or waits, nothing is tracked. Images that come meanwhile, or
faster than they can be worked on, are skipped. Nothing is computed unless somebody subscribes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from segzero_core.errors import InputError, SegZeroError
from segzero_core.tracking.scene_change import View
from segzero_ros.diagnostics.log_bridge import log_defect
from segzero_ros.latest_worker import LatestItemWorker
from segzero_ros.messages.tracks import tracks_to_msg

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.impl.rcutils_logger import RcutilsLogger

    from segzero_core.tracking.tracker import Tracker, Tracks
    from segzero_core.types import RgbImage, Segmentation
    from segzero_ros.camera.image_buffer import CameraFrame
    from segzero_ros.msg import TrackArray

NOTHING: Final = "nothing is followed"


@dataclass(frozen=True, eq=False, slots=True)
class TrackingRequest:
    """An answer whose objects are to be tracked.

    Attributes:
        query_id: Of the answer.
        label: The words of the query.
        rgb: The image that it is about, uint8 [H, W, 3].
        segmentation: Its objects; at least one.
        frame: The message of that image; the objects are tracked in later ones.
    """

    query_id: str
    label: str
    rgb: RgbImage
    segmentation: Segmentation
    frame: CameraFrame


class TrackingWorker:
    """Owns the tracker and its thread. All methods are thread-safe; only `stop` waits.

    Args:
        new_tracker: Makes a tracker of the loaded model; called in the thread.
        publish: Publishes tracks.
        may_work: Says whether somebody subscribes and no query runs or waits.
        period_s: Returns the shortest time between two images that are worked on [s].
        on_state: Called with a line for people whenever `state` has changed, one call at a time.
        log: Of the node.
    """

    def __init__(
        self,
        new_tracker: Callable[[], Tracker],
        publish: Callable[[TrackArray], None],
        may_work: Callable[[], bool],
        period_s: Callable[[], float],
        on_state: Callable[[str], None],
        log: RcutilsLogger,
    ) -> None:
        self._new_tracker = new_tracker
        self._publish = publish
        self._may_work = may_work
        self._on_state = on_state
        self._log = log
        self._worker: LatestItemWorker[tuple[TrackingRequest, CameraFrame]] = LatestItemWorker(
            "segzero-tracks", self._work, period_s
        )
        self._lock = threading.Lock()
        self._request: TrackingRequest | None = None
        self._tracker: Tracker | None = None
        self._state_lock = threading.Lock()
        self.state = NOTHING
        """What it does, in words."""

    def begin(self, request: TrackingRequest) -> None:
        """Track the objects of this answer from now on, in place of all others."""
        self._replace(request)
        self._report("the objects are followed as soon as somebody subscribes to ~/tracks")

    def frame_arrived(self, frame: CameraFrame) -> None:
        """Take the camera's latest image; one that was not worked on yet is skipped."""
        request = self._request
        if request is None or frame is request.frame or not self._may_work():
            return
        self._worker.offer((request, frame))

    def reset(self) -> bool:
        """Forget everything.

        Returns:
            Whether something was tracked.
        """
        was_tracking = self._replace(None) is not None
        self._report(NOTHING)
        return was_tracking

    def stop(self, timeout_s: float) -> None:
        """End the thread after the image that it works on."""
        self._worker.stop(timeout_s)

    def _replace(self, request: TrackingRequest | None) -> TrackingRequest | None:
        """Put another answer, or none, in the place of the one before, and return that."""
        with self._lock:
            before, self._request, self._tracker = self._request, request, None
        self._worker.forget()
        return before

    def _report(self, state: str) -> None:
        # Held during the call, so that the last line reported is the state.
        with self._state_lock:
            if state != self.state:
                self.state = state
                self._on_state(state)

    def _work(self, item: tuple[TrackingRequest, CameraFrame]) -> None:
        """Work on one image; the last border before the thread would end."""
        request, frame = item
        # Meanwhile there may be another answer, or a query, which goes first.
        if request is not self._request or not self._may_work():
            return
        try:
            rgb = frame.rgb()
        except InputError as error:
            self._report(f"an image is skipped: {error}")
            return
        try:
            tracks = self._tracker_of(request).step(rgb)
            latency_ms = (time.monotonic() - frame.arrived_s) * 1000.0
            msg = tracks_to_msg(tracks, frame.header, request.query_id, latency_ms)
        except Exception as error:
            if not isinstance(error, SegZeroError):
                log_defect(self._log, f"while tracking the objects of query {request.query_id}")
            with self._lock:
                if self._request is not request:
                    return
                self._request = self._tracker = None
            reason = f"{type(error).__name__}: {error}"
            self._report(f"query {request.query_id} is not followed: {reason}")
            return
        if self._request is not request:
            return  # replaced or forgotten meanwhile: these tracks belong to no answer
        try:
            self._publish(msg)
        except Exception:
            log_defect(self._log, "while publishing tracks")
        self._report(describe(tracks))

    def _tracker_of(self, request: TrackingRequest) -> Tracker:
        """Return the tracker of an answer, which is made with the first image after it."""
        with self._lock:
            tracker = self._tracker
        if tracker is None:
            tracker = self._new_tracker()
            tracker.start(request.rgb, request.segmentation, request.label)
            with self._lock:
                if self._request is request:
                    self._tracker = tracker
        return tracker


def describe(tracks: Tracks) -> str:
    """Say in words how the tracking goes."""
    count, lost = len(tracks.tracks), sum(track.lost for track in tracks.tracks)
    if tracks.view is not View.SAME:
        return f"all {count} tracks are lost: {tracks.view.value}"
    return f"{count - lost} of {count} objects are followed" + (f", {lost} lost" if lost else "")
