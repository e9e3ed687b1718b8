"""Confidence intervals by a cluster bootstrap, and a paired test between two models.

Questions about one image are not independent, so images are resampled, each with all of its
questions. `scipy.stats.bootstrap` has neither clusters nor pairs of clusters. A metric is a mean
over groups (the kinds of questions, or one group) of a sum over a sum; a resample weighs the sums
of the images, so 2,000 resamples are two products of matrices.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals; for
the sign-flip test Good, Permutation Tests (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES: Final = 2_000
FLIPS: Final = 10_000
SEED: Final = 0
_ROWS_AT_ONCE = 500
# Sums of the same numbers in another order differ in their last digits.
_ROUNDING = 1e-12

Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval."""


class Resampler:
    """Draws images with replacement, the same way every time.

    There is at least one case, and `clusters` names the image of each.
    """

    def __init__(
        self, clusters: Sequence[str], resamples: int = RESAMPLES, seed: int = SEED
    ) -> None:
        self._clusters = _numbered(clusters, len(clusters))
        self.count = int(self._clusters.max()) + 1  # number of images
        self.rng = np.random.default_rng(seed)  # the generator, after the draws
        # How often each image was drawn: int64 [resamples, images].
        self._weights = self.rng.multinomial(
            self.count, np.full(self.count, 1 / self.count), resamples
        )

    def interval(
        self, tops: ArrayLike, bottoms: ArrayLike | None = None, groups: Sequence[str] = ()
    ) -> Interval | None:
        """Return the interval of a mean over groups of sum(tops) / sum(bottoms).

        There is none with fewer than two images that count: they do not tell how far others lie.

        Args:
            tops: float [N], one per case.
            bottoms: float [N]; 1 each by default, which makes the metric a mean.
            groups: For each case the name of its group; one group by default.
        """
        bottom = np.ones(len(self._clusters)) if bottoms is None else bottoms
        if np.count_nonzero(self.sums(bottom, groups).any(axis=1)) < 2:
            return None
        return _percentiles(self.draws(tops, bottom, groups))

    def draws(
        self, tops: ArrayLike, bottoms: ArrayLike, groups: Sequence[str] = ()
    ) -> NDArray[np.float64]:
        """Return the metric on every resample, float64; NaN where it holds no case that counts."""
        upper, lower = (self._weights @ self.sums(v, groups) for v in (tops, bottoms))
        held = lower > 0
        ratios = np.where(held, upper / np.where(held, lower, 1.0), 0.0)
        n_groups = held.sum(axis=1)
        return np.where(n_groups > 0, ratios.sum(axis=1) / np.maximum(n_groups, 1), np.nan)

    def sums(self, values: ArrayLike, groups: Sequence[str] = ()) -> NDArray[np.float64]:
        """Sum values by image and group: float64 [images, groups]."""
        kinds = _numbered(groups, len(self._clusters))
        n_groups = int(kinds.max()) + 1
        cells = self._clusters * n_groups + kinds
        flat = np.bincount(cells, np.asarray(values, np.float64), self.count * n_groups)
        return flat.reshape(self.count, n_groups)


@dataclass(frozen=True)
class PairedDifference:
    """What a second model gains over a first one on the same cases."""

    difference: float  # second minus first
    interval: Interval | None  # 95 % interval of it; None with fewer than two images
    # Two-sided, of the sign-flip test: how often a difference as large comes about when, image by
    # image, it is chance which model is which.
    p_value: float
    n: int  # number of cases
    # Number of images they are about.
    pictures: int  # the key of `--json`


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
        clusters: For each case the name of its image.
        groups: For each case the name of its kind; the metric is then the mean of their means.
        flips: Draws of the test.
        seed: Of all draws.
    """
    gains = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    resampler = Resampler(clusters, seed=seed)
    sums = resampler.sums(gains, groups)
    cases = np.bincount(_numbered(groups, len(gains)))
    # The gain of each image to the metric: float64 [images]; their sum is the difference.
    shares = (sums / cases / sums.shape[1]).sum(axis=1)
    return PairedDifference(
        difference=float(shares.sum()),
        interval=resampler.interval(gains, groups=groups),
        p_value=_flip_test(shares, flips, seed),
        n=len(gains),
        pictures=resampler.count,
    )


def _flip_test(shares: NDArray[np.float64], flips: int, seed: int) -> float:
    """Two-sided p-value; the observed signs count as one of the draws, so it is never 0."""
    observed = abs(shares.sum()) - _ROUNDING
    rng = np.random.default_rng(seed)
    as_large = 0
    for start in range(0, flips, _ROWS_AT_ONCE):
        rows = min(_ROWS_AT_ONCE, flips - start)
        signs = rng.integers(0, 2, (rows, len(shares)), np.int8) * 2.0 - 1.0
        as_large += int(np.count_nonzero(np.abs(signs @ shares) >= observed))
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

    Seeds and images are both resampled; the cases of both arms are drawn together.

    Args:
        first: float [S, N], a score for each training and case.
        second: float [S, N]; with another number of trainings only if `paired_seeds` is off.
        clusters: For each case the name of its image.
        groups: For each case the name of its kind; the metric is then the mean of their means.
        paired_seeds: Training number i of both arms has the same seed; they are drawn together.
        resamples: How many times.
        seed: Of the draws.

    Returns:
        The mean difference, second minus first, and its 95 % interval; None where there is no
        second image.

    Raises:
        ValueError: The shapes do not fit together.
    """
    arms = [np.atleast_2d(np.asarray(arm, np.float64)) for arm in (first, second)]
    if any(arm.shape[1] != len(clusters) for arm in arms):
        raise ValueError(f"scores {[arm.shape for arm in arms]} for {len(clusters)} cases")
    if paired_seeds and arms[0].shape != arms[1].shape:
        raise ValueError("paired seeds need as many trainings in both arms")
    resampler = Resampler(clusters, resamples, seed)
    ones = np.ones(len(clusters))
    # float64 [S, resamples] each: the metric of each training, and its share in the mean.
    drawn = [np.array([resampler.draws(row, ones, groups) for row in arm]) for arm in arms]
    shares = [
        resampler.rng.multinomial(len(arm), np.full(len(arm), 1 / len(arm)), resamples).T
        / len(arm)
        for arm in arms
    ]
    if paired_seeds:
        shares[1] = shares[0]
    means = [(arm * share).sum(axis=0) for arm, share in zip(drawn, shares, strict=True)]
    kinds = _numbered(groups, len(clusters))
    cases = np.bincount(kinds)
    totals = [np.mean([(np.bincount(kinds, row) / cases).mean() for row in arm]) for arm in arms]
    interval = _percentiles(means[1] - means[0]) if resampler.count > 1 else None
    return float(totals[1] - totals[0]), interval


def _numbered(names: Sequence[str], count: int) -> NDArray[np.int64]:
    """Number names in order of their first appearance; all 0 where there are no names."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names] or [0] * count, np.int64)


def _percentiles(draws: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(draws[np.isfinite(draws)], (2.5, 97.5))
    return float(low), float(high)
