"""Matches predicted objects with true ones, one to one, for many samples at once.

Samples with the same numbers of objects are computed together, without padding or loops over
pairs.

Source: VisionReasoner (arXiv:2505.12081) for the pairing; with one object on either side it is the
comparison of Seg-Zero (arXiv:2503.06520).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from segzero_core.prompt import MULTI_OBJECT, SINGLE_OBJECT
from training.rewards.ground_truth import POINTS_OF_FORM, GroundTruth

PAPER_SIDE_PX: Final = 840
"""Side of the square image that the papers' pixel thresholds are meant for."""
HARD_IOU: Final = 0.5
HARD_BOX_L1_PX: Final = 10
HARD_POINT_PX: Final = {SINGLE_OBJECT: 100, MULTI_OBJECT: 30}

# Among matchings of equal sum the one with more IoU, then with nearer boxes, is taken, so that the
# terms do not depend on the order of objects. Too small to outweigh a hit, and exact in binary.
_PREFER_IOU, _PREFER_BOX_L1 = 2.0**-16, 2.0**-26
# Pairs computed at once: their arrays stay in the processor's cache.
_BATCH_PAIRS = 8_192

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MatchRule:
    """How much a pair of a predicted and a true object counts."""

    # `hard` gives 0 or 1 by the thresholds; `soft` the IoU itself, and 1 - distance / side of the
    # image.
    accuracy: Literal["hard", "soft"] = "hard"
    # What the matching maximizes: `box` for IoU and L1 of the boxes, `points` for these.
    parts: tuple[str, ...] = ("box", "points")
    # Whose box the points must lie in: the one of the same `answer`, or that of the `truth` (its
    # mask, where there is one).
    points_within: Literal["answer", "truth"] = "truth"
    point_distance: Literal["l1", "euclidean"] = "l1"  # `l1`, or `euclidean`
    # Added to the sides of boxes: 1 where x_max is the last pixel, not the one after. In the
    # single-object form, boxes that only touch do not overlap all the same.
    border_px: int = 0


class Objects(NamedTuple):
    """The objects of one answer, in pixels of the image the model saw."""

    count: int  # their number P
    boxes: Sequence[float]  # 4 · P numbers
    # 2 · P numbers in the multi-object form, 4 · P in the single-object form; NaN for the points
    # of an object that has another number of them.
    points: Sequence[float]


class Accuracy(NamedTuple):
    """Sums over the pairs of one sample, divided by the larger number of objects; in [0, 1]."""

    box_iou: float
    box_l1: float
    point_l1: float


NOTHING_RIGHT: Final = Accuracy(0.0, 0.0, 0.0)


def match(
    answers: Sequence[Objects | None], truths: Sequence[GroundTruth], rule: MatchRule
) -> list[Accuracy]:
    """Compare each answer with its ground truth, objects matched so that the sum is largest.

    An answer that could not be read is None. The accuracy is 0 where either side has no object.
    """
    alike: dict[tuple[str, int, int], list[int]] = {}
    for index, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
        if answer is not None and answer.count and len(truth):
            alike.setdefault((truth.form, answer.count, len(truth)), []).append(index)
    accuracies = [NOTHING_RIGHT] * len(truths)
    for (form, n_predicted, n_true), indices in alike.items():
        step = max(1, _BATCH_PAIRS // (n_predicted * n_true))
        for batch in (indices[at : at + step] for at in range(0, len(indices), step)):
            predicted = [answers[index] for index in batch]
            matched = _match_batch(predicted, [truths[index] for index in batch], form, rule)
            for index, accuracy in zip(batch, matched, strict=True):
                accuracies[index] = Accuracy(*accuracy)
    return accuracies


def _match_batch(
    answers: Sequence[Any], truths: Sequence[GroundTruth], form: str, rule: MatchRule
) -> list[list[float]]:
    """Return [N][3], the numbers of an `Accuracy` for samples with equally many objects."""
    n_points = POINTS_OF_FORM[form]
    true_objects = [_true_objects(truth, n_points) for truth in truths]
    sizes = np.array([truth.seen_size_wh for truth in truths], np.float64)
    scale = (PAPER_SIDE_PX / sizes).T[:, :, None]  # [2, N, 1]
    boxes, points = _arrays(answers, n_points, scale)
    true_boxes, true_points = _arrays(true_objects, n_points, scale)
    # Predicted objects along one axis and true ones along the next: [..., N, P, 1], [..., N, 1, Q]
    boxes, points = boxes[..., None], points[..., None]
    true_boxes, true_points = true_boxes[:, :, None], true_points[:, :, :, None]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # absurd coordinates
        distances = (
            _box_iou(boxes, true_boxes, rule.border_px, touching=form == MULTI_OBJECT),
            _mean_of_four(np.abs(boxes - true_boxes)),
            _point_distance(points, true_points, rule),
        )
        within = boxes if rule.points_within == "answer" else true_boxes
        before_end = np.less_equal if rule.border_px else np.less
        inside = (points >= within[:2]) & before_end(points, within[2:])
        inside = inside.all(axis=(0, 1))  # all points of a pair
    inside = np.broadcast_to(inside, distances[0].shape)
    if rule.points_within == "truth" and any(truth.masks is not None for truth in truths):
        inside = inside.copy()
        for index, truth in enumerate(truths):
            if truth.masks is not None:
                inside[index] = _in_masks(points[:, :, index, :, 0], truth.masks)
    worth = _worth(*distances, inside, form, rule)
    return _sums_over_pairs(worth, rule.parts)


def _true_objects(truth: GroundTruth, n_points: int) -> Objects:
    points = chain.from_iterable(map(itemgetter(slice(n_points)), truth.points))
    return Objects(
        len(truth),
        list(chain.from_iterable(truth.boxes_xyxy)),
        list(chain.from_iterable(points)),
    )


def _arrays(objects: Sequence[Objects], n_points: int, scale: Floats) -> tuple[Floats, Floats]:
    """Return boxes [4, N, P] and points [K, 2, N, P] in pixels of the papers' square image."""
    n = len(objects)
    boxes = np.array([some.boxes for some in objects], np.float64).reshape(n, -1, 4)
    points = np.array([some.points for some in objects], np.float64).reshape(n, -1, n_points, 2)
    return (
        np.ascontiguousarray(boxes.transpose(2, 0, 1)) * np.concatenate((scale, scale)),
        np.ascontiguousarray(points.transpose(2, 3, 0, 1)) * scale,
    )


def _box_iou(first: Floats, second: Floats, border: float, *, touching: bool) -> Floats:
    """Return IoU [N, P, Q] of boxes [4, N, P, 1] and [4, N, 1, Q], grown by a border [px].

    With `touching`, boxes that overlap only by the border count as overlapping.
    """
    sides = np.minimum(first[2:], second[2:])
    sides -= np.maximum(first[:2], second[:2])
    apart = (sides <= 0).any(axis=0)
    sides += border
    np.maximum(sides, 0.0, out=sides)
    intersection = sides[0] * sides[1]
    if not touching:
        intersection[apart] = 0.0
    areas = [np.prod(boxes[2:] - boxes[:2] + border, axis=0) for boxes in (first, second)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def _mean_of_four(values: Floats) -> Floats:
    return (values[0] + values[1] + values[2] + values[3]) / 4


def _point_distance(first: Floats, second: Floats, rule: MatchRule) -> Floats:
    """Return the mean distance of a pair's points, two points in the better of both orders."""

    def distance(index: int, other: int) -> Floats:
        x, y = first[index] - second[other]
        if rule.point_distance == "l1":
            return np.abs(x) + np.abs(y)
        return np.sqrt(x * x + y * y)

    if len(first) == 1:
        return distance(0, 0)
    straight, crossed = distance(0, 0) + distance(1, 1), distance(0, 1) + distance(1, 0)
    return np.minimum(straight, crossed) / 2


def _in_masks(points: Floats, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return bool [P, Q]: whether all points [K, 2, P] of an object lie in a mask [Q, H, W]."""
    height, width = masks.shape[1:]
    size = np.array((width, height))[:, None, None]
    with np.errstate(invalid="ignore"):  # NaN, and numbers beyond any integer, are outside
        x, y = np.floor(points.transpose(1, 0, 2) * size / PAPER_SIDE_PX)
        in_image = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    row, column = (np.where(in_image, place, 0).astype(np.intp) for place in (y, x))
    hits = masks[:, row, column] & in_image  # [Q, K, P]
    return np.asarray(hits.all(axis=1).T, np.bool_)


def _worth(
    iou: Floats,
    box_l1: Floats,
    point: Floats,
    inside: NDArray[np.bool_],
    form: str,
    rule: MatchRule,
) -> Floats:
    """Return [3, N, P, Q]: how much each pair counts for IoU, L1 of the box, and points."""
    if rule.accuracy == "hard":
        hits = (iou > HARD_IOU, box_l1 < HARD_BOX_L1_PX, inside & (point < HARD_POINT_PX[form]))
        return np.array(hits, np.float64)
    near = [np.clip(1 - distance / PAPER_SIDE_PX, 0.0, 1.0) for distance in (box_l1, point)]
    return np.array((iou, near[0], np.where(inside, near[1], 0.0)))


def _sums_over_pairs(worth: Floats, parts: Sequence[str]) -> list[list[float]]:
    """Match the objects of each sample; return [N][3], sums over pairs by the longer list."""
    weights = np.zeros(worth.shape[1:])
    if "box" in parts:
        weights += (1 + _PREFER_IOU) * worth[0] + (1 + _PREFER_BOX_L1) * worth[1]
    if "points" in parts:
        weights += worth[2]
    pairs = np.array([linear_sum_assignment(block, maximize=True) for block in weights])
    rows, columns = pairs[:, 0], pairs[:, 1]  # [N, min(P, Q)]
    chosen = worth[:, np.arange(len(weights))[:, None], rows, columns]
    shares: list[list[float]] = (chosen.sum(axis=-1).T / max(weights.shape[1:])).tolist()
    return shares
