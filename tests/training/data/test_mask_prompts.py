from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segzero_core.errors import OutOfMemoryError
from training.data.mask_prompts import mask_to_prompt
from training.data.parallel import map_in_order


def test_the_box_is_half_open_and_tight():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 6:17] = True
    assert mask_to_prompt(mask).box_xyxy == (6, 4, 17, 9)


def test_a_single_pixel_has_a_box_with_area_and_one_point():
    mask = np.zeros((6, 8), bool)
    mask[5, 3] = True
    box, points = mask_to_prompt(mask)
    assert box == (3, 5, 4, 6)
    assert points == ((3.5, 5.5),)


def test_the_first_point_is_the_center_of_the_largest_circle():
    mask = np.zeros((60, 100), np.uint8)
    cv2.circle(mask, (30, 30), 20, 1, -1)
    cv2.circle(mask, (80, 30), 10, 1, -1)
    first, second = mask_to_prompt(mask.astype(bool)).points
    assert np.hypot(first[0] - 30.5, first[1] - 30.5) < 2
    assert np.hypot(second[0] - 80.5, second[1] - 30.5) < 2


def test_the_edge_of_the_image_is_an_edge_of_the_object():
    (x, y), *_ = mask_to_prompt(np.ones((41, 41), bool)).points
    assert abs(x - 20.5) < 1
    assert abs(y - 20.5) < 1


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="non-empty"):
        mask_to_prompt(np.zeros((4, 4), bool))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.9))
def test_every_point_lies_on_a_pixel_of_the_mask(seed: int, share: float):
    mask = np.random.default_rng(seed).random((25, 31)) < share
    mask[3, 4] = True
    prompt = mask_to_prompt(mask)
    assert 1 <= len(prompt.points) <= 2
    assert all(mask[int(y), int(x)] for x, y in prompt.points)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_first_circle_is_at_least_as_large_as_the_second(seed: int):
    mask = blobs(np.random.default_rng(seed))
    radii = [radius(mask, point) for point in mask_to_prompt(mask).points]
    assert radii == sorted(radii, reverse=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_second_point_lies_outside_the_first_circle(seed: int):
    mask = blobs(np.random.default_rng(seed))
    first, *rest = mask_to_prompt(mask).points
    assert all(np.hypot(*np.subtract(first, point)) >= radius(mask, first) - 1 for point in rest)


def test_the_first_point_is_where_the_distance_to_the_edge_is_largest():
    mask = blobs(np.random.default_rng(5))
    padded = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    assert radius(mask, mask_to_prompt(mask).points[0]) >= padded.max() - 0.1


def test_the_points_of_an_object_on_the_border_lie_off_the_border():
    mask = np.zeros((100, 100), bool)
    mask[:60, :40] = True
    (x, y), *_ = mask_to_prompt(mask).points
    assert 15 <= x <= 25
    assert 15 <= y <= 45


def test_the_references_second_point_is_the_best_of_the_farther_half():
    mask = np.zeros((60, 120), np.uint8)
    cv2.circle(mask, (30, 30), 20, 1, -1)
    cv2.circle(mask, (90, 30), 15, 1, -1)
    first, second = mask_to_prompt(mask > 0, policy="reference").points
    assert np.hypot(first[0] - 30.5, first[1] - 30.5) < 2
    rows, columns = np.nonzero(mask)
    away = np.hypot(columns + 0.5 - first[0], rows + 0.5 - first[1])
    assert np.hypot(second[0] - first[0], second[1] - first[1]) > np.median(away)


def test_the_reference_has_no_second_point_where_nothing_is_far():
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    assert len(mask_to_prompt(mask, policy="reference").points) == 1


@pytest.mark.parametrize("policy", ["circles", "reference"])
def test_as_many_points_are_sought_as_asked_for(policy: str):
    mask = blobs(np.random.default_rng(1))
    counts = [len(mask_to_prompt(mask, count, policy).points) for count in (0, 1, 2)]
    assert counts == [0, 1, 2]


def test_many_masks_in_two_processes_give_the_prompts_of_each():
    rng = np.random.default_rng(2)
    masks = [blobs(rng) for _ in range(70)]
    prompts = list(map_in_order(mask_to_prompt, masks, processes=2))
    assert prompts == [mask_to_prompt(mask) for mask in masks]


def test_a_worker_that_dies_is_one_clear_error():
    with pytest.raises(OutOfMemoryError, match="--processes"):
        list(map_in_order(os._exit, [1], processes=1))


def blobs(rng: np.random.Generator) -> np.ndarray:
    """A union of ellipses, some over the border: bool [80, 120]."""
    mask = np.zeros((80, 120), np.uint8)
    for _ in range(rng.integers(1, 5)):
        center = tuple(int(v) for v in rng.integers(0, (120, 80)))
        axes = tuple(int(v) for v in rng.integers(3, 40, 2))
        cv2.ellipse(mask, center, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return mask > 0


def radius(mask: np.ndarray, point: tuple[float, float]) -> float:
    """Distance from a pixel's center to that of the nearest pixel outside the mask."""
    rows, columns = np.nonzero(~np.pad(mask, 1))
    return float(np.hypot(columns - 0.5 - point[0], rows - 0.5 - point[1]).min())
