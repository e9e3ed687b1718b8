"""Makes the prompt of a perfect reasoner from a true mask: its box and points inside it.

The points are the centers of the two largest inscribed circles, as in Seg-Zero's training data:
far from every edge, and apart from each other, because the second circle is sought outside the
first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.geometry import box_from_mask
from segzero_core.types import Box, ObjectPrompt, Point

CIRCLES: Final = "circles"
REFERENCE: Final = "reference"
POINT_POLICIES: Final = (CIRCLES, REFERENCE)
"""The second circle outside the first | the second point as Seg-Zero's public code finds it."""


class MaskPrompt(NamedTuple):
    """Box and points of one mask, in pixels of the mask's image; unpacks as `box, points`."""

    # Half-open corners: x_max and y_max are one past the last pixel [px].
    box_xyxy: tuple[int, int, int, int]
    # Pixel centers inside the mask, that of the largest inscribed circle first [px].
    points: tuple[tuple[float, float], ...]

    def to_object(self, max_points: int | None = None) -> ObjectPrompt:
        """Return the prompt for the segmenter, with a limited number of points."""
        points = tuple(Point(*xy) for xy in self.points[:max_points])
        return ObjectPrompt(Box(*self.box_xyxy), points)


def mask_to_prompt(
    mask: NDArray[np.bool_], max_points: int = 2, policy: str = CIRCLES
) -> MaskPrompt:
    """Read the tight box and the centers of the largest inscribed circles off a mask.

    Args:
        mask: bool [H, W], with at least one pixel set.
        max_points: How many circles to look for. Fewer points come back when the circles already
            found cover the whole mask.
        policy: One of `POINT_POLICIES`; `REFERENCE` gives two points at most.

    Returns:
        The prompt, in pixels of the mask.

    Raises:
        ValueError: The mask is not two-dimensional, or empty.
    """
    box = box_from_mask(mask) if mask.ndim == 2 else None
    if box is None:
        raise ValueError(f"mask: expected a non-empty [H, W] array, got shape {mask.shape}")
    x_min, y_min, x_end, y_end = map(int, box.xyxy)
    # Everything else happens inside the box. The border of zeros makes the image's edge an edge
    # of the object too.
    inside = np.pad(mask[y_min:y_end, x_min:x_end], 1).astype(np.uint8)
    find = _reference_points if policy == REFERENCE else _circle_centers
    points = tuple((x_min + x - 0.5, y_min + y - 0.5) for x, y in find(inside, max_points))
    return MaskPrompt((x_min, y_min, x_end, y_end), points)


def _circle_centers(rest: NDArray[np.uint8], count: int) -> Iterator[tuple[int, int]]:
    """Give pixels x, y: each the center of the largest circle outside the ones before."""
    for _ in range(count):
        if not rest.any():
            return
        squares = _squared_distance_to_edge(rest)
        row, column = _highest(squares)
        yield column, row
        radius = max(1, math.isqrt(int(squares[row, column])))
        cv2.circle(rest, (column, row), radius, color=0, thickness=-1)


def _reference_points(inside: NDArray[np.uint8], count: int) -> Iterator[tuple[int, int]]:
    """Give pixels x, y: the largest circle, then the best pixel of the farther half of the mask.

    Source: the data notebook of Seg-Zero's public code; differs: the image's edge counts as an
    edge.
    """
    if count < 1:
        return
    squares = _squared_distance_to_edge(inside)
    row, column = _highest(squares)
    yield column, row
    rows, columns = np.nonzero(inside)
    away = np.hypot(rows - row, columns - column)
    far = away > np.median(away)
    if count > 1 and far.any():
        best = int(np.where(far, squares[rows, columns], -1).argmax())
        yield int(columns[best]), int(rows[best])


def _squared_distance_to_edge(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return integers, because the last bit of OpenCV's distances is not reproducible."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.rint(np.square(distance, dtype=np.float32))


def _highest(values: NDArray[np.float32]) -> tuple[int, int]:
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)
