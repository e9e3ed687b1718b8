"""Estimates for the study's tables, from the kept results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import RESAMPLES, SEED, Interval, difference_over_seeds
from training.study.plan import TRAINED_KINDS, Arm
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
    """All trainings of an arm, or the one evaluation of a baseline."""

    arm: Arm  # the arm
    results: tuple[Result, ...]  # one per seed, in the order of the seeds
    metrics: tuple[list[dict[str, float]], ...]  # for each of them the rows of its training


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


def metric(
    trainings: Trainings,
    column: str,
    cases: Cases,
    kinds: Sequence[str] = TRAINED_KINDS,
    split: str | None = None,
    over: Trainings | None = None,
) -> Estimate:
    """Average a column of the results: the mean over the kinds of their means.

    The column is `iou`, `box_hit`, `point_hit` or `refused`. Only cases of these kinds and this
    split count: `SEEN` or `UNSEEN` phrasings and pairs, or both. With `over`, the result is the
    gain over that arm; seeds and images are resampled.
    """
    pairs = zip(cases.kinds, cases.splits, strict=True)
    use = np.flatnonzero([kind in kinds and split in (None, own) for kind, own in pairs])
    images, used_kinds = ([names[i] for i in use] for names in (cases.images, cases.kinds))
    return _gain(over, trainings, column, use, images, used_kinds)


def words(
    trainings: Trainings, kind: str | None = None, over: Trainings | None = None
) -> Estimate:
    """Share of right answers to the warm-up's questions in words, or the gain over another arm."""
    use = np.flatnonzero([kind in (None, other) for other in trainings.results[0].word_kinds])
    return _gain(over, trainings, "words", use, list(map(str, use)))


def reward(trainings: Trainings, over: Trainings | None = None) -> Estimate:
    """Mean reward of the completions sampled for held-out questions, or the gain in it."""
    rewarded = trainings.results[0].rewarded
    return _gain(over, trainings, "rewards", np.arange(len(rewarded)), rewarded)


@dataclass(frozen=True)
class Growth:
    """How a quantity of the metrics changed from the first steps of a training to its last."""

    first: float  # its mean over the first `WINDOW` steps, all trainings
    last: float  # its mean over the last `WINDOW` steps
    # Last minus first; its interval is of trainings and of steps within each window.
    rise: Estimate
    steps: float  # mean number of steps


def growth(trainings: Trainings, key: str) -> Growth | None:
    """Compare the ends of all trainings of an arm; None where one is too short."""
    series = [np.array([row[key] for row in rows if key in row]) for rows in trainings.metrics]
    if any(len(values) < 2 * WINDOW for values in series):
        return None
    first = np.array([values[:WINDOW] for values in series])
    last = np.array([values[-WINDOW:] for values in series])
    rng = np.random.default_rng(SEED)
    draws = []
    for _ in range(RESAMPLES):
        seeds = rng.integers(len(first), size=len(first))
        steps = rng.integers(WINDOW, size=(2, len(first), WINDOW))
        before = np.take_along_axis(first[seeds], steps[0], axis=1).mean()
        draws.append(np.take_along_axis(last[seeds], steps[1], axis=1).mean() - before)
    low, high = np.percentile(draws, (2.5, 97.5))
    rise = Estimate(float(last.mean() - first.mean()), (float(low), float(high)))
    count = float(np.mean([len(values) for values in series]))
    return Growth(float(first.mean()), float(last.mean()), rise, count)


def _gain(
    first: Trainings | None,
    second: Trainings,
    column: str,
    use: NDArray[np.int64],
    images: Sequence[str],
    kinds: Sequence[str] = (),
) -> Estimate:
    """Second minus first, or the second where there is no first; see `difference_over_seeds`.

    Only the cases in `use` count; `images` and `kinds` have a name for each of those. Seeds are
    drawn together where both arms have as many; a baseline has one.
    """

    def rows(trainings: Trainings) -> NDArray[np.float64]:
        columns = [[value or 0.0 for value in getattr(r, column)] for r in trainings.results]
        return np.array(columns, np.float64)[:, use]

    after = rows(second)
    before = np.zeros_like(after) if first is None else rows(first)
    paired = len(before) == len(after)
    return Estimate(*difference_over_seeds(before, after, images, kinds, paired_seeds=paired))
