"""The figures of the study's tables, from the kept results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    """A figure and its 95 % interval; None where there is none."""

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
    use = _chosen(cases, TRAINED_KINDS, split)
    return _mean([result.iou for result in trainings.results], cases, use)


def gain(first: Trainings, second: Trainings, cases: Cases, split: str | None = None) -> Estimate:
    """What the second arm gains over the first in gIoU, seeds and pictures resampled.

    Seeds are drawn together where both have the same ones; a baseline has no seed.
    """
    use = _chosen(cases, TRAINED_KINDS, split)
    scores = [_rows([r.iou for r in arm.results], use) for arm in (first, second)]
    paired = len(scores[0]) == len(scores[1])
    pictures, kinds = _groups(cases, use)
    return Estimate(*difference_over_seeds(*scores, pictures, kinds, paired_seeds=paired))


def box_accuracy(trainings: Trainings, cases: Cases) -> Estimate:
    """Share of boxes with IoU 0.5 or more."""
    use = _chosen(cases, TRAINED_KINDS)
    return _mean([result.box_hit for result in trainings.results], cases, use)


def point_accuracy(trainings: Trainings, cases: Cases) -> Estimate:
    """Share of points inside the true mask; an answer without a point has 0."""
    use = _chosen(cases, TRAINED_KINDS)
    rows = [[value or 0.0 for value in result.point_hit] for result in trainings.results]
    return _mean(rows, cases, use)


def refusals(trainings: Trainings, cases: Cases) -> Estimate:
    """Share of empty answers where nothing fits."""
    return _mean([r.refused for r in trainings.results], cases, _chosen(cases, (NONE,)))


def wrong_refusals(trainings: Trainings, cases: Cases) -> Estimate:
    """Share of empty answers where an object is meant."""
    return _mean([r.refused for r in trainings.results], cases, _chosen(cases, TRAINED_KINDS))


def unusable(trainings: Trainings, cases: Cases) -> float:
    """Share of replies that cannot be read, of all cases."""
    return float(np.mean([result.unusable for result in trainings.results]))


def word_accuracy(trainings: Trainings, kind: str | None = None) -> Estimate:
    """Share of right answers to questions of the warm-up that are answered in a word."""
    kinds = trainings.results[0].word_kinds
    use = np.array([kind in (None, other) for other in kinds])
    names = [str(index) for index in np.flatnonzero(use)]
    rows = _rows([result.words for result in trainings.results], use)
    return Estimate(*difference_over_seeds(np.zeros_like(rows), rows, names))


def word_gain(first: Trainings, second: Trainings) -> Estimate:
    """What the second arm has gained over the first in those questions."""
    use = np.ones(len(first.results[0].words), bool)
    names = [str(index) for index in range(len(use))]
    scores = [_rows([r.words for r in arm.results], use) for arm in (first, second)]
    paired = len(scores[0]) == len(scores[1])
    return Estimate(*difference_over_seeds(*scores, names, paired_seeds=paired))


def reward(trainings: Trainings) -> Estimate:
    """Mean reward of the replies drawn to held-out questions."""
    rows = np.array([result.rewards for result in trainings.results])
    pictures = trainings.results[0].rewarded
    return Estimate(*difference_over_seeds(np.zeros_like(rows), rows, pictures))


def reward_rise(first: Trainings, second: Trainings) -> Estimate:
    """What the second arm's reward has gained over the first's, question by question."""
    scores = [np.array([r.rewards for r in arm.results]) for arm in (first, second)]
    paired = len(scores[0]) == len(scores[1])
    pictures = first.results[0].rewarded
    return Estimate(*difference_over_seeds(*scores, pictures, paired_seeds=paired))


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
    return np.array(
        [
            kind in kinds and split in (None, own)
            for kind, own in zip(cases.kinds, cases.splits, strict=True)
        ]
    )


def _groups(cases: Cases, use: NDArray[np.bool_]) -> tuple[list[str], list[str]]:
    """Pictures and kinds of the cases that count."""
    indices = np.flatnonzero(use)
    return [cases.pictures[i] for i in indices], [cases.kinds[i] for i in indices]


def _rows(scores: Sequence[ArrayLike], use: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores of the cases that count: float64 [trainings, n]."""
    return np.array([np.asarray(row, np.float64)[use] for row in scores])


def _mean(scores: Sequence[ArrayLike], cases: Cases, use: NDArray[np.bool_]) -> Estimate:
    rows = _rows(scores, use)
    return Estimate(*difference_over_seeds(np.zeros_like(rows), rows, *_groups(cases, use)))
