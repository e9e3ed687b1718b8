"""Composes a scene on a stage: fixtures, things beside, between, on and in one another.

Places are tried until the footprints leave room; then physics settles everything, and what fell
off or still rolls is taken away.
"""

from __future__ import annotations

import numpy as np

from worlds.libero.fixtures import choose_fixtures, place_fixture
from worlds.libero.movables import MIN_THINGS, choose_movables, place_movable
from worlds.libero.pools import Pool
from worlds.libero.settling import settle, take_away_what_failed
from worlds.libero.stage import Piece, Stage
from worlds.libero.workbench import Layout, Workbench
from worlds.tabletop.simulator import mujoco


def compose(rng: np.random.Generator, stage: Stage, pool: Pool) -> Layout | None:
    """Make a scene on the stage, settled; None where too little of it held.

    Args:
        rng: Where chance comes from.
        stage: Is reset first.
        pool: What the stage was built from.
    """
    stage.reset()
    work = Workbench(rng, stage)
    for piece in choose_fixtures(rng, stage):
        place_fixture(work, piece)
    mujoco.mj_forward(stage.model, stage.data)
    for piece in choose_movables(rng, stage, pool):
        place_movable(work, piece)
    if len(_movables(work.layout)) < MIN_THINGS:
        return None
    settle(stage)
    take_away_what_failed(stage, work.layout)
    if len(_movables(work.layout)) < MIN_THINGS:
        return None
    return work.layout


def _movables(layout: Layout) -> list[Piece]:
    return [piece for piece in layout.pieces if not piece.fixed]
