from __future__ import annotations

import numpy as np
import pytest

from segzero_core.types import Box, Point
from training.evaluation.metrics import (
    OVER_QUERIES,
    Outcome,
    box_hits,
    point_hits,
    score_answer,
    score_failure,
    summarize,
)

SHAPE = (10, 10)


def mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    out = np.zeros(SHAPE, bool)
    out[y0:y1, x0:x1] = True
    return out


def answer(kind: str, predicted: list[np.ndarray], truth: np.ndarray, **changes) -> Outcome:
    masks = np.array(predicted) if predicted else np.zeros((0, *SHAPE), bool)
    boxes = changes.get("boxes", [])
    true = changes.get("true", [Box(0, 0, 4, 4)] if truth.any() else [])
    return score_answer(kind, masks, truth, boxes, true, ms=5.0)


def outcome(kind: str, iou: float, intersection: int = 0, union: int = 0) -> Outcome:
    return Outcome(kind, iou, intersection, union, None, unusable=False, refused=False, ms=1.0)


def test_the_union_of_masks_is_compared_with_the_union_of_the_truth():
    truth = mask(0, 0, 4, 4) | mask(6, 6, 10, 10)
    got = answer("many", [mask(0, 0, 4, 4), mask(6, 6, 10, 10)], truth)
    assert got.iou == 1.0
    assert (got.intersection, got.union) == (32, 32)


def test_overlapping_masks_count_their_pixels_once():
    got = answer("name", [mask(0, 0, 4, 4), mask(0, 0, 4, 4)], mask(0, 0, 4, 8))
    assert got.iou == 0.5


@pytest.mark.parametrize(
    ("predicted", "score"),
    [
        pytest.param([], 1.0, id="refused"),
        pytest.param([mask(0, 0, 1, 1)], 0.0, id="a mask"),
        pytest.param([mask(0, 0, 0, 0)], 0.0, id="an empty mask is not a refusal"),
    ],
)
def test_on_none_only_an_empty_answer_scores(predicted: list[np.ndarray], score: float):
    got = answer("none", predicted, mask(0, 0, 0, 0))
    assert got.iou == score
    assert got.refused == (score == 1.0)
    assert got.box_hits is None


def test_an_empty_answer_to_a_query_that_means_something_scores_0():
    assert answer("name", [], mask(0, 0, 4, 4)).iou == 0.0


def test_no_pixel_on_either_side_of_a_query_that_means_something_scores_0():
    got = answer("name", [mask(0, 0, 0, 0)], mask(0, 0, 0, 0), true=[Box(0, 0, 1, 1)])
    assert got.union == 0
    assert got.iou == 0.0


def test_a_failure_scores_0_and_keeps_its_true_pixels_in_the_sums():
    got = score_failure("name", mask(0, 0, 4, 4), 3.0, unusable=True)
    assert (got.iou, got.intersection, got.union, got.box_hits) == (0.0, 0, 16, 0.0)


def test_an_unusable_reply_to_none_scores_0_too():
    got = score_failure("none", mask(0, 0, 0, 0), 3.0, unusable=True)
    figures = summarize([got])
    assert (figures.giou, figures.refusals_correct, figures.unusable) == (0.0, 0.0, 1.0)
    assert figures.box_acc_50 is None


def test_giou_over_all_weighs_each_kind_the_same():
    figures = summarize([outcome("name", 1.0), outcome("name", 1.0), outcome("many", 0.0)])
    assert figures.giou == 0.5
    assert figures.n == 3


def test_ciou_divides_the_sums():
    figures = summarize([outcome("name", 0.5, 10, 20), outcome("name", 0.0, 0, 80)])
    assert figures.ciou == 0.1


def test_ciou_without_a_single_pixel_is_unknown():
    assert summarize([outcome("none", 1.0)]).ciou is None


def test_no_outcome_gives_no_figures():
    figures = summarize([])
    assert figures.n == 0
    assert figures.giou is None


LEFT, RIGHT = Box(0, 0, 4, 4), Box(6, 0, 10, 4)


@pytest.mark.parametrize(
    ("predicted", "share"),
    [
        pytest.param([LEFT, RIGHT], 1.0, id="both"),
        pytest.param([RIGHT, LEFT], 1.0, id="in any order"),
        pytest.param([LEFT], 0.5, id="one missing"),
        pytest.param([LEFT, LEFT], 0.5, id="the same twice"),
        pytest.param([LEFT, RIGHT, Box(0, 5, 4, 9), Box(5, 5, 9, 9)], 0.5, id="two too many"),
        pytest.param([], 0.0, id="none"),
    ],
)
def test_boxes_are_paired_one_to_one(predicted: list[Box], share: float):
    assert box_hits(predicted, [LEFT, RIGHT]) == share


def test_a_box_counts_from_an_iou_of_one_half():
    assert box_hits([Box(0, 0, 4, 2)], [Box(0, 0, 4, 4)]) == 1.0
    assert box_hits([Box(0, 0, 4, 1.9)], [Box(0, 0, 4, 4)]) == 0.0


def test_giou_over_queries_weighs_each_query_the_same():
    outcomes = [outcome("name", 1.0), outcome("name", 1.0), outcome("many", 0.0)]
    assert summarize(outcomes, OVER_QUERIES).giou == pytest.approx(2 / 3)


def test_points_count_by_their_share_inside_the_mask():
    inside, outside = Point(3.9, 0.0), Point(4.0, 0.0)
    truth = mask(0, 0, 4, 4)
    assert point_hits([inside, outside], truth) == 0.5
    assert point_hits([outside], truth) == 0.0
    assert point_hits([], truth) == 0.0


def test_points_on_ignored_pixels_are_neither_right_nor_wrong():
    truth, ignore = mask(0, 0, 2, 4), mask(2, 0, 4, 4)
    assert point_hits([Point(1, 1), Point(3, 1)], truth, ignore) == 1.0
    assert point_hits([Point(3, 1)], truth, ignore) is None


def test_ignored_pixels_count_in_neither_sum():
    # Truth: the left 2 columns of 4x4. Answer: the left 3 columns. Ignored: the third.
    truth, found, ignored = (np.zeros((4, 4), bool) for _ in range(3))
    truth[:, :2] = found[:, :3] = ignored[:, 2] = True
    box = [Box(0, 0, 2, 4)]
    got = score_answer("long", found[None], truth, box, box, 1.0, ignore=ignored)
    assert (got.intersection, got.union, got.iou) == (8, 8, 1.0)


def test_a_refusal_where_something_is_meant_is_wrong():
    figures = summarize(
        [answer("name", [], mask(0, 0, 4, 4)), answer("none", [], mask(0, 0, 0, 0))]
    )
    assert (figures.refusals_correct, figures.refusals_wrong) == (1.0, 1.0)
