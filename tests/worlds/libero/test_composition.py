"""Pools and footprints: what a scene is composed of, without a simulation."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from worlds.common.scene import TRAINING_SEEDS_END, VALIDATION_SEEDS_END, split_of_seed
from worlds.libero.composition.footprint import Footprint, gap_m, placed
from worlds.libero.composition.pools import (
    BLOCK,
    MOVABLE_CLASSES,
    POOL_SIZE,
    TEST_BLOCK,
    block_of_seed,
    sample_pool,
)
from worlds.libero.object_classes import FIXTURE_KINDS, OBJECT_CLASSES
from worlds.libero.simulation.arenas import ARENAS


def test_a_block_never_crosses_a_split() -> None:
    for end in (TRAINING_SEEDS_END, VALIDATION_SEEDS_END):
        assert end % BLOCK == 0
        assert block_of_seed(end - 1) != block_of_seed(end)
        assert split_of_seed(end - 1) != split_of_seed(end)


def test_blocks_of_the_splits_are_not_the_same() -> None:
    last = block_of_seed(TRAINING_SEEDS_END - 1)

    assert last < block_of_seed(TRAINING_SEEDS_END)
    blocks = {block_of_seed(VALIDATION_SEEDS_END + i) for i in range(300)}
    assert len(blocks) == 300 / TEST_BLOCK


def test_a_pool_depends_on_its_block_alone() -> None:
    assert sample_pool(5) == sample_pool(5)
    assert sample_pool(5) != sample_pool(6)


def test_all_classes_and_arenas_come_up() -> None:
    pools = [sample_pool(block) for block in range(200)]

    assert len(MOVABLE_CLASSES) == 41
    assert {kind for pool in pools for kind in pool.movables} == set(MOVABLE_CLASSES)
    assert {kind for pool in pools for kind in pool.fixtures} == set(FIXTURE_KINDS)
    assert {pool.arena for pool in pools} == set(ARENAS)
    assert set(OBJECT_CLASSES) == {*MOVABLE_CLASSES, *FIXTURE_KINDS}
    assert all(len(pool.movables) == POOL_SIZE for pool in pools)
    assert all(max(Counter(pool.movables).values()) > 1 for pool in pools)


@pytest.mark.parametrize(
    ("other", "gap"),
    [
        pytest.param(Footprint(0.3, 0.0, 0.1, 0.1, 0.0), 0.1, id="beside"),
        pytest.param(Footprint(0.0, 0.15, 0.1, 0.1, 0.0), -0.05, id="overlapping"),
        pytest.param(
            Footprint(0.3, 0.0, 0.1, 0.1, math.pi / 4), 0.2 - 0.1 * math.sqrt(2), id="turned"
        ),
    ],
)
def test_gaps_of_rectangles(other: Footprint, gap: float) -> None:
    one = Footprint(0.0, 0.0, 0.1, 0.1, 0.0)

    assert gap_m(one, other) == pytest.approx(gap)
    assert gap_m(other, one) == pytest.approx(gap)


def test_a_footprint_turns_about_the_objects_origin() -> None:
    low, high = np.array([0.0, -0.1, 0.0]), np.array([0.4, 0.1, 0.2])

    turned = placed(low, high, 1.0, 2.0, math.pi / 2)

    assert (turned.x_m, turned.y_m) == pytest.approx((1.0, 2.2))
    assert turned.corners().min(axis=0) == pytest.approx((0.9, 2.0))
    assert turned.corners().max(axis=0) == pytest.approx((1.1, 2.4))
