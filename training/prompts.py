"""From a true mask to the prompt that a perfect reasoner would give: its box and points inside it.

The points are the centres of the two largest inscribed circles, as in Seg-Zero's training data:
far from every edge, and apart from each other, because the second circle is sought outside the
first.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class MaskPrompt(NamedTuple):
    """Box and points of one mask, in pixels of the mask's picture; unpacks as `box, points`.

    Attributes:
        box_xyxy: Half-open corners: x_max and y_max are one past the last pixel [px].
        points: Pixel centres inside the mask, that of the largest inscribed circle first [px].
    """

    box_xyxy: tuple[int, int, int, int]
    points: tuple[tuple[float, float], ...]


def mask_to_prompt(mask: NDArray[np.bool_], max_points: int = 2) -> MaskPrompt:
    """Read the tight box and the centres of the largest inscribed circles off a mask.

    Args:
        mask: bool [H, W], with at least one pixel set.
        max_points: How many circles to look for. Fewer points come back when the circles already
            found cover the whole mask.

    Returns:
        The prompt, in pixels of the mask.

    Raises:
        ValueError: The mask is not two-dimensional, or empty.
    """
    if mask.ndim != 2 or not mask.any():
        raise ValueError(f"mask: expected a non-empty [H, W] array, got shape {mask.shape}")
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    x_min, x_end = int(columns[0]), int(columns[-1]) + 1
    y_min, y_end = int(rows[0]), int(rows[-1]) + 1
    # Everything else happens inside the box. The border of zeros makes the picture's edge an edge
    # of the object too.
    rest = np.pad(mask[y_min:y_end, x_min:x_end], 1).astype(np.uint8)
    points = []
    for _ in range(max_points):
        if not rest.any():
            break
        distance = cv2.distanceTransform(rest, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        row, column = np.unravel_index(int(distance.argmax()), distance.shape)
        points.append((x_min + float(column) - 0.5, y_min + float(row) - 0.5))
        radius = max(1, int(distance[row, column]))
        cv2.circle(rest, (int(column), int(row)), radius, color=0, thickness=-1)
    return MaskPrompt((x_min, y_min, x_end, y_end), tuple(points))
