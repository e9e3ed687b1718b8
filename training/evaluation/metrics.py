"""Scores answers: the one implementation for evaluation, rewards and studies.

The rules: the IoU of a query is that of the union of the predicted masks with the union of the
true ones. Where nothing fits (`none`), an empty answer scores 1 and any mask 0. An unusable
completion scores 0 and stays in the count. `IGNORE_POLICIES` lists how pixels count that an
annotation wants ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.geometry import box_iou
from segzero_core.types import Box, Point

NONE = "none"
BOX_HIT_IOU = 0.5

LISA: Final = "lisa"
REFERENCE: Final = "reference"
IGNORE_POLICIES: Final = (LISA, REFERENCE)
"""Ignored pixels count nowhere | they belong to the object, as in the reference's ReasonSeg."""

OVER_KINDS: Final = "mean of the kinds' means"
OVER_QUERIES: Final = "mean of the queries"
"""How `giou` is averaged over several kinds of queries."""


@dataclass(frozen=True)
class Outcome:
    """The score of one query.

    Attributes:
        kind: The kind of the query.
        iou: Its score in [0, 1].
        intersection: Pixels that are both predicted and true.
        union: Pixels that are either.
        box_hits: Share of boxes that are right; None where no object is meant.
        unusable: No answer could be read from the completion.
        refused: The answer was "nothing fits".
        ms: Time the answer took [ms].
        point_hits: Share of points inside the true mask; None where no object is meant, or where
            all points lie on ignored pixels.
    """

    kind: str
    iou: float
    intersection: int
    union: int
    box_hits: float | None
    unusable: bool
    refused: bool
    ms: float
    point_hits: float | None = None


@dataclass(frozen=True)
class Summary:
    """The metrics of a set of queries; None where no query counts for a metric.

    Attributes:
        giou: Mean score of a kind's queries; over several kinds, averaged as `summarize` says.
        ciou: Summed intersections over summed unions.
        box_acc_50: Mean share of right boxes, over the queries that mean something.
        point_in_mask: Mean share of points inside the true mask, over the same queries.
        unusable: Share of queries without a usable completion.
        refusals_correct: Share of the `none` queries that were refused.
        refusals_wrong: Share of the other queries that were refused.
        n: Number of queries, failures included.
        ms: Mean time of a query [ms].
    """

    giou: float | None
    ciou: float | None
    box_acc_50: float | None
    point_in_mask: float | None
    unusable: float | None
    refusals_correct: float | None
    refusals_wrong: float | None
    n: int
    ms: float | None


def score_answer(
    kind: str,
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    predicted_boxes: Sequence[Box],
    true_boxes: Sequence[Box],
    ms: float,
    *,
    points: Sequence[Point] = (),
    ignore: NDArray[np.bool_] | None = None,
) -> Outcome:
    """Score a usable answer.

    Args:
        kind: The kind of the query.
        predicted: bool [N, H, W], one mask per answered object; none means that nothing fits.
        truth: bool [H, W], all meant objects together.
        predicted_boxes: The reasoner's boxes, in pixels of the image.
        true_boxes: Those of the meant objects; none where nothing fits.
        ms: Time the answer took [ms].
        points: The reasoner's points, in pixels of the image.
        ignore: bool [H, W], pixels that count nowhere; none of them is in `truth`.
    """
    found = predicted.any(axis=0) if len(predicted) else np.zeros_like(truth)
    if ignore is not None:
        found = found & ~ignore
    intersection = int(np.count_nonzero(found & truth))
    union = int(np.count_nonzero(found | truth))
    refused = len(predicted) == 0
    # Without a single pixel on either side, nothing was found of what is there.
    overlap = intersection / union if union else 0.0
    meant = bool(true_boxes)
    return Outcome(
        kind=kind,
        iou=overlap if meant else float(refused),
        intersection=intersection,
        union=union,
        box_hits=box_hits(predicted_boxes, true_boxes) if meant else None,
        unusable=False,
        refused=refused,
        ms=ms,
        point_hits=point_hits(points, truth, ignore) if meant else None,
    )


def score_failure(kind: str, truth: NDArray[np.bool_], ms: float, *, unusable: bool) -> Outcome:
    """Score a query that got no answer: 0, and its true pixels stay in the sums.

    Args:
        kind: The kind of the query.
        truth: bool [H, W], all meant objects together.
        ms: Time until it failed [ms].
        unusable: The completion could not be read, rather than another part having failed.
    """
    hits = None if kind == NONE else 0.0
    area = int(np.count_nonzero(truth))
    return Outcome(
        kind, 0.0, 0, area, hits, unusable=unusable, refused=False, ms=ms, point_hits=hits
    )


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


def point_hits(
    points: Sequence[Point], truth: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None
) -> float | None:
    """Share of points inside the true mask; without any point 0, of ignored ones alone None.

    Args:
        points: In pixels of the image.
        truth: bool [H, W], all meant objects together.
        ignore: bool [H, W], where points are neither right nor wrong.

    Source: Seg-Zero (arXiv:2503.06520), table 11.
    """
    if not points:
        return 0.0
    height, width = truth.shape
    columns = np.clip([int(point.x) for point in points], 0, width - 1)
    rows = np.clip([int(point.y) for point in points], 0, height - 1)
    hits = truth[rows, columns]
    if ignore is not None:
        hits = hits[~ignore[rows, columns]]
    return float(hits.mean()) if len(hits) else None


def by_kind(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Sort outcomes by the kind of their query, kinds in order of their first appearance."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.kind, []).append(outcome)
    return kinds


def summarize(outcomes: Sequence[Outcome], averaging: str = OVER_KINDS) -> Summary:
    """Summarize outcomes.

    Args:
        outcomes: One per query.
        averaging: `OVER_KINDS` gives each kind of query the same weight in `giou`, as on rendered
            scenes; `OVER_QUERIES` gives it to each query, as the public benchmarks do.
    """
    groups = by_kind(outcomes).values() if averaging == OVER_KINDS else [outcomes]
    kind_means = [_mean([o.iou for o in group]) for group in groups]
    union = sum(o.union for o in outcomes)
    return Summary(
        giou=_mean([mean for mean in kind_means if mean is not None]),
        ciou=sum(o.intersection for o in outcomes) / union if union else None,
        box_acc_50=_mean([o.box_hits for o in outcomes if o.box_hits is not None]),
        point_in_mask=_mean([o.point_hits for o in outcomes if o.point_hits is not None]),
        unusable=_mean([float(o.unusable) for o in outcomes]),
        refusals_correct=_mean([float(o.refused) for o in outcomes if o.kind == NONE]),
        refusals_wrong=_mean([float(o.refused) for o in outcomes if o.kind != NONE]),
        n=len(outcomes),
        ms=_mean([o.ms for o in outcomes]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
