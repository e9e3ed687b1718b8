from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.bootstrap import (
    Resampler,
    difference_over_seeds,
    paired_difference,
)


def names(count: int, per_image: int = 1) -> list[str]:
    return [f"image {index // per_image}" for index in range(count)]


def test_the_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        values = rng.normal(0.3, 1.0, 80)
        low, high = Resampler(names(80), resamples=500).interval(values)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 200 <= 0.98


def test_its_width_is_that_of_the_normal_distribution():
    values = np.random.default_rng(2).normal(0.0, 1.0, 1000)
    low, high = Resampler(names(1000)).interval(values)
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.1)


def test_the_same_data_give_the_same_interval():
    values = np.random.default_rng(3).random(30)
    assert Resampler(names(30)).interval(values) == Resampler(names(30)).interval(values)


def test_questions_about_one_image_do_not_narrow_it():
    values = np.random.default_rng(4).random(100)
    alone = Resampler(names(100)).interval(values)
    copied = Resampler(names(600, per_image=6)).interval(np.repeat(values, 6))
    assert copied == pytest.approx(alone)


def test_a_ratio_of_sums_stays_between_its_extremes():
    resampler = Resampler(names(3))
    low, high = resampler.interval([10, 0, 30], [20, 80, 40])
    assert low == pytest.approx(0.0)
    assert high == pytest.approx(0.75)


def test_groups_weigh_the_same_however_large():
    # Ten sure hits of one kind and one sure miss of another, in every image.
    clusters = [f"p{index}" for index in range(4) for _ in range(11)]
    values = ([1.0] * 10 + [0.0]) * 4
    groups = (["hit"] * 10 + ["miss"]) * 4
    assert Resampler(clusters).interval(values, groups=groups) == (0.5, 0.5)


def test_one_image_has_no_interval():
    assert Resampler(names(6, per_image=6)).interval([1.0, 0.0] * 3) is None


def test_images_that_do_not_count_are_no_images():
    assert Resampler(names(3)).interval([1.0, 0.0, 0.0], [1, 0, 0]) is None


def test_the_paired_test_is_symmetric():
    rng = np.random.default_rng(5)
    first, second = rng.random(60), rng.random(60) + 0.05
    there = paired_difference(first, second, names(60, 3))
    back = paired_difference(second, first, names(60, 3))
    assert back.difference == pytest.approx(-there.difference)
    assert back.p_value == there.p_value
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert (there.n, there.pictures) == (60, 20)


def test_a_clear_gain_is_seen_and_none_is_not():
    rng = np.random.default_rng(6)
    first = rng.random(200) * 0.5
    gain = paired_difference(first, first + 0.1 + 0.01 * rng.normal(size=200), names(200))
    assert gain.p_value == pytest.approx(1 / 10_001)
    assert gain.interval[0] > 0
    same = paired_difference(first, first, names(200))
    assert (same.difference, same.p_value) == (0.0, 1.0)


def test_the_p_value_is_that_of_all_sign_flips():
    # Four equal gains: of 16 sign patterns, 2 are as large.
    found = paired_difference([0.0] * 4, [0.1] * 4, names(4), flips=40_000)
    assert found.p_value == pytest.approx(2 / 16, abs=0.01)


def test_the_p_value_is_uniform_without_a_difference():
    rng = np.random.default_rng(7)
    below = 0
    for _ in range(200):
        first, second = rng.random((2, 40))
        below += paired_difference(first, second, names(40), flips=400).p_value <= 0.1
    assert 0.05 <= below / 200 <= 0.16


def test_the_difference_is_the_mean_of_the_kinds_differences():
    found = paired_difference([0, 0, 0], [1, 1, 0], names(3), ["a", "a", "b"])
    assert found.difference == 0.5


def test_seeds_and_cases_are_both_resampled():
    rng = np.random.default_rng(8)
    skill = rng.random(300)
    # The arms differ by 0.1; the seeds of an arm differ far more than the cases.
    first = skill + np.array([[-0.1], [0.0], [0.1]])
    second = skill + 0.1 + np.array([[0.1], [0.0], [-0.1]])
    difference, (low, high) = difference_over_seeds(first, second, names(300))
    assert difference == pytest.approx(0.1)
    assert low == pytest.approx(-0.1, abs=0.02)
    assert high == pytest.approx(0.3, abs=0.02)


def test_one_seed_is_the_bootstrap_over_cases():
    rng = np.random.default_rng(9)
    first, second = rng.random((2, 100))
    difference, interval = difference_over_seeds([first], [second], names(100))
    single = paired_difference(first, second, names(100))
    assert difference == pytest.approx(single.difference)
    assert interval == pytest.approx(single.interval)


def test_unpaired_seeds_may_differ_in_number():
    scores = np.random.default_rng(10).random((5, 20))
    difference, _ = difference_over_seeds(scores[:2], scores[2:], names(20), paired_seeds=False)
    assert difference == pytest.approx(scores[2:].mean() - scores[:2].mean())
    with pytest.raises(ValueError, match="as many trainings"):
        difference_over_seeds(scores[:2], scores[2:], names(20))


def test_scores_of_other_cases_are_refused():
    with pytest.raises(ValueError, match="for 3 cases"):
        difference_over_seeds([[1, 2]], [[1, 2]], names(3))
