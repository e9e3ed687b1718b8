"""Boxes and points between frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_core import Box, InputError, ObjectPrompt, Point, ShapeError
from segzero_core.geometry import (
    box_from_mask,
    box_iou,
    clip_box,
    clip_point,
    mask_iou,
    scale_box,
    scale_point,
    to_image_frame,
)

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
numbers = st.integers(-3000, 3000)
boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    numbers,
    numbers,
    st.integers(1, 2000),
    st.integers(1, 2000),
)


@given(boxes, sizes, sizes)
def test_scaling_there_and_back_changes_nothing(
    box: Box, first: tuple[int, int], second: tuple[int, int]
) -> None:
    back = scale_box(scale_box(box, first, second), second, first)

    assert back.xyxy == pytest.approx(box.xyxy)
    point = scale_point(scale_point(Point(box.x_min, box.y_min), first, second), second, first)
    assert point.xy == pytest.approx((box.x_min, box.y_min))


@given(boxes, boxes)
def test_iou_is_symmetric_and_a_share(first: Box, second: Box) -> None:
    iou = box_iou(first, second)

    assert iou == box_iou(second, first)
    assert 0 <= iou <= 1
    assert box_iou(first, first) == 1


def test_iou_of_a_known_pair() -> None:
    assert box_iou(Box(0, 0, 2, 2), Box(1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert box_iou(Box(0, 0, 2, 2), Box(2, 0, 3, 2)) == 0  # touching is not overlapping
    assert box_iou(Box(0, 0, 1e200, 1e200), Box(0, 0, 1e200, 1e-200)) == 0


def test_an_answer_is_moved_and_cut_at_the_image() -> None:
    prompt = ObjectPrompt(Box(-10, 420, 420, 900), (Point(210, 420), Point(-5, 2000)))

    moved = to_image_frame(prompt, (840, 840), (640, 480))

    assert moved.box.xyxy == pytest.approx((0, 240, 320, 480))
    assert moved.points[0].xy == pytest.approx((160, 240))
    assert moved.points[1].xy == (0, 479)  # the nearest pixel


@pytest.mark.parametrize(
    "box", [Box(900, 0, 950, 9), Box(-9, 0, 0, 9), Box(0, 840, 9, 841)], ids=str
)
def test_a_box_outside_the_image_is_refused(box: Box) -> None:
    with pytest.raises(InputError, match="outside"):
        to_image_frame(ObjectPrompt(box, ()), (840, 840), (640, 480))


@given(boxes, sizes)
def test_a_clipped_box_lies_inside(box: Box, size_wh: tuple[int, int]) -> None:
    try:
        clipped = clip_box(box, size_wh)
    except InputError:
        return
    assert clipped.x_min >= 0
    assert clipped.y_min >= 0
    assert clipped.x_max <= size_wh[0]
    assert clipped.y_max <= size_wh[1]


@given(numbers, numbers, sizes)
def test_a_clipped_point_is_a_pixel(x: int, y: int, size_wh: tuple[int, int]) -> None:
    point = clip_point(Point(x, y), size_wh)

    assert 0 <= point.x <= size_wh[0] - 1
    assert 0 <= point.y <= size_wh[1] - 1


def test_a_frame_has_pixels() -> None:
    with pytest.raises(InputError, match="0x5"):
        clip_box(Box(0, 0, 1, 1), (0, 5))


def test_the_box_of_a_mask_is_half_open() -> None:
    mask = np.zeros((10, 12), np.bool_)
    assert box_from_mask(mask) is None
    mask[5, 3] = True
    assert box_from_mask(mask) == Box(3, 5, 4, 6)
    mask[9, 11] = True
    assert box_from_mask(mask) == Box(3, 5, 12, 10)


def test_the_box_of_something_else_is_refused() -> None:
    with pytest.raises(ShapeError):
        box_from_mask(np.zeros((1, 2, 3), np.bool_))


def test_the_iou_of_masks_counts_shared_pixels() -> None:
    first, second = np.zeros((2, 10, 12), np.bool_)
    assert mask_iou(first, second) == 1.0  # both say that nothing is there
    first[2:6, 3:7] = True
    assert mask_iou(first, second) == 0.0
    second[4:8, 3:7] = True
    assert mask_iou(first, second) == mask_iou(second, first) == 8 / 24
    assert mask_iou(first, first) == 1.0
