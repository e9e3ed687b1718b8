"""Lets physics settle a scene, and takes away what did not hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worlds.libero.stage import Piece, Stage
from worlds.libero.workbench import Layout
from worlds.tabletop.simulator import mujoco

_SETTLE_S, _SETTLE_MORE_S = 0.9, 1.2
_CHECK_STEPS = 50
_AT_REST = 0.03  # fastest speed that counts as at rest [m/s, rad/s mixed]
_ROLLING = 0.25  # what is faster in the end is taken away
_DEEPEST_M = 0.006  # how far two things may be in one another


def settle(stage: Stage) -> None:
    """Let things fall until all that is shown rests, or time is up."""
    limit = int((_SETTLE_S + _SETTLE_MORE_S) / stage.model.opt.timestep)
    least = int(_SETTLE_S / stage.model.opt.timestep / 3)
    shown = _shown_dofs(stage)
    for step in range(limit):
        mujoco.mj_step(stage.model, stage.data)
        if (
            step >= least
            and step % _CHECK_STEPS == 0
            and np.abs(stage.data.qvel[shown]).max(initial=0.0) < _AT_REST
        ):
            break
    mujoco.mj_forward(stage.model, stage.data)


def _shown_dofs(stage: Stage) -> list[int]:
    dofs: list[int] = []
    for piece in stage.pieces:
        if not piece.fixed and stage.model.geom_rgba[piece.geoms, 3].any():
            first = int(stage.model.body_dofadr[piece.body])
            dofs.extend(range(first, first + 6))
    return dofs


def take_away_what_failed(stage: Stage, layout: Layout) -> None:
    """Hide what fell off the surface, still rolls, or is stuck in something."""
    stuck = deep_contacts(stage, layout.pieces)
    x, y, z = stage.arena.center_xyz_m
    half_x, half_y = stage.arena.work_xy_m
    gone = []
    for piece in layout.pieces:
        if piece.fixed:
            continue
        px, py, pz = stage.data.xpos[piece.body]
        dof = stage.model.body_dofadr[piece.body]
        fast = np.abs(stage.data.qvel[dof : dof + 6]).max() > _ROLLING
        off = abs(px - x) > half_x + 0.2 or abs(py - y) > half_y + 0.15 or pz < z - 0.02
        if fast or off or piece.name in stuck:
            gone.append(piece)
    for piece in gone:
        stage.hide(piece)
        layout.pieces.remove(piece)
    if gone:
        settle(stage)


def deep_contacts(stage: Stage, pieces: Sequence[Piece]) -> set[str]:
    """Names of movables that are further in another thing than they may be."""
    owner = {geom: piece for piece in pieces for geom in piece.geoms}
    names = set()
    for contact in stage.data.contact[: stage.data.ncon]:
        if contact.dist > -_DEEPEST_M:
            continue
        for geom in contact.geom:
            piece = owner.get(int(geom))
            if piece is not None and not piece.fixed:
                names.add(piece.name)
    return names
