"""Values that check themselves."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from segzero_core import (
    AnswerParseError,
    Box,
    InputError,
    ModelIdentity,
    ObjectPrompt,
    Point,
    Reasoning,
    Result,
    Segmentation,
    ShapeError,
    Timings,
)
from segzero_core.types import check_rgb_image

MASKS = np.zeros((2, 3, 4), np.bool_)
SCORES = np.array([0.5, 0.9], np.float32)


def test_a_box_knows_its_measures() -> None:
    box = Box(1, 2, 4, np.float32(6))

    assert box.xyxy == (1.0, 2.0, 4.0, 6.0)
    assert (box.width, box.height, box.area) == (3, 4, 12)
    assert all(type(value) is float for value in box.xyxy)


@pytest.mark.parametrize(
    "corners",
    [
        pytest.param((1, 1, 1, 2), id="no width"),
        pytest.param((1, 2, 2, 2), id="no height"),
        pytest.param((2, 1, 1, 2), id="swapped"),
        pytest.param((float("nan"), 1, 2, 2), id="nan"),
        pytest.param((1, 1, float("inf"), 2), id="infinite"),
        pytest.param((10**400, 1, 2, 2), id="too large for a float"),
        pytest.param((-1.7e308, 1, 1.7e308, 2), id="infinite width"),
        pytest.param((True, 1, 2, 2), id="bool"),
        pytest.param((np.True_, 1, 2, 2), id="numpy bool"),
        pytest.param(("1", 1, 2, 2), id="text"),
        pytest.param((None, 1, 2, 2), id="None"),
    ],
)
def test_a_box_without_sense_is_refused(corners: tuple[Any, ...]) -> None:
    with pytest.raises(InputError, match="box"):
        Box(*corners)


def test_a_point_without_sense_is_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        Point(0, float("nan"))


def test_a_prompt_is_made_of_values_only() -> None:
    with pytest.raises(InputError, match="Box"):
        ObjectPrompt((1, 2, 3, 4), ())  # type: ignore[arg-type]


def test_a_segmentation_makes_its_arrays_read_only() -> None:
    segmentation = Segmentation(MASKS.copy(), SCORES.copy())

    with pytest.raises(ValueError, match="read-only"):
        segmentation.masks[0, 0, 0] = True
    with pytest.raises(ValueError, match="read-only"):
        segmentation.scores[0] = 1


@pytest.mark.parametrize(
    ("masks", "scores", "message"),
    [
        pytest.param(MASKS[0], SCORES, "masks: expected bool", id="two dimensions"),
        pytest.param(MASKS.astype(np.uint8), SCORES, "got uint8", id="type of masks"),
        pytest.param(MASKS, SCORES[:1], r"scores: expected float32 \[2\]", id="too few scores"),
        pytest.param(MASKS, SCORES.astype(np.float64), "got float64", id="type of scores"),
        pytest.param([], SCORES, "got list", id="no array"),
    ],
)
def test_a_wrong_array_is_refused_in_words(masks: Any, scores: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Segmentation(masks, scores)


def test_the_better_mask_is_on_top() -> None:
    masks = np.zeros((3, 1, 4), np.bool_)
    masks[0, 0, :2] = masks[1, 0, 1:3] = True
    segmentation = Segmentation(masks, np.array([0.9, 0.2, 0.5], np.float32))

    assert segmentation.instance_ids().tolist() == [[1, 1, 2, 0]]
    assert segmentation.instance_ids().dtype == np.uint16
    assert segmentation.union().tolist() == [[True, True, True, False]]


def test_nothing_found_has_the_size_of_its_image() -> None:
    empty = Segmentation.empty((4, 3))

    assert (len(empty), empty.size_wh) == (0, (4, 3))
    assert not empty.union().any()
    assert not empty.instance_ids().any()


def make_result(**changes: Any) -> Result:
    prompt = ObjectPrompt(Box(0, 0, 1, 1), (Point(0, 0),))
    values: dict[str, Any] = {
        "query": "mug",
        "reasoning": Reasoning("", (prompt, prompt), ""),
        "segmentation": Segmentation(MASKS.copy(), SCORES.copy()),
        "timings": Timings(1, 2, 3, 4, 5, 6),
        "model": ModelIdentity("m", "0", "torch"),
        "size_wh": (4, 3),
    }
    return Result(**(values | changes))


def test_a_result_must_fit_together() -> None:
    assert len(make_result().segmentation) == 2
    with pytest.raises(ShapeError, match="image's size"):
        make_result(size_wh=(3, 4))
    with pytest.raises(InputError, match="2 masks for 0 prompts"):
        make_result(reasoning=Reasoning("", (), ""))


def test_times_are_not_negative() -> None:
    with pytest.raises(InputError, match="decoder_ms"):
        Timings(1, 2, 3, -4, 5, 6)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((0, 5, 3), np.uint8), id="no rows"),
        pytest.param(np.zeros((5, 0, 3), np.uint8), id="no columns"),
        pytest.param(np.zeros((5, 5), np.uint8), id="grey"),
        pytest.param(np.zeros((5, 5, 4), np.uint8), id="alpha"),
        pytest.param(np.zeros((3, 5, 5), np.uint8), id="channels first"),
        pytest.param(np.zeros((5, 5, 3), np.float32), id="floats"),
        pytest.param(None, id="None"),
        pytest.param([[[0, 0, 0]]], id="list"),
    ],
)
def test_only_rgb_images_of_bytes_are_images(image: object) -> None:
    with pytest.raises(ShapeError, match=r"uint8 \[H, W, 3\]"):
        check_rgb_image(image)


@pytest.mark.parametrize(
    "error", [AnswerParseError("why", "reply"), ShapeError("masks", "bool", MASKS)], ids=repr
)
def test_errors_survive_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert getattr(copy, "completion", None) == getattr(error, "completion", None)
