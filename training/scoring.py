"""How answers are scored: the one code path for evaluation, rewards and studies.

The rules: the IoU of a query is that of the union of the predicted masks with the union of the
true ones. Where nothing fits (`none`), an empty answer scores 1 and any mask 0. An unusable reply
scores 0 and stays in the count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segzero_core.geometry import box_iou
from segzero_core.types import Box

NONE = "none"
BOX_HIT_IOU = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of one query.

    Attributes:
        kind: The kind of the query.
        iou: Its score in [0, 1].
        intersection: Pixels that are both predicted and true.
        union: Pixels that are either.
        box_hits: Share of boxes that are right; None where no object is meant.
        unusable: No answer could be read from the reply.
        refused: The answer was "nothing fits".
        ms: Time the answer took [ms].
    """

    kind: str
    iou: float
    intersection: int
    union: int
    box_hits: float | None
    unusable: bool
    refused: bool
    ms: float


@dataclass(frozen=True)
class Summary:
    """The figures of a set of queries; None where a figure has no query to stand on.

    Attributes:
        giou: Mean score of a kind's queries; over all kinds, the mean of their means.
        ciou: Summed intersections over summed unions.
        box_acc_50: Mean share of right boxes, over the queries that mean something.
        unusable: Share of queries without a usable reply.
        refusals_correct: Share of the `none` queries that were refused.
        n: Number of queries, failures included.
        ms: Mean time of a query [ms].
    """

    giou: float | None
    ciou: float | None
    box_acc_50: float | None
    unusable: float | None
    refusals_correct: float | None
    n: int
    ms: float | None


def score_answer(
    kind: str,
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    predicted_boxes: Sequence[Box],
    true_boxes: Sequence[Box],
    ms: float,
) -> Outcome:
    """Score a usable answer.

    Args:
        kind: The kind of the query.
        predicted: bool [N, H, W], one mask per answered object; none means that nothing fits.
        truth: bool [H, W], all meant objects together.
        predicted_boxes: The reasoner's boxes, in pixels of the image.
        true_boxes: Those of the meant objects; none where nothing fits.
        ms: Time the answer took [ms].
    """
    union_mask = predicted.any(axis=0) if len(predicted) else np.zeros_like(truth)
    intersection = int(np.count_nonzero(union_mask & truth))
    union = int(np.count_nonzero(union_mask | truth))
    refused = len(predicted) == 0
    # Without a single pixel on either side, nothing was found of what is there.
    overlap = intersection / union if union else 0.0
    iou = overlap if true_boxes else float(refused)
    hits = box_hits(predicted_boxes, true_boxes) if true_boxes else None
    return Outcome(kind, iou, intersection, union, hits, unusable=False, refused=refused, ms=ms)


def score_failure(kind: str, truth: NDArray[np.bool_], ms: float, *, unusable: bool) -> Outcome:
    """Score a query that got no answer: 0, and its true pixels stay in the sums.

    Args:
        kind: The kind of the query.
        truth: bool [H, W], all meant objects together.
        ms: Time until it failed [ms].
        unusable: The reply could not be read, rather than something else having failed.
    """
    hits = None if kind == NONE else 0.0
    area = int(np.count_nonzero(truth))
    return Outcome(kind, 0.0, 0, area, hits, unusable=unusable, refused=False, ms=ms)


def box_hits(predicted: Sequence[Box], true: Sequence[Box]) -> float:
    """Share of right boxes: pairs with IoU of 0.5 or more, over the longer of the two lists.

    Each box is used once, best pairs first. One box for one object gives 0 or 1; a missing box and
    one too many both count against the answer.
    """
    if not predicted or not true:
        return 0.0 if predicted or true else 1.0
    overlaps = np.array([[box_iou(p, t) for t in true] for p in predicted])
    hits = 0
    while overlaps.max() >= BOX_HIT_IOU:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        overlaps[row, :] = -1.0
        overlaps[:, column] = -1.0
        hits += 1
    return hits / max(len(predicted), len(true))


def by_kind(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Sort outcomes by the kind of their query, kinds in order of their first appearance."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.kind, []).append(outcome)
    return kinds


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Put the figures of outcomes together, each kind of query with the same weight in `giou`."""
    kind_means = [_mean([o.iou for o in group]) for group in by_kind(outcomes).values()]
    union = sum(o.union for o in outcomes)
    return Summary(
        giou=_mean([mean for mean in kind_means if mean is not None]),
        ciou=sum(o.intersection for o in outcomes) / union if union else None,
        box_acc_50=_mean([o.box_hits for o in outcomes if o.box_hits is not None]),
        unusable=_mean([float(o.unusable) for o in outcomes]),
        refusals_correct=_mean([float(o.refused) for o in outcomes if o.kind == NONE]),
        n=len(outcomes),
        ms=_mean([o.ms for o in outcomes]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
