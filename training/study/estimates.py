"""Estimates for the study's tables, from the kept results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import RESAMPLES, SEED, Interval, difference_over_seeds
from training.study.plan import NONE, TRAINED_KINDS, Arm
from training.study.results import (
    Cases,
    Result,
    load_metrics,
    load_result,
    metrics_path,
    result_path,
)

SEEN, UNSEEN = "train", "test"
WINDOW: Final = 5
"""Steps at either end of a training whose mean reward is compared."""


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval; None where there is none."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Trainings:
    """All trainings of an arm, or the one asking of a baseline.

    Attributes:
        arm: The arm.
        results: One per seed, in the order of the seeds.
        metrics: For each of them the rows of its training.
    """

    arm: Arm
    results: tuple[Result, ...]
    metrics: tuple[list[dict[str, float]], ...]


def load_trainings(folder: Path, arm: Arm) -> Trainings | None:
    """Read what is kept of an arm; None where nothing is."""
    seeds = [seed for seed in arm.seeds if result_path(folder, arm.name, seed).is_file()]
    if not seeds:
        return None
    return Trainings(
        arm,
        tuple(load_result(result_path(folder, arm.name, seed)) for seed in seeds),
        tuple(load_metrics(metrics_path(folder, arm.name, seed)) for seed in seeds),
    )


def giou(trainings: Trainings, cases: Cases, split: str | None = None) -> Estimate:
    """gIoU: the mean over the trained kinds of their means, over all trainings.

    Args:
        trainings: An arm.
        cases: What it was asked.
        split: `SEEN` or `UNSEEN` phrasings and pairs; None is both.
    """
    return _mean(trainings, "iou", cases, TRAINED_KINDS, split)


def gain(first: Trainings, second: Trainings, cases: Cases, split: str | None = None) -> Estimate:
    """What the second arm gains over the first in gIoU, seeds and images resampled."""
    use = _chosen(cases, TRAINED_KINDS, split)
    return _difference(_rows(first, "iou", use), _rows(second, "iou", use), *_groups(cases, use))


def box_accuracy(trainings: Trainings, cases: Cases) -> Estimate:
    """Share of boxes with IoU 0.5 or more."""
    return _mean(trainings, "box_hit", cases, TRAINED_KINDS)


def point_accuracy(trainings: Trainings, cases: Cases) -> Estimate:
    """Share of points inside the true mask; an answer without a point has 0."""
    return _mean(trainings, "point_hit", cases, TRAINED_KINDS)


def refusals(trainings: Trainings, cases: Cases) -> Estimate:
    """Share of empty answers where nothing fits."""
    return _mean(trainings, "refused", cases, (NONE,))


def wrong_refusals(trainings: Trainings, cases: Cases) -> Estimate:
    """Share of empty answers where an object is meant."""
    return _mean(trainings, "refused", cases, TRAINED_KINDS)


def unusable(trainings: Trainings, cases: Cases) -> float:
    """Share of completions that cannot be read, of all cases."""
    return float(np.mean([result.unusable for result in trainings.results]))


def word_accuracy(trainings: Trainings, kind: str | None = None) -> Estimate:
    """Share of right answers to questions of the warm-up that are answered in a word."""
    use = np.array([kind in (None, other) for other in trainings.results[0].word_kinds])
    rows = _rows(trainings, "words", use)
    return _difference(np.zeros_like(rows), rows, list(map(str, np.flatnonzero(use))))


def word_gain(first: Trainings, second: Trainings) -> Estimate:
    """What the second arm has gained over the first in those questions."""
    before, after = _rows(first, "words"), _rows(second, "words")
    return _difference(before, after, list(map(str, range(before.shape[1]))))


def reward(trainings: Trainings) -> Estimate:
    """Mean reward of the completions sampled for held-out questions."""
    rows = _rows(trainings, "rewards")
    return _difference(np.zeros_like(rows), rows, trainings.results[0].rewarded)


def reward_rise(first: Trainings, second: Trainings) -> Estimate:
    """What the second arm's reward has gained over the first's, question by question."""
    rows = _rows(first, "rewards"), _rows(second, "rewards")
    return _difference(*rows, first.results[0].rewarded)


@dataclass(frozen=True)
class Growth:
    """How a quantity of the metrics changed from the first steps of a training to its last.

    Attributes:
        first: Its mean over the first `WINDOW` steps, all trainings.
        last: Its mean over the last `WINDOW` steps.
        rise: Last minus first; its interval is of trainings and of steps within each window.
        steps: Mean number of steps.
    """

    first: float
    last: float
    rise: Estimate
    steps: float


def growth(trainings: Trainings, key: str) -> Growth | None:
    """Compare the ends of all trainings of an arm; None where one is too short."""
    series = [np.array([row[key] for row in rows if key in row]) for rows in trainings.metrics]
    if any(len(values) < 2 * WINDOW for values in series):
        return None
    first = np.array([values[:WINDOW] for values in series])
    last = np.array([values[-WINDOW:] for values in series])
    rng = np.random.default_rng(SEED)
    draws = [_drawn_rise(rng, first, last) for _ in range(RESAMPLES)]
    low, high = np.percentile(draws, (2.5, 97.5))
    rise = Estimate(float(last.mean() - first.mean()), (float(low), float(high)))
    steps = float(np.mean([len(values) for values in series]))
    return Growth(float(first.mean()), float(last.mean()), rise, steps)


def _drawn_rise(
    rng: np.random.Generator, first: NDArray[np.float64], last: NDArray[np.float64]
) -> float:
    seeds = rng.integers(len(first), size=len(first))
    steps = rng.integers(WINDOW, size=(2, len(first), WINDOW))
    before = np.take_along_axis(first[seeds], steps[0], axis=1).mean()
    after = np.take_along_axis(last[seeds], steps[1], axis=1).mean()
    return float(after - before)


def _chosen(cases: Cases, kinds: Sequence[str], split: str | None = None) -> NDArray[np.bool_]:
    """Which cases count: bool [N]."""
    pairs = zip(cases.kinds, cases.splits, strict=True)
    return np.array([kind in kinds and split in (None, own) for kind, own in pairs])


def _groups(cases: Cases, use: NDArray[np.bool_]) -> tuple[list[str], list[str]]:
    """Images and kinds of the cases that count."""
    indices = np.flatnonzero(use)
    return [cases.images[i] for i in indices], [cases.kinds[i] for i in indices]


def _rows(
    trainings: Trainings, name: str, use: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """One column of the results, for the cases that count: float64 [trainings, n]."""
    columns = ([value or 0.0 for value in getattr(r, name)] for r in trainings.results)
    rows = np.array(list(columns), np.float64)
    return rows if use is None else rows[:, use]


def _mean(
    trainings: Trainings, name: str, cases: Cases, kinds: Sequence[str], split: str | None = None
) -> Estimate:
    use = _chosen(cases, kinds, split)
    rows = _rows(trainings, name, use)
    return _difference(np.zeros_like(rows), rows, *_groups(cases, use))


def _difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    images: Sequence[str],
    kinds: Sequence[str] = (),
) -> Estimate:
    """Second minus first. Seeds are drawn together where both arms have them; a baseline has none.

    Args:
        first: float64 [S, n].
        second: float64 [S, n], perhaps with another S.
        images: Name of the image of each case.
        kinds: See `difference_over_seeds`.
    """
    paired = len(first) == len(second)
    return Estimate(*difference_over_seeds(first, second, images, kinds, paired_seeds=paired))
