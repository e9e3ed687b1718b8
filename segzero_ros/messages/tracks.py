"""Tracked objects as segzero_ros/TrackArray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from std_msgs.msg import Header

from segzero_ros.conversions.text import valid_text
from segzero_ros.messages.instances import cropped_mask
from segzero_ros.msg import Track, TrackArray

if TYPE_CHECKING:
    from segzero_core.tracking.tracker import Tracks


def tracks_to_msg(tracks: Tracks, header: Header, query_id: str, latency_ms: float) -> TrackArray:
    """Build the message about the image with this header, which arrived `latency_ms` ago."""
    messages = []
    for track in tracks.tracks:
        msg = Track(id=track.id, label=valid_text(track.label), lost=track.lost)
        if track.box is not None:
            msg.box_xyxy = np.array([int(side) for side in track.box.xyxy], np.int32)
            for field, value in cropped_mask(track.mask, header).items():
                setattr(msg, field, value)
            msg.score = track.score
            msg.area_px = int(track.mask.sum())
        messages.append(msg)
    return TrackArray(header=header, query_id=query_id, tracks=messages, latency_ms=latency_ms)
