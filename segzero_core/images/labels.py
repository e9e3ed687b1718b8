"""Where labels stand: beside their objects, on no object and on no other label, in the image."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.types import SizeWH

_CELLS: Final = 20_000
"""Places are tried on a grid of about so many cells, whatever the image's size."""
_COVERING: Final = 1e9
"""A cell of an object that is covered is worse than any distance."""


class Place(NamedTuple):
    """Where a label stands [px]."""

    left: int
    top: int
    right: int
    bottom: int


def place_labels(
    masks: NDArray[np.bool_], sizes_wh: Sequence[SizeWH], margin: int
) -> list[Place | None]:
    """Return a place for each label, as near to its object as there is room.

    Where no place is free of objects, the label covers as little of them as it can. None is for a
    label that does not fit into the image beside the others, or whose object has no pixel.

    Args:
        masks: bool [N, H, W], one for each label.
        sizes_wh: Of the labels [px].
        margin: Kept between a label and the objects [px].
    """
    height, width = masks.shape[1:]
    cell = ceil(max(1.0, (width * height / _CELLS) ** 0.5))
    objects = _occupied(masks, cell, margin)
    labels = np.zeros_like(objects)
    places: list[Place | None] = []
    for mask, size_wh in zip(masks, sizes_wh, strict=True):
        wide, high = (ceil(side / cell) for side in size_wh)
        box = cv2.boundingRect(mask.view(np.uint8))
        if not box[2] or high > labels.shape[0] or wide > labels.shape[1]:
            places.append(None)
            continue
        cost = _COVERING * _sums(objects, wide, high) + _distances(
            box, size_wh, cell, (labels.shape[0] - high + 1, labels.shape[1] - wide + 1)
        )
        cost[_sums(labels, wide, high) > 0] = np.inf
        row, column = divmod(int(cost.argmin()), cost.shape[1])
        if np.isinf(cost[row, column]):
            places.append(None)
            continue
        labels[row : row + high, column : column + wide] = 1
        left, top = column * cell, row * cell
        places.append(Place(left, top, left + size_wh[0], top + size_wh[1]))
    return places


def _occupied(masks: NDArray[np.bool_], cell: int, margin: int) -> NDArray[np.uint8]:
    """Return 1 for each whole cell of the grid that an object is in or near to."""
    rows, columns = (side // cell for side in masks.shape[1:])
    side = cell + 2 * margin
    # The kernel of a cell's corner covers the cell and what is around it.
    union = np.asarray(masks.any(axis=0), np.uint8)
    grown = cv2.dilate(union, np.ones((side, side), np.uint8), anchor=(margin, margin))
    return np.ascontiguousarray(grown[::cell, ::cell][:rows, :columns])


def _sums(grid: NDArray[np.uint8], wide: int, high: int) -> NDArray[np.float64]:
    """Return for each place of a window how many cells under it are taken."""
    total = np.asarray(cv2.integral(grid), np.float64)
    bands = total[high:] - total[:-high]
    return bands[:, wide:] - bands[:, :-wide]


def _distances(
    box_xywh: Sequence[int], size_wh: SizeWH, cell: int, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return how far a label is from its object at each place; best is above, at the left edge."""
    top, left = cell * np.arange(shape[0])[:, None], cell * np.arange(shape[1])[None]
    x, y, width, height = box_xywh
    gap_x = np.maximum(0, np.maximum(x - (left + size_wh[0]), left - (x + width)))
    gap_y = np.maximum(0, np.maximum(y - (top + size_wh[1]), top - (y + height)))
    is_above = top + size_wh[1] <= y
    is_inside = (gap_x == 0) & (gap_y == 0) & ~is_above & (top < y + height)
    worse = np.where(is_above, 0.0, 0.5) + np.where(is_inside, 1.0, 0.0)
    distance = np.hypot(gap_x, gap_y) + worse * size_wh[1] + 0.05 * np.abs(left - x)
    return np.asarray(distance, np.float64)
