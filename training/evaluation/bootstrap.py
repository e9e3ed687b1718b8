"""How sure a figure is: bootstrap intervals, and a paired test between two models.

What is asked about one picture is not independent, so pictures are resampled, each with all of its
questions (a cluster bootstrap). Every figure is a mean over groups (the kinds of questions, or one
group) of a sum over a sum; a resample weighs the pictures' sums, which makes 2,000 of them two
products of matrices.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals; for
the sign-flip test Good, Permutation Tests (2000).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES: Final = 2_000
FLIPS: Final = 10_000
SEED: Final = 0
_PERCENTILES = (2.5, 97.5)
_ROWS_AT_ONCE = 500
# Sums of the same numbers in another order differ in their last digits.
_ROUNDING = 1e-12

Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval."""


class Resampler:
    """Draws pictures with replacement, the same way every time.

    Args:
        clusters: For each case the name of its picture; at least one.
        resamples: How many times.
        seed: Of the draws.
    """

    def __init__(
        self, clusters: Sequence[str], resamples: int = RESAMPLES, seed: int = SEED
    ) -> None:
        self._clusters = _numbered(clusters)
        count = int(self._clusters.max()) + 1
        self._count = count
        rng = np.random.default_rng(seed)
        # How often each picture was drawn: int64 [resamples, pictures].
        self._weights = rng.multinomial(count, np.full(count, 1 / count), resamples)

    def interval(
        self, tops: ArrayLike, bottoms: ArrayLike | None = None, groups: Sequence[str] = ()
    ) -> Interval | None:
        """Return the interval of a mean over groups of sum(tops) / sum(bottoms).

        Args:
            tops: float [N], one per case.
            bottoms: float [N]; 1 each by default, which makes the figure a mean.
            groups: For each case the name of its group; one group by default.

        Returns:
            None with fewer than two pictures that count: they do not tell how far others lie.
        """
        top = np.asarray(tops, np.float64)
        bottom = np.ones_like(top) if bottoms is None else np.asarray(bottoms, np.float64)
        kinds = _numbered(groups) if len(groups) else np.zeros(len(top), np.int64)
        upper, lower = (
            _sums(values, self._clusters, kinds, self._count) for values in (top, bottom)
        )
        if np.count_nonzero(lower.any(axis=1)) < 2:
            return None
        return _percentiles(_mean_of_ratios(self._weights @ upper, self._weights @ lower))


@dataclass(frozen=True)
class PairedDifference:
    """What a second model gains over a first one on the same cases.

    Attributes:
        difference: Second minus first.
        interval: 95 % interval of it; None with fewer than two pictures.
        p_value: Two-sided, of the sign-flip test: how often a difference as large comes about
            when, picture by picture, it is chance which model is which.
        n: Number of cases.
        pictures: Number of pictures they are about.
    """

    difference: float
    interval: Interval | None
    p_value: float
    n: int
    pictures: int


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Sequence[str],
    groups: Sequence[str] = (),
    *,
    flips: int = FLIPS,
    seed: int = SEED,
) -> PairedDifference:
    """Compare the scores of two models on the same cases.

    Args:
        first: float [N], one score per case.
        second: float [N].
        clusters: For each case the name of its picture.
        groups: For each case the name of its kind; the figure is then the mean of their means.
        flips: Draws of the test.
        seed: Of all draws.
    """
    gains = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    pictures = _numbered(clusters)
    kinds = _numbered(groups) if len(groups) else np.zeros(len(gains), np.int64)
    count = int(pictures.max()) + 1
    sums = _sums(gains, pictures, kinds, count)
    # The gain of each picture to the figure: float64 [pictures]; their sum is the difference.
    shares = (sums / np.bincount(kinds) / sums.shape[1]).sum(axis=1)
    return PairedDifference(
        difference=float(shares.sum()),
        interval=Resampler(clusters, seed=seed).interval(gains, groups=groups),
        p_value=_flip_test(shares, flips, seed),
        n=len(gains),
        pictures=count,
    )


def _flip_test(shares: NDArray[np.float64], flips: int, seed: int) -> float:
    """Two-sided p-value; what was seen counts as one of the draws, so that it is never 0."""
    seen = abs(shares.sum()) - _ROUNDING
    rng = np.random.default_rng(seed)
    as_large = 0
    for rows in _chunks(flips):
        signs = rng.integers(0, 2, (rows, len(shares)), np.int8) * 2.0 - 1.0
        as_large += int(np.count_nonzero(np.abs(signs @ shares) >= seen))
    return (1 + as_large) / (1 + flips)


def difference_over_seeds(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Sequence[str],
    groups: Sequence[str] = (),
    *,
    paired_seeds: bool = True,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, Interval | None]:
    """Compare two arms of a study that were each trained several times.

    Seeds and pictures are both resampled; the cases of both arms are drawn together.

    Args:
        first: float [S, N], a score for each training and case.
        second: float [S, N]; with another number of trainings only if `paired_seeds` is off.
        clusters: For each case the name of its picture.
        groups: For each case the name of its kind; the figure is then the mean of their means.
        paired_seeds: Training number i of both arms has the same seed; they are drawn together.
        resamples: How many times.
        seed: Of the draws.

    Returns:
        The mean difference, second minus first, and its 95 % interval; None where there is no
        second picture.

    Raises:
        ValueError: The shapes do not fit together.
    """
    arms = [np.atleast_2d(np.asarray(arm, np.float64)) for arm in (first, second)]
    if any(arm.shape[1] != len(clusters) for arm in arms):
        raise ValueError(f"scores {[arm.shape for arm in arms]} for {len(clusters)} cases")
    if paired_seeds and arms[0].shape != arms[1].shape:
        raise ValueError("paired seeds need as many trainings in both arms")
    pictures = _numbered(clusters)
    kinds = _numbered(groups) if len(groups) else np.zeros(len(clusters), np.int64)
    count = int(pictures.max()) + 1
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), resamples)
    # float64 [S, resamples]: the figure of each training on each draw of pictures.
    lower = weights @ _sums(np.ones(len(clusters)), pictures, kinds, count)
    drawn = [
        np.array([_mean_of_ratios(weights @ _sums(s, pictures, kinds, count), lower) for s in arm])
        for arm in arms
    ]
    draws = [_draw_seeds(rng, len(arm), resamples) for arm in arms]
    if paired_seeds:
        draws[1] = draws[0]
    means = [(arm * draw).sum(axis=0) for arm, draw in zip(drawn, draws, strict=True)]
    totals = [np.mean([_figure(scores, kinds) for scores in arm]) for arm in arms]
    difference = float(totals[1] - totals[0])
    return difference, _percentiles(means[1] - means[0]) if count > 1 else None


def _draw_seeds(rng: np.random.Generator, seeds: int, resamples: int) -> NDArray[np.float64]:
    """Return the share of each training in each resample: float64 [S, resamples]."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).T / seeds


def _figure(scores: NDArray[np.float64], kinds: NDArray[np.int64]) -> float:
    return float((np.bincount(kinds, scores) / np.bincount(kinds)).mean())


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Number names in order of their first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _sums(
    values: NDArray[np.float64],
    clusters: NDArray[np.int64],
    groups: NDArray[np.int64],
    n_clusters: int,
) -> NDArray[np.float64]:
    """Sum values by cluster and group: float64 [C, K]."""
    n_groups = int(groups.max()) + 1
    flat = np.bincount(clusters * n_groups + groups, values, n_clusters * n_groups)
    return flat.reshape(n_clusters, n_groups)


def _mean_of_ratios(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the groups that a draw holds, of [B, K]; NaN where it holds none."""
    held = lower > 0
    ratios = np.where(held, upper / np.where(held, lower, 1.0), 0.0)
    groups = held.sum(axis=1)
    return np.where(groups > 0, ratios.sum(axis=1) / np.maximum(groups, 1), np.nan)


def _percentiles(figures: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(figures[np.isfinite(figures)], _PERCENTILES)
    return float(low), float(high)


def _chunks(total: int) -> Iterator[int]:
    for start in range(0, total, _ROWS_AT_ONCE):
        yield min(_ROWS_AT_ONCE, total - start)
