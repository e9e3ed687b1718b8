"""How the camera has moved between two pictures, and where that puts what stood still.

What a robot looks at lies mostly on one plane, or is far away, and then one homography tells where
everything went. Places are in the unit square that a picture is squashed to, so that they mean the
same in every map of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.types import RgbImage

_SIDE: Final = 288  # of the square that corners are looked for in [px]
_CORNERS: Final = 400
_CORNER_CONTRAST: Final = 8  # of grey values; a bare table has few corners
_MAX_ERROR_PX: Final = 3.0
_MIN_AGREEING: Final = 12
# How far an object may have moved of its own between two pictures, in its own sizes, and how much
# further with every picture in which it was not seen.
_REACH: Final = 0.8
_REACH_GROWTH: Final = 0.1


class CameraMotion:
    """Compares each picture with the one before it."""

    def __init__(self) -> None:
        self._orb = cv2.ORB.create(_CORNERS, fastThreshold=_CORNER_CONTRAST)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
        self._last: tuple[NDArray[np.float32], Any] | None = None

    def step(self, image: RgbImage) -> NDArray[np.float64] | None:
        """Take the next picture.

        Args:
            image: uint8 [H, W, 3].

        Returns:
            The homography, float [3, 3], that takes places of the picture before into this one;
            None where there was none, or too little of the two agrees.
        """
        last, self._last = self._last, self._corners(image)
        if last is None or self._last is None:
            return None
        matches = self._matcher.match(last[1], self._last[1])
        if len(matches) < _MIN_AGREEING:
            return None
        before = np.array([last[0][each.queryIdx] for each in matches])
        now = np.array([self._last[0][each.trainIdx] for each in matches])
        found, agreeing = cv2.findHomography(before, now, cv2.RANSAC, _MAX_ERROR_PX / _SIDE)
        if found is None or int(agreeing.sum()) < _MIN_AGREEING:
            return None
        return np.asarray(found, np.float64)

    def _corners(self, image: RgbImage) -> tuple[NDArray[np.float32], Any] | None:
        square = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        gray = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)
        words: Any  # is None where there is no corner, which the stubs do not know
        points, words = self._orb.detectAndCompute(gray, None)
        if words is None:
            return None
        return np.array([each.pt for each in points], np.float32) / np.float32(_SIDE), words


@dataclass(frozen=True, eq=False, slots=True)
class Whereabouts:
    """Where an object that stood still since it was last seen must be.

    Attributes:
        outline: float [N, 2], around it, in the unit square.
        missed: Pictures since, in which it was not seen.
    """

    outline: NDArray[np.float64]
    missed: int = 0

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Whereabouts | None:
        """Return where a mask is; None if it is empty.

        Args:
            mask: bool [H, W], of the whole picture at any size.
        """
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        if not contours:
            return None
        points = np.concatenate(contours)[:, 0].astype(np.float64)
        return cls((cv2.convexHull(points.astype(np.float32))[:, 0] + 0.5) / mask.shape[::-1])

    def moved(self, homography: NDArray[np.float64]) -> Whereabouts | None:
        """Return where it is in the next picture, not having been seen there yet.

        None where it would be behind the camera, which a picture cannot tell.
        """
        points = np.column_stack((self.outline, np.ones(len(self.outline)))) @ homography.T
        if points[:, 2].min() <= 0:
            return None
        return replace(self, outline=points[:, :2] / points[:, 2:], missed=self.missed + 1)

    @property
    def centre(self) -> NDArray[np.float64]:
        """The middle of its extent, float [2]."""
        middle: NDArray[np.float64] = (self.outline.min(axis=0) + self.outline.max(axis=0)) / 2
        return middle

    @property
    def size(self) -> float:
        """Side of the square with the area of its extent."""
        extent = self.outline.max(axis=0) - self.outline.min(axis=0)
        return float(np.sqrt(extent.prod()))

    def may_be(self, other: Whereabouts) -> bool:
        """Whether an object seen there can be this one."""
        reach = self.size * (_REACH + _REACH_GROWTH * self.missed)
        return float(np.linalg.norm(self.centre - other.centre)) <= reach

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Draw it: bool [h, w]; empty where it has left the picture."""
        drawn = np.zeros(shape, np.uint8)
        points = np.clip(self.outline, -4, 5) * shape[::-1]
        cv2.fillConvexPoly(drawn, np.round(points - 0.5).astype(np.int32), 1)
        return drawn.astype(np.bool_)
