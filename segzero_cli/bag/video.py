"""Writes the overlay video of a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from segzero_core.errors import InputError
from segzero_core.types import RgbImage

_MAX_FPS: Final = 30.0
_SINGLE_FPS: Final = 1.0
"""Rate of a video with one frame, or whose frames have no stamps."""


class Video:
    """MPEG-4 Part 2 video (.mp4) that plays as fast as its frames were recorded.

    The rate is the time between the first two frames, so the first one is written with the second.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None
        self._first: tuple[RgbImage, int] | None = None
        self._size_wh = (0, 0)

    def add(self, pixels: RgbImage, stamp_ns: int) -> None:
        """Add a frame in the size of the first; an InputError if the file cannot be written."""
        if self._writer is None and self._first is None:
            self._first = (pixels, stamp_ns)
            return
        if self._first is not None:
            first, first_ns = self._first
            seconds = (stamp_ns - first_ns) / 1e9
            self._open(first, 1 / seconds if seconds > 0 else _SINGLE_FPS)
        self._write(pixels)

    def _open(self, pixels: RgbImage, fps: float) -> None:
        height, width = pixels.shape[:2]
        # The codec takes even sizes only.
        self._size_wh = (max(2, width // 2 * 2), max(2, height // 2 * 2))
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        fps = round(min(max(fps, 0.1), _MAX_FPS), 3)
        self._writer = cv2.VideoWriter(str(self._path), codec, fps, self._size_wh)
        if not self._writer.isOpened():
            raise InputError(f"{self._path}: cannot be written as a video; give --no-video")
        self._first = None
        self._write(pixels)

    def _write(self, pixels: RgbImage) -> None:
        if pixels.shape[1::-1] != self._size_wh:
            pixels = np.asarray(cv2.resize(pixels, self._size_wh), np.uint8)
        self._writer.write(np.ascontiguousarray(pixels[..., ::-1]))

    def close(self) -> None:
        """Finish the file; a single frame becomes a video of one second."""
        if self._first is not None:
            self._open(self._first[0], _SINGLE_FPS)
        if self._writer is not None:
            self._writer.release()
            self._writer = None
