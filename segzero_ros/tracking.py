"""Follows the objects of the last answer over the camera's pictures, in a thread of its own.

A query goes first: while one runs or waits, nothing is followed. Pictures that come meanwhile, or
faster than they can be worked on, are skipped. Nothing is computed unless somebody listens.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from segzero_core.errors import InputError, SegZeroError
from segzero_core.tracking.scene_change import View
from segzero_ros.conversions.images import mask_to_msg
from segzero_ros.latest_worker import NewestWorker
from segzero_ros.msg import Track, TrackArray
from segzero_ros.messages.result import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from std_msgs.msg import Header

    from segzero_core.tracking.tracker import Track as CoreTrack
    from segzero_core.tracking.tracker import Tracker, Tracks
    from segzero_core.types import RgbImage, Segmentation
    from segzero_ros.camera.image_buffer import Picture

NOTHING: Final = "nothing is followed"


@dataclass(frozen=True, eq=False, slots=True)
class Beginning:
    """An answer whose objects are to be followed.

    Attributes:
        query_id: Of the answer.
        label: The words of the query.
        rgb: The picture that it is about, uint8 [H, W, 3].
        segmentation: Its objects; at least one.
        picture: The message of that picture; later ones are followed.
    """

    query_id: str
    label: str
    rgb: RgbImage
    segmentation: Segmentation
    picture: Picture


class TrackKeeper:
    """Owns the tracker and its thread. All methods are thread-safe; only `stop` waits.

    Args:
        new_tracker: Makes a tracker of the loaded model; called in the thread.
        publish: Publishes tracks.
        may_work: Says whether somebody listens and no query runs or waits.
        period_s: Returns the shortest time between two pictures that are worked on [s].
        on_state: Called with a line for people whenever what it says has changed.
        on_defect: Called inside an except clause with where it happened.
    """

    def __init__(
        self,
        new_tracker: Callable[[], Tracker],
        publish: Callable[[TrackArray], None],
        may_work: Callable[[], bool],
        period_s: Callable[[], float],
        on_state: Callable[[str], None],
        on_defect: Callable[[str], None],
    ) -> None:
        self._new_tracker = new_tracker
        self._publish = publish
        self._may_work = may_work
        self._on_state = on_state
        self._on_defect = on_defect
        self._worker: NewestWorker[tuple[Beginning, Picture]] = NewestWorker(
            "segzero-tracks", self._work, period_s
        )
        self._lock = threading.Lock()
        self._beginning: Beginning | None = None
        self._tracker: Tracker | None = None
        self.state = NOTHING
        """What it does, in words."""

    def begin(self, beginning: Beginning) -> None:
        """Follow the objects of this answer from now on, in place of all others."""
        self._forget(beginning)
        self._tell("the objects are followed as soon as somebody subscribes to ~/tracks")

    def picture_arrived(self, picture: Picture) -> None:
        """Take the camera's newest picture; one that was not worked on yet is skipped."""
        beginning = self._beginning
        if beginning is None or picture is beginning.picture or not self._may_work():
            return
        self._worker.offer((beginning, picture))

    def reset(self) -> bool:
        """Forget everything.

        Returns:
            Whether something was followed.
        """
        was_following = self._forget(None) is not None
        self._tell(NOTHING)
        return was_following

    def stop(self, timeout_s: float) -> None:
        """End the thread after the picture that it is at; nothing is followed any more."""
        self._worker.stop(timeout_s)

    def _forget(self, beginning: Beginning | None) -> Beginning | None:
        """Put another answer, or none, in the place of the one before, and return that."""
        with self._lock:
            before, self._beginning, self._tracker = self._beginning, beginning, None
        self._worker.forget()
        return before

    def _tell(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._on_state(state)

    def _work(self, item: tuple[Beginning, Picture]) -> None:
        beginning, picture = item
        # Meanwhile there may be another answer, or a query, which goes first.
        if beginning is self._beginning and self._may_work():
            self._follow(beginning, picture)

    def _follow(self, beginning: Beginning, picture: Picture) -> None:
        """Work on one picture; the last border before the thread would end."""
        try:
            rgb = picture.rgb()
        except InputError as error:
            self._tell(f"a picture is skipped: {error}")
            return
        try:
            tracks = self._tracker_of(beginning).step(rgb)
            latency_ms = (time.monotonic() - picture.arrived_s) * 1000.0
            msg = tracks_to_msg(tracks, picture.header, beginning.query_id, latency_ms)
        except Exception as error:
            if not isinstance(error, SegZeroError):
                self._on_defect(f"while following the objects of query {beginning.query_id}")
            self._give_up(beginning, f"{type(error).__name__}: {error}")
            return
        if self._beginning is not beginning:
            return  # replaced or forgotten meanwhile: these tracks are nobody's
        try:
            self._publish(msg)
        except Exception:
            self._on_defect("while publishing tracks")
        self._tell(state_of(tracks))

    def _tracker_of(self, beginning: Beginning) -> Tracker:
        """Return the tracker of an answer, which is made when its first picture is there."""
        with self._lock:
            tracker = self._tracker
        if tracker is None:
            tracker = self._new_tracker()
            tracker.start(beginning.rgb, beginning.segmentation, beginning.label)
            with self._lock:
                if self._beginning is beginning:
                    self._tracker = tracker
        return tracker

    def _give_up(self, beginning: Beginning, reason: str) -> None:
        with self._lock:
            if self._beginning is not beginning:
                return
            self._beginning = self._tracker = None
        self._tell(f"query {beginning.query_id} is not followed: {reason}")


def state_of(tracks: Tracks) -> str:
    """Say in words how the tracking goes."""
    count, lost = len(tracks.tracks), sum(track.lost for track in tracks.tracks)
    if tracks.view is not View.SAME:
        return f"all {count} tracks are lost: {tracks.view.value}"
    return f"{count - lost} of {count} objects are followed" + (f", {lost} lost" if lost else "")


def tracks_to_msg(tracks: Tracks, header: Header, query_id: str, latency_ms: float) -> TrackArray:
    """Build the message about one picture.

    Args:
        tracks: Where the objects are in it.
        header: Of the picture.
        query_id: Of the answer that began the tracks.
        latency_ms: Since the picture arrived [ms].
    """
    return TrackArray(
        header=header,
        query_id=query_id,
        tracks=[_track_to_msg(track, header) for track in tracks.tracks],
        latency_ms=latency_ms,
    )


def _track_to_msg(track: CoreTrack, header: Header) -> Track:
    msg = Track(id=track.id, label=valid_text(track.label), lost=track.lost)
    if track.box is None:
        return msg
    left, top, right, bottom = (int(side) for side in track.box.xyxy)
    msg.box_xyxy = np.array([left, top, right, bottom], np.int32)
    msg.mask = mask_to_msg(track.mask[top:bottom, left:right], header)
    msg.mask_x_offset, msg.mask_y_offset = left, top
    msg.score = track.score
    msg.area_px = int(track.mask.sum())
    return msg
