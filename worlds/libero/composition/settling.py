"""Lets physics settle a scene, and takes away what did not hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worlds.common.simulator import mujoco
from worlds.libero.composition.workbench import Layout
from worlds.libero.simulation.pool_objects import PoolObject
from worlds.libero.simulation.stage import Stage

_SETTLE_S, _SETTLE_MORE_S = 0.9, 1.2
_CHECK_STEPS = 50
_AT_REST = 0.03  # fastest speed that counts as at rest [m/s, rad/s mixed]
_ROLLING = 0.25  # what is faster in the end is taken away
_DEEPEST_M = 0.006  # how far two objects may be in one another


def settle(stage: Stage) -> None:
    """Let objects fall until all that is shown rests, or time is up."""
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
    for obj in stage.objects:
        if not obj.fixed and stage.model.geom_rgba[obj.geoms, 3].any():
            first = int(stage.model.body_dofadr[obj.body])
            dofs.extend(range(first, first + 6))
    return dofs


def take_away_what_failed(stage: Stage, layout: Layout) -> None:
    """Hide what fell off the surface, still rolls, or is stuck in something."""
    stuck = deep_contacts(stage, layout.objects)
    x, y, z = stage.arena.center_xyz_m
    half_x, half_y = stage.arena.work_xy_m
    gone = []
    for obj in layout.objects:
        if obj.fixed:
            continue
        px, py, pz = stage.data.xpos[obj.body]
        dof = stage.model.body_dofadr[obj.body]
        fast = np.abs(stage.data.qvel[dof : dof + 6]).max() > _ROLLING
        off = abs(px - x) > half_x + 0.2 or abs(py - y) > half_y + 0.15 or pz < z - 0.02
        if fast or off or obj.name in stuck:
            gone.append(obj)
    for obj in gone:
        stage.hide(obj)
        layout.objects.remove(obj)
    if gone:
        settle(stage)


def deep_contacts(stage: Stage, objects: Sequence[PoolObject]) -> set[str]:
    """Names of movables that are further in another object than they may be."""
    owner = {geom: obj for obj in objects for geom in obj.geoms}
    names = set()
    for contact in stage.data.contact[: stage.data.ncon]:
        if contact.dist > -_DEEPEST_M:
            continue
        for geom in contact.geom:
            obj = owner.get(int(geom))
            if obj is not None and not obj.fixed:
                names.add(obj.name)
    return names
