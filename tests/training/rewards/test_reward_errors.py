"""Errors of rewards, and the mask reward with the segmenter in the loop."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segzero_core.checkpoints.registry import bundled_folder
from segzero_core.encoders.base import Embedding
from segzero_core.errors import InputError, SegmentationError, ShapeError
from segzero_core.testing.fakes import BoxSegmenter, FakeEncoder
from segzero_core.types import Box, Point, RgbImage
from tests.training.rewards.reward_table import (
    MULTI,
    SINGLE,
    A,
    B,
    listed,
    reply,
    score_one,
    truth,
)
from training.rewards.ground_truth import GroundTruth
from training.rewards.masks import MaskIoU
from training.rewards.protocols import (
    PROTOCOLS,
    RewardProtocol,
    Scores,
    Term,
    score,
)
from training.rewards.terms import Answer, RewardError

# --- errors -------------------------------------------------------------------------------------


def scores_with(function: Any) -> Scores:
    protocol = PROTOCOLS["segzero"].with_terms(extra=Term(function))
    return score(protocol, [reply("[]"), "second"], [truth(A)] * 2)


def test_a_term_that_raises_is_reported_with_sample_and_term() -> None:
    def broken(answer: Answer, right: GroundTruth) -> float:
        return 1.0 if answer.text != "second" else {}["key"]

    with pytest.raises(RewardError, match=r"sample 1, extra: KeyError: 'key'") as caught:
        scores_with(broken)
    assert (caught.value.sample, caught.value.term) == (1, "extra")
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, None, "high"], ids=str)
def test_a_term_that_gives_no_share_is_refused(value: Any) -> None:
    with pytest.raises(RewardError, match="sample 0, extra"):
        scores_with(lambda answer, right: value)


def test_a_parser_that_fails_is_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> Any:
        raise RuntimeError("lost its way")

    monkeypatch.setattr("training.rewards.terms.parse_completion", broken)
    with pytest.raises(RewardError, match="sample 0, reading: RuntimeError: lost its way"):
        score(PROTOCOLS["paper"], ["x"], [truth(A)])


def test_completions_without_their_truth_are_refused() -> None:
    with pytest.raises(InputError, match="2 completions for 1 truths"):
        score(PROTOCOLS["paper"], ["a", "b"], [truth(A)])


def test_a_conversation_in_place_of_a_text_is_refused() -> None:
    with pytest.raises(InputError, match="completion 0: expected text, got list"):
        score(PROTOCOLS["paper"], [[{"content": "a"}]], [truth(A)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        pytest.param({"form": "other"}, "form", id="form"),
        pytest.param({"seen_size_wh": (0, 5)}, "at least", id="size"),
        pytest.param({"boxes_xyxy": ((5, 0, 1, 4),)}, "no area", id="corners swapped"),
        pytest.param({"points": ()}, "0 groups of points for 1 boxes", id="no points"),
        pytest.param({"points": (((1, 1),),), "form": SINGLE}, "2 points", id="one point"),
        pytest.param({"points": (((math.nan, 1),),)}, "finite", id="no number"),
        pytest.param({"masks": np.zeros((2, 4, 4), bool)}, "masks", id="too many masks"),
    ],
)
def test_a_truth_that_cannot_be_is_refused(values: dict[str, Any], complaint: str) -> None:
    fields = {"boxes_xyxy": (A[0],), "points": (A[1],), "seen_size_wh": (840, 840)}
    with pytest.raises(InputError, match=complaint):
        GroundTruth(**(fields | values))


def test_the_single_object_form_has_one_object() -> None:
    with pytest.raises(InputError, match="2 objects"):
        truth(A, B, form=SINGLE)


def test_a_truth_takes_boxes_and_points_as_values() -> None:
    right = GroundTruth((Box(0, 0, 100, 100),), ((Point(50, 50),),), (840, 840))

    assert right.boxes_xyxy == ((0, 0, 100, 100),)
    assert right.points == (((50, 50),),)


# --- the segmenter in the loop ------------------------------------------------------------------


class CountingEncoder(FakeEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def encode(self, image: RgbImage) -> Embedding:
        self.calls += 1
        return super().encode(image)


def open_image(image_id: str) -> RgbImage:
    return np.zeros((100, 200, 3), np.uint8)


def masked_truth(image_id: str = "a") -> GroundTruth:
    """A box in the left half of an image of 200x100 that was seen as 840x840."""
    masks = np.zeros((1, 100, 200), bool)
    masks[0, :, :100] = True
    return replace(truth(((0, 0, 420, 840), ((200, 400),))), masks=masks, image_id=image_id)


def with_masks(encoder: Any, segmenter: Any = None) -> RewardProtocol:
    term = Term(MaskIoU(encoder, segmenter or BoxSegmenter(), open_image))
    return PROTOCOLS["segzero"].with_terms(mask_iou=term)


@pytest.mark.parametrize(
    ("answer", "iou"),
    [
        pytest.param('[{"bbox_2d": [0,0,420,840], "point_2d": [9,9]}]', 1.0, id="right"),
        pytest.param('[{"bbox_2d": [0,0,210,840], "point_2d": [9,9]}]', 0.5, id="half of it"),
        pytest.param('[{"bbox_2d": [420,0,840,840], "point_2d": [9,9]}]', 0.0, id="other half"),
        pytest.param(
            '[{"bbox_2d": [900,0,950,840], "point_2d": [9,9]}]', 0.0, id="outside the image"
        ),
        pytest.param("[]", 0.0, id="refused"),
        pytest.param("the left half", 0.0, id="unusable"),
    ],
)
def test_mask_iou_is_that_of_the_masks_the_prompts_give(answer: str, iou: float) -> None:
    terms = score_one(with_masks(FakeEncoder()), reply(answer), masked_truth())

    assert terms["mask_iou"] == iou


def test_where_nothing_fits_only_an_empty_answer_has_the_right_masks() -> None:
    protocol = with_masks(FakeEncoder())

    assert score_one(protocol, reply("[]"), truth())["mask_iou"] == 1.0
    assert score_one(protocol, reply(listed((A,))), truth())["mask_iou"] == 0.0
    assert score_one(protocol, "no", truth())["mask_iou"] == 0.0


def test_the_completions_of_one_image_share_its_embedding() -> None:
    encoder = CountingEncoder()
    truths = [masked_truth("a")] * 8 + [masked_truth("b")] * 8

    score(with_masks(encoder), [reply(listed((A,)))] * 16, truths)

    assert encoder.calls == 2


def test_a_segmenter_that_fails_is_no_zero() -> None:
    protocol = with_masks(FakeEncoder(error=SegmentationError("out of order")))

    with pytest.raises(RewardError, match="sample 0, mask_iou: SegmentationError: out of order"):
        score_one(protocol, reply(listed((A,))), masked_truth())


def test_mask_iou_without_masks_is_an_error() -> None:
    with pytest.raises(RewardError, match="masks and image_id"):
        score_one(with_masks(FakeEncoder()), reply(listed((A,))), truth(A))


def test_masks_of_another_number_than_boxes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"bool \[1, H, W\]"):
        replace(truth(A), masks=np.zeros((2, 5, 5), bool))


def test_the_bundled_segmenter_pays_a_good_prompt_more_than_a_bad_one() -> None:
    from segzero_core.segmenter.sam2 import load_segmenter

    loaded = load_segmenter(str(bundled_folder("tabletop") / "segmenter"))
    image = np.full((180, 240, 3), 110, np.uint8)
    image[60:120, 80:150] = (200, 30, 30)
    masks = np.zeros((1, 180, 240), bool)
    masks[0, 60:120, 80:150] = True
    right = GroundTruth(
        ((80, 60, 150, 120),), (((115, 90),),), (240, 180), MULTI, masks, "red box"
    )
    term = Term(MaskIoU(loaded.encoder, loaded.segmenter, lambda image_id: image))
    protocol = PROTOCOLS["segzero"].with_terms(mask_iou=term)
    good, bad = (
        score_one(protocol, reply(listed((obj,))), right)["mask_iou"]
        for obj in (((80, 60, 150, 120), ((115, 90),)), ((10, 10, 50, 40), ((30, 25),)))
    )

    assert good > 0.7
    assert bad < 0.2
