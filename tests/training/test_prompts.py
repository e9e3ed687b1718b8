from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.prompts import mask_to_prompt


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


def test_the_first_point_is_the_centre_of_the_largest_circle():
    mask = np.zeros((60, 100), np.uint8)
    cv2.circle(mask, (30, 30), 20, 1, -1)
    cv2.circle(mask, (80, 30), 10, 1, -1)
    first, second = mask_to_prompt(mask.astype(bool)).points
    assert np.hypot(first[0] - 30.5, first[1] - 30.5) < 2
    assert np.hypot(second[0] - 80.5, second[1] - 30.5) < 2


def test_the_edge_of_the_picture_is_an_edge_of_the_object():
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
