"""Composes a scene on a stage: fixtures, objects beside, between, on and in one another.

Places are tried until the footprints leave room; then physics settles everything, and what fell
off or still rolls is taken away.
"""

from __future__ import annotations

import numpy as np

from worlds.common.simulator import mujoco
from worlds.libero.composition.fixtures import choose_fixtures, place_fixture
from worlds.libero.composition.movables import MIN_MOVABLES, choose_movables, place_movable
from worlds.libero.composition.pools import Pool
from worlds.libero.composition.settling import settle, take_away_what_failed
from worlds.libero.composition.workbench import Layout, Workbench
from worlds.libero.simulation.pool_objects import PoolObject
from worlds.libero.simulation.stage import Stage


def compose(rng: np.random.Generator, stage: Stage, pool: Pool) -> Layout | None:
    """Make a scene on the stage, settled; None where too little of it held.

    Args:
        rng: Where chance comes from.
        stage: Is reset first.
        pool: What the stage was built from.
    """
    stage.reset()
    work = Workbench(rng, stage)
    for obj in choose_fixtures(rng, stage):
        place_fixture(work, obj)
    mujoco.mj_forward(stage.model, stage.data)
    for obj in choose_movables(rng, stage, pool):
        place_movable(work, obj)
    if len(_movables(work.layout)) < MIN_MOVABLES:
        return None
    settle(stage)
    take_away_what_failed(stage, work.layout)
    if len(_movables(work.layout)) < MIN_MOVABLES:
        return None
    return work.layout


def _movables(layout: Layout) -> list[PoolObject]:
    return [obj for obj in layout.objects if not obj.fixed]
