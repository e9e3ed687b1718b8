"""Geometry of boxes, points and masks; pure functions.

A frame is given by its width and height. The image the model sees is the input image resized
to another size (the aspect ratio is not kept), so the map between them scales x and y apart.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError, ShapeError
from segzero_core.types import Box, ObjectPrompt, Point, SizeWH

MATCH_IOU: Final = 0.5
"""A mask that overlaps the true one by this much counts as found (as in PASCAL VOC)."""


def check_size(size_wh: SizeWH) -> SizeWH:
    """Return the size itself if both numbers are positive.

    Raises:
        InputError: They are not.
    """
    width, height = size_wh
    if width < 1 or height < 1:
        raise InputError(f"a frame must be at least 1x1 pixel, got {width}x{height}")
    return size_wh


def scale_point(point: Point, from_wh: SizeWH, to_wh: SizeWH) -> Point:
    """Move a point from one frame into another."""
    (from_w, from_h), (to_w, to_h) = check_size(from_wh), check_size(to_wh)
    return Point(point.x * to_w / from_w, point.y * to_h / from_h)


def scale_box(box: Box, from_wh: SizeWH, to_wh: SizeWH) -> Box:
    """Move a box from one frame into another."""
    (from_w, from_h), (to_w, to_h) = check_size(from_wh), check_size(to_wh)
    scale_x, scale_y = to_w / from_w, to_h / from_h
    return Box(box.x_min * scale_x, box.y_min * scale_y, box.x_max * scale_x, box.y_max * scale_y)


def clip_point(point: Point, size_wh: SizeWH) -> Point:
    """Move a point outside the frame to the nearest pixel inside it."""
    width, height = check_size(size_wh)
    return Point(min(max(point.x, 0.0), width - 1.0), min(max(point.y, 0.0), height - 1.0))


def clip_box(box: Box, size_wh: SizeWH) -> Box:
    """Cut a box at the border of the frame.

    Raises:
        InputError: Nothing of the box lies inside.
    """
    width, height = check_size(size_wh)
    x_min, x_max = max(box.x_min, 0.0), min(box.x_max, float(width))
    y_min, y_max = max(box.y_min, 0.0), min(box.y_max, float(height))
    if x_min >= x_max or y_min >= y_max:
        raise InputError(f"box {list(box.xyxy)} lies outside the {width}x{height} image")
    return Box(x_min, y_min, x_max, y_max)


def to_image_frame(prompt: ObjectPrompt, frame_wh: SizeWH, image_wh: SizeWH) -> ObjectPrompt:
    """Move what the reasoner said in its frame into pixels of the input image, and cut it there.

    The reasoner is not trusted: a box that reaches over the border is cut, and a point outside
    moves to the nearest pixel, since a point that is off by a little still means the object.

    Raises:
        InputError: The box lies entirely outside the image, so the answer cannot be meant.
    """
    box = clip_box(scale_box(prompt.box, frame_wh, image_wh), image_wh)
    points = (scale_point(point, frame_wh, image_wh) for point in prompt.points)
    return ObjectPrompt(box, tuple(clip_point(point, image_wh) for point in points))


def box_iou(first: Box, second: Box) -> float:
    """Return intersection over union of two boxes of one frame, in [0, 1]."""
    # In units of the larger box, so that no product of two large extents overflows.
    unit_x, unit_y = max(first.width, second.width), max(first.height, second.height)
    width = min(first.x_max, second.x_max) - max(first.x_min, second.x_min)
    height = min(first.y_max, second.y_max) - max(first.y_min, second.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = (width / unit_x) * (height / unit_y)
    areas = sum((box.width / unit_x) * (box.height / unit_y) for box in (first, second))
    union = areas - intersection
    return min(1.0, intersection / union) if union > 0 else 0.0


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return intersection over union of two masks bool [H, W], in [0, 1]; 1 if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def box_from_mask(mask: NDArray[np.bool_]) -> Box | None:
    """Return the smallest half-open box around a mask's pixels, or None for an empty mask.

    `tuple(map(int, box.xyxy))` gives the bounds of the slices that cut the box out.

    Raises:
        ShapeError: The mask is not bool [H, W].
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ShapeError("mask", "bool [H, W]", mask)
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
