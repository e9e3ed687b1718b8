"""Scores answers, for evaluation, rewards and studies alike.

The rules: the IoU of a query is that of the union of the predicted masks with the union of the
true ones. Where nothing fits (`none`), an empty answer scores 1 and any mask 0. An unusable
completion scores 0 and stays in the count. `IGNORE_POLICIES` lists how pixels count that an
annotation wants ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """The score of one query."""

    kind: str  # of the query
    iou: float  # the score, in [0, 1]
    intersection: int  # pixels that are both predicted and true
    union: int  # pixels that are either
    box_hits: float | None  # share of right boxes; None where no object is meant
    unusable: bool  # no answer could be read from the completion
    refused: bool  # the answer was "nothing fits"
    ms: float  # time the answer took [ms]
    # Share of points inside the true mask; None where no object is meant, or where all points lie
    # on ignored pixels.
    point_hits: float | None = None


@dataclass(frozen=True)
class Summary:
    """The metrics of a set of queries; None where no query counts for a metric."""

    giou: float | None  # mean score, averaged as `summarize` says
    ciou: float | None  # summed intersections over summed unions
    box_acc_50: float | None  # mean share of right boxes, over the queries that mean something
    point_in_mask: float | None  # mean share of points inside the true mask, over the same
    unusable: float | None  # share of queries without a usable completion
    refusals_correct: float | None  # share of the `none` queries that were refused
    refusals_wrong: float | None  # share of the other queries that were refused
    n: int  # number of queries, failures included
    ms: float | None  # mean time of a query [ms]


MEANS: Final[dict[str, Callable[[Outcome], float | None]]] = {
    "giou": lambda o: o.iou,
    "box_acc_50": lambda o: o.box_hits,
    "point_in_mask": lambda o: o.point_hits,
    "unusable": lambda o: float(o.unusable),
    "refusals_correct": lambda o: float(o.refused) if o.kind == NONE else None,
    "refusals_wrong": lambda o: float(o.refused) if o.kind != NONE else None,
}
"""The metrics that are means: the value of one query, or None where it does not count."""


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

    `unusable` says that the completion could not be read, rather than that another part failed.
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

    Points are in pixels of the image. `truth` and `ignore` are bool [H, W]; points on ignored
    pixels are neither right nor wrong.

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


def summarize(outcomes: Sequence[Outcome], averaging: str = OVER_KINDS) -> Summary:
    """Summarize the outcomes of queries.

    By `OVER_KINDS` each kind of query has the same weight in `giou`, as on rendered scenes; by
    `OVER_QUERIES` each query, as in the public benchmarks.
    """
    means = {key: _mean([value(o) for o in outcomes]) for key, value in MEANS.items()}
    if averaging == OVER_KINDS:
        kinds = dict.fromkeys(o.kind for o in outcomes)
        means["giou"] = _mean([_mean([o.iou for o in outcomes if o.kind == k]) for k in kinds])
    union = sum(o.union for o in outcomes)
    return Summary(
        **means,
        ciou=sum(o.intersection for o in outcomes) / union if union else None,
        n=len(outcomes),
        ms=_mean([o.ms for o in outcomes]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
