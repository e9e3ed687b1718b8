"""Refinement of what memory has found: which component of it is the object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segzero_core import load_segmenter
from segzero_core.tracking.refinement import (
    MIN_AGREEMENT,
    Detection,
    MaskRefiner,
    appearance_iou,
    component_prompts,
    split_components,
)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return load_segmenter(str(tiny_model / "segmenter")).segmenter.model


def _inputs_with(
    *boxes: tuple[slice, slice], values: tuple[float, ...] = (1.0, 2.0)
) -> dict[str, Any]:
    """Features of a frame in which objects have a value of their own."""
    fine = torch.linspace(0, 0.1, 32 * 32).view(1, 1, 32, 32).repeat(1, 4, 1, 1)
    for value, (rows, columns) in zip(values, boxes, strict=True):
        fine[..., rows, columns] = value
    maps = [fine, torch.zeros(1, 8, 16, 16), torch.zeros(1, 32, 8, 8)]
    return {
        "current_vision_feats": [each.flatten(2).permute(2, 0, 1) for each in maps],
        "feat_sizes": [each.shape[-2:] for each in maps],
    }


LEFT, RIGHT = (slice(8, 16), slice(4, 12)), (slice(8, 16), slice(20, 28))


@pytest.fixture
def refiner(model: Any, monkeypatch: pytest.MonkeyPatch) -> MaskRefiner:
    return _refiner(model, _inputs_with(LEFT, RIGHT), monkeypatch)


def _refiner(model: Any, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> MaskRefiner:
    """It knows the object on the left, and its decoder fills the boxes of the prompts."""
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 32:64, 16:48] = 1
    refiner = MaskRefiner(model, first, mask)

    def fill(**inputs: Any) -> None:
        boxes = (inputs["point_inputs"]["point_coords"][:, :2] / 4).long().tolist()
        masks = torch.full((len(boxes), 3, 32, 32), -4.0)
        for drawn, ((x_min, y_min), (x_max, y_max)) in zip(masks, boxes, strict=True):
            drawn[:, y_min:y_max, x_min:x_max] = 4.0
        refiner._decoder.masks, refiner._decoder.ious = masks, torch.full((len(boxes), 3), 0.9)

    monkeypatch.setattr(refiner._model, "_forward_sam_heads", fill, raising=False)
    return refiner


def test_of_two_objects_the_one_that_looks_like_the_object_is_taken(refiner: MaskRefiner) -> None:
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., LEFT[0], LEFT[1]] = 4.0
    logits[..., RIGHT[0], RIGHT[1]] = 8.0  # which the memory is surer of
    found = refiner.refine(_inputs_with(LEFT, RIGHT), logits)
    assert found is not None
    assert (found.logits[0, 0, 8:16, 4:12] > 0).all()
    assert (found.logits[0, 0, :, 16:] < 0).all()
    assert found.agreement == 1
    assert found.reliable


def test_what_does_not_look_like_the_object_is_not_taken(refiner: MaskRefiner) -> None:
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., RIGHT[0], RIGHT[1]] = 8.0
    assert refiner.refine(_inputs_with(LEFT, RIGHT), logits) is None
    assert refiner.refine(_inputs_with(LEFT, RIGHT), torch.full((1, 1, 32, 32), -5.0)) is None


def test_what_is_left_of_an_object_in_two_colors_is_known_by_its_own_color(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper, lower = (slice(8, 12), slice(4, 12)), (slice(12, 16), slice(4, 12))
    refiner = _refiner(model, _inputs_with(upper, lower, values=(1.0, 3.0)), monkeypatch)
    behind_an_arm = _inputs_with(upper, lower, values=(1.0, 0.0))
    for part, taken in ((lower, False), (upper, True)):
        logits = torch.full((1, 1, 32, 32), -5.0)
        logits[..., part[0], part[1]] = 4.0
        found = refiner.refine(behind_an_arm, logits)
        assert (found is not None) is taken


def test_memory_that_takes_in_a_neighbour_is_asked_again_for_what_looks_like_the_object(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = (slice(8, 16), slice(12, 20))
    inputs = _inputs_with(LEFT, beside)
    refiner = _refiner(model, inputs, monkeypatch)
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., 8:16, 4:20] = 4.0
    found = refiner.refine(inputs, logits)
    assert found is not None
    assert found.agreement == 1
    assert found.cells[LEFT].all()
    assert not found.cells[beside].any()


def test_an_object_is_known_by_the_image_too_in_which_it_was_reliable_last(
    refiner: MaskRefiner,
) -> None:
    in_the_shade = _inputs_with(LEFT, RIGHT, values=(1.6, 2.6))
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., LEFT[0], LEFT[1]] = 4.0
    assert refiner.refine(in_the_shade, logits) is None  # nearer to the other object
    seen = Detection(logits, torch.tensor(0.9), 1.0, logits[0, 0].numpy() > 0)
    refiner.update(in_the_shade, seen)
    for inputs in (in_the_shade, _inputs_with(LEFT, RIGHT)):
        found = refiner.refine(inputs, logits)
        assert found is not None
        assert found.agreement == 1


def test_a_mask_agrees_with_what_looks_like_the_object_in_it_and_near_it() -> None:
    mask, alike = np.zeros((48, 48), np.bool_), np.zeros((48, 48), np.bool_)
    mask[10:20, 10:20] = alike[10:20, 10:15] = True
    assert appearance_iou(mask, alike) == pytest.approx(0.5)
    alike[10:20, 20:22] = True  # two cells away at most: a part that the mask lacks
    assert appearance_iou(mask, alike) == pytest.approx(50 / 120)
    alike[40:48, 40:48] = True  # another object of the kind
    assert appearance_iou(mask, alike) == pytest.approx(50 / 120)
    assert appearance_iou(np.zeros_like(mask), alike) == 0


@pytest.mark.parametrize(
    ("agreement", "iou", "reliable"),
    [(0.9, 0.9, True), (MIN_AGREEMENT, 0.9, False), (0.9, 0.7, False)],
)
def test_reliable_is_what_agrees_and_is_thought_to_be_well_drawn(
    agreement: float, iou: float, reliable: bool
) -> None:
    found = Detection(
        torch.ones(1, 1, 4, 4), torch.tensor(iou), agreement, np.ones((4, 4), np.bool_)
    )
    assert found.reliable is reliable


def test_of_an_object_that_memory_is_half_sure_of_the_whole_is_taken(refiner: MaskRefiner) -> None:
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., LEFT[0], LEFT[1]] = 1.0
    logits[..., 8:12, 4:12] = 4.0
    found = refiner.refine(_inputs_with(LEFT, RIGHT), logits)
    assert found is not None
    assert found.cells[LEFT].all()


def test_of_a_part_and_the_whole_the_one_of_the_known_size_is_taken(
    refiner: MaskRefiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(**inputs: Any) -> None:
        count = len(inputs["point_inputs"]["point_coords"])
        masks = torch.full((count, 3, 32, 32), -4.0)
        masks[:, 0, 8:12, 4:12] = masks[:, 1, 8:16, 4:12] = masks[:, 2, 8:13, 4:12] = 4.0
        refiner._decoder.masks, refiner._decoder.ious = masks, torch.full((count, 3), 0.9)

    monkeypatch.setattr(refiner._model, "_forward_sam_heads", draw, raising=False)
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., 8:12, 4:12] = 4.0
    whole = refiner.refine(_inputs_with(LEFT, RIGHT), logits)
    assert whole is not None
    assert whole.cells.mean() == pytest.approx(64 / 32**2)


def test_a_mask_splits_into_its_sure_parts_then_all_parts_then_matching_parts() -> None:
    logits = np.full((32, 32), -5.0, np.float32)
    logits[2:4, 2:4] = 4.0  # a speck
    logits[10:20, 8:16] = 5.0
    logits[10:20, 16:20] = 1.0  # a doubtful rim
    logits[14, 11] = 9.0
    alike = np.zeros((32, 32), np.bool_)
    alike[10:14, 8:16] = True
    alike[25:30, 25:30] = True  # where memory found nothing
    alike[18, 18] = True  # a single cell
    components = split_components(logits, alike)
    assert [component.box_xyxy for component in components] == [
        (8, 10, 16, 20),
        (2, 2, 4, 4),
        (8, 10, 20, 20),
        (8, 10, 16, 14),
    ]
    assert components[0].peak_xy == (11, 14)
    prompts = component_prompts(components[:1], 2.0, torch.device("cpu"))
    assert prompts["point_coords"].tolist() == [[[16.0, 20.0], [32.0, 40.0], [23.0, 29.0]]]
    assert prompts["point_labels"].tolist() == [[2, 3, 1]]


def test_a_mask_that_is_nowhere_sure_has_the_components_that_it_has() -> None:
    logits = np.full((8, 8), -5.0, np.float32)
    logits[2:4, 2:4] = 0.5
    nothing = np.zeros((8, 8), np.bool_)
    assert [component.box_xyxy for component in split_components(logits, nothing)] == [
        (2, 2, 4, 4)
    ]
