"""Puts cabinets, stoves, racks and the like on the surface, drawers and doors open or shut."""

from __future__ import annotations

import math

import numpy as np

from worlds.libero.composition.footprint import Footprint, placed
from worlds.libero.composition.roles import CABINETS, DRAWERS, FIXTURE_LIFT_M, OTHER_LIFT_M, STOVES
from worlds.libero.composition.workbench import Workbench
from worlds.libero.simulation.pool_objects import PoolObject
from worlds.libero.simulation.rotations import yaw_wxyz
from worlds.libero.simulation.stage import Stage

_COUNT_CHANCES = (0.12, 0.33, 0.4, 0.15)
_OPEN_CHANCE = 0.5  # of a cabinet to have a drawer open, of a microwave to be open
_ON_CHANCE = 0.25  # of a stove to be on
_TRIES = 40


def choose_fixtures(rng: np.random.Generator, stage: Stage) -> list[PoolObject]:
    """None to three of the stage's fixtures, large ones first."""
    fixtures = [obj for obj in stage.objects if obj.fixed]
    chances = np.array(_COUNT_CHANCES)
    if stage.arena.surface == "floor":
        chances = np.array([0.75, 0.2, 0.05, 0.0])
    elif stage.arena.surface == "living_room_table":
        chances = np.array([0.6, 0.3, 0.1, 0.0])
    count = min(len(fixtures), int(rng.choice(len(chances), p=chances)))
    order = rng.permutation(len(fixtures))[:count]
    chosen = [fixtures[int(i)] for i in order]
    return sorted(chosen, key=lambda obj: -float(np.prod(obj.size_m)))


def place_fixture(work: Workbench, obj: PoolObject) -> None:
    """Find room for a fixture; it stays hidden where there is none."""
    stage = work.stage
    _, _, surface_z = stage.arena.center_xyz_m
    states = _sample_states(work, obj)
    for _ in range(_TRIES):
        x, y, yaw = _fixture_pose(work, obj)
        footprint = placed(obj.low_m, obj.high_m, x, y, yaw)
        opening = _opening(obj, states, x, y, yaw)
        if not work.free(footprint, 0.02) or not all(work.free(o, 0.0) for o in opening):
            continue
        lift = FIXTURE_LIFT_M.get(obj.kind, OTHER_LIFT_M)
        stage.show(obj)
        stage.put(
            obj, np.array([x, y, max(surface_z + lift, stage.arena.top_xyz_m[2])]), yaw_wxyz(yaw)
        )
        for joint, value in states.items():
            address, _, _ = obj.joints[joint]
            stage.data.qpos[address] = value
        work.taken[obj.name] = footprint
        work.blocked.extend(opening)
        work.layout.objects.append(obj)
        work.layout.note_states(stage, obj)
        if obj.name in work.layout.lit:
            stage.model.site_rgba[stage.model.site(f"{obj.name}_burner").id, 3] = 1
        return


def _fixture_pose(work: Workbench, obj: PoolObject) -> tuple[float, float, float]:
    """At the sides and behind, facing the middle, as in the benchmark; now and then anywhere."""
    rng = work.rng
    cx, cy, _ = work.stage.arena.center_xyz_m
    half_x, half_y = work.stage.arena.work_xy_m
    side = 1 if rng.random() < 0.5 else -1
    if obj.kind in STOVES:
        x = cx + rng.uniform(-1.5 * half_x, 0.4 * half_x)
        y = cy + rng.uniform(-0.9, 0.9) * half_y
        return x, y, float(rng.normal(0, 0.1) + (math.pi if work.chance(0.1) else 0.0))
    if obj.kind == "desk_caddy":
        x = cx - half_x + rng.uniform(-0.08, 0.08)
        return x, cy + rng.uniform(-0.6, 0.6) * half_y, math.pi + float(rng.normal(0, 0.1))
    x = cx + rng.uniform(-1.2, 0.5) * half_x
    y = cy + side * rng.uniform(0.62, 0.95) * half_y
    yaw = (0.0 if side > 0 else math.pi) + float(rng.normal(0, 0.1))
    if work.chance(0.35):
        yaw += float(rng.uniform(-0.7, 0.7))
    return x, y, yaw


def _sample_states(work: Workbench, obj: PoolObject) -> dict[str, float]:
    """Where its drawers, its door or its button are."""
    rng = work.rng
    states = {}
    for joint, (_, least, _) in obj.joints.items():
        states[joint] = 0.0
        if obj.kind == "microwave" and work.chance(_OPEN_CHANCE):
            states[joint] = float(rng.uniform(least, 0.6 * least))
        if obj.kind in STOVES and work.chance(_ON_CHANCE):
            states[joint] = float(rng.uniform(0.6, 1.6))
    if obj.kind in CABINETS and work.chance(_OPEN_CHANCE):
        joint = f"{DRAWERS[int(rng.integers(3))]}_level"
        states[joint] = -float(rng.uniform(0.1, 0.16))
    return states


def _opening(
    obj: PoolObject, states: dict[str, float], x: float, y: float, yaw: float
) -> list[Footprint]:
    """Where an open drawer or door reaches."""
    reach = -min([0.0, *(v for v in states.values() if v < 0)])
    if reach == 0.0:
        return []
    if obj.kind == "microwave":
        reach = float(obj.size_m[0])
    low, high = obj.low_m.copy(), obj.high_m.copy()
    high[1] = low[1]
    low[1] -= reach
    return [placed(low, high, x, y, yaw)]
