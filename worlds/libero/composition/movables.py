"""Puts movable objects beside, between, on and in one another, or anywhere on the surface."""

from __future__ import annotations

import math

import numpy as np

from worlds.libero.composition.footprint import placed
from worlds.libero.composition.pools import Pool
from worlds.libero.composition.roles import (
    BASKETS,
    BOWLS,
    CABINETS,
    FLAT,
    PAN,
    PLATES,
    RAMEKIN,
    STOVES,
    TALL_FIXED,
    TRAY,
)
from worlds.libero.composition.workbench import Workbench
from worlds.libero.simulation.pool_objects import Box, PoolObject
from worlds.libero.simulation.regions import box_in_world
from worlds.libero.simulation.rotations import Floats
from worlds.libero.simulation.stage import Stage

MIN_MOVABLES, MAX_MOVABLES = 3, 9
_TWINS_CHANCE = 0.65  # of a scene to have several objects of one kind on purpose
_TRIES = 40


def choose_movables(rng: np.random.Generator, stage: Stage, pool: Pool) -> list[PoolObject]:
    """Three to nine of the pool, often two of a kind; large ones first."""
    movables = [obj for obj in stage.objects if not obj.fixed]
    kinds = [obj.kind for obj in movables]
    count = int(rng.integers(MIN_MOVABLES, MAX_MOVABLES + 1))
    core = pool.movables[: pool.core]
    weights = np.array([3.0 if kind in core else 1.0 for kind in kinds])
    order = rng.choice(len(movables), size=len(movables), replace=False, p=weights / weights.sum())
    ordered = [movables[int(i)] for i in order]
    chosen: list[PoolObject] = []
    if rng.random() < _TWINS_CHANCE:
        twin = next((p for p in ordered if kinds.count(p.kind) > 1), None)
        alike = [p for p in ordered if twin is not None and p.kind == twin.kind]
        chosen = alike[: 2 if rng.random() < 0.75 else 3]
    chosen += [p for p in ordered if p not in chosen][: max(0, count - len(chosen))]
    return sorted(chosen, key=_placing_order)


def _placing_order(obj: PoolObject) -> tuple[int, float]:
    """What can carry something comes before what can be carried."""
    carriers = (*BASKETS, TRAY, PAN, *PLATES, RAMEKIN, "cookies")
    first = 0 if obj.kind in carriers else 1
    return first, -float(obj.size_m[0] * obj.size_m[1])


def place_movable(work: Workbench, obj: PoolObject) -> None:
    """Put a movable somewhere; it stays hidden where there is no room."""
    ways = [_inside, _on_top, _between, _beside, _anywhere]
    chances = np.array([0.25, 0.22, 0.13, 0.17, 0.23])
    if obj.kind in (*BASKETS, TRAY, PAN):
        chances = np.array([0.0, 0.0, 0.05, 0.05, 0.9])
    first = int(work.rng.choice(len(ways), p=chances))
    for way in (ways[first], _anywhere):
        if way(work, obj):
            return


def _anywhere(work: Workbench, obj: PoolObject) -> bool:
    for _ in range(_TRIES):
        x, y = work.surface_xy(wide=False)
        if _try_to_stand(work, obj, x, y):
            return True
    return False


def _try_to_stand(work: Workbench, obj: PoolObject, x: float, y: float) -> bool:
    yaw = work.turn()
    footprint = placed(obj.low_m, obj.high_m, x, y, yaw)
    if not work.on_surface(footprint) or not work.free(footprint):
        return False
    work.stand(obj, footprint, x, y, yaw)
    return True


def _beside(work: Workbench, obj: PoolObject) -> bool:
    """Next to something, with a small gap."""
    if not work.taken:
        return False
    anchors = list(work.taken.values())
    for _ in range(_TRIES):
        anchor = anchors[int(work.rng.integers(len(anchors)))]
        angle = work.rng.uniform(0, 2 * math.pi)
        own = float(obj.size_m[:2].mean()) / 2
        distance = anchor.radius_m() + own + work.rng.uniform(0.005, 0.05)
        x = anchor.x_m + distance * math.cos(angle)
        y = anchor.y_m + distance * math.sin(angle)
        if _try_to_stand(work, obj, x, y):
            return True
    return False


def _between(work: Workbench, obj: PoolObject) -> bool:
    """About half way between two objects."""
    anchors = list(work.taken.values())
    if len(anchors) < 2:
        return False
    for _ in range(_TRIES):
        one, other = (anchors[int(i)] for i in work.rng.choice(len(anchors), 2, replace=False))
        apart = math.hypot(one.x_m - other.x_m, one.y_m - other.y_m)
        if not 0.14 <= apart <= 0.45:
            continue
        share = work.rng.uniform(0.42, 0.58)
        x = one.x_m + share * (other.x_m - one.x_m) + work.rng.normal(0, 0.008)
        y = one.y_m + share * (other.y_m - one.y_m) + work.rng.normal(0, 0.008)
        if _try_to_stand(work, obj, x, y):
            return True
    return False


def _on_top(work: Workbench, obj: PoolObject) -> bool:
    """On a plate, a box, a ramekin, a stove, a cabinet."""
    supports = [p for p in work.layout.objects if _can_carry(p, obj) and p.name not in work.load]
    if not supports:
        return False
    support = supports[int(work.rng.integers(len(supports)))]
    if support.fixed:
        return _on_fixture(work, obj, support)
    position = work.stage.data.qpos[support.qpos : support.qpos + 3]
    jitter = work.rng.normal(0, 0.006, 2)
    top = position[2] + support.high_m[2]
    if support.kind in PLATES:
        top = position[2] + 0.012
    work.load.add(support.name)
    work.drop(obj, position[0] + jitter[0], position[1] + jitter[1], top + 0.003, work.turn())
    return True


def _can_carry(support: PoolObject, obj: PoolObject) -> bool:
    """Whether an object may be put on a support so that it stays there."""
    if obj.kind in (*BASKETS, TRAY):
        return False
    own = float(obj.size_m[:2].max())
    if support.fixed:
        if support.kind in TALL_FIXED or support.kind == "desk_caddy":
            return False
        return own <= 0.2 or support.kind in STOVES
    if support.kind in PLATES:
        return own <= 0.15
    if support.kind == RAMEKIN:
        return obj.kind in (*BOWLS, *PLATES)
    if support.kind in FLAT:
        return obj.kind in (*BOWLS, *PLATES, RAMEKIN, *FLAT)
    return False


def _on_fixture(work: Workbench, obj: PoolObject, support: PoolObject) -> bool:
    names = [n for n in ("top_side", "cook_region") if n in support.boxes]
    if not names:
        return False
    key = (support.name, names[0])
    if key in work.full and not work.chance(0.3):
        return False
    box = support.boxes[names[0]]
    center, _, half = box_in_world(work.stage, box)
    spare = np.maximum(half[:2] - obj.size_m[:2].max() / 2, 0.012)
    offset = work.rng.uniform(-1, 1, 2) * spare * (0.4 if key in work.full else 0.9)
    if key in work.full:
        return False
    work.full.add(key)
    x, y = center[:2] + offset
    work.drop(obj, x, y, center[2] + half[2] + 0.004, work.turn())
    return True


def _inside(work: Workbench, obj: PoolObject) -> bool:
    """In an open drawer, a basket, a tray, a caddy, an open microwave, a shelf, a bowl."""
    holes = [
        (holder, box)
        for holder in work.layout.objects
        for box in _holes(work, holder)
        if (holder.name, box.name) not in work.full
    ]
    work.rng.shuffle(holes)
    for holder, box in holes:
        center, _, half = box_in_world(work.stage, box)
        if not _fits(obj, half):
            continue
        work.full.add((holder.name, box.name))
        spare = np.maximum(half[:2] - obj.size_m[:2].max() / 2, 0.0) * 0.8
        x, y = center[:2] + work.rng.uniform(-1, 1, 2) * spare
        bottom = center[2] - half[2] + 0.012
        if holder.kind in BASKETS:
            bottom = center[2] - half[2] + 0.02
        work.drop(obj, x, y, bottom, work.turn())
        return True
    return _in_bowl(work, obj)


def _in_bowl(work: Workbench, obj: PoolObject) -> bool:
    """Small objects go into bowls and pans, small bowls into large ones."""
    bowls = [
        p
        for p in work.layout.objects
        if p.kind in (*BOWLS, PAN)
        and p.name not in work.load
        and p.name in work.taken
        and float(obj.size_m[:2].max()) < 0.78 * float(p.size_m[:2].min())
        and float(obj.size_m[2]) < 0.16
    ]
    if not bowls:
        return False
    bowl = bowls[int(work.rng.integers(len(bowls)))]
    position = work.stage.data.qpos[bowl.qpos : bowl.qpos + 3]
    work.load.add(bowl.name)
    footprint = work.taken[bowl.name]
    x, y = (position[0], position[1]) if bowl.kind == PAN else (footprint.x_m, footprint.y_m)
    work.drop(obj, x, y, position[2] + 0.02, work.turn())
    return True


def _holes(work: Workbench, holder: PoolObject) -> list[Box]:
    """Regions of a holder that are open now."""
    boxes = holder.boxes
    if holder.kind in CABINETS:
        drawers = work.layout.drawers[holder.name]
        return [boxes[f"{drawer}_region"] for drawer, gap in drawers.items() if gap > 0.09]
    if holder.kind == "microwave":
        return [boxes["heating_region"]] if holder.name in work.layout.open_doors else []
    if holder.kind in TALL_FIXED or holder.kind in STOVES:
        return []
    return [box for name, box in boxes.items() if name.endswith("_region")]


def _fits(obj: PoolObject, half_m: Floats) -> bool:
    wide = float(np.hypot(*obj.size_m[:2])) if obj.size_m[:2].max() > 0.09 else 0.0
    own = max(float(obj.size_m[:2].max()), 0.85 * wide)
    return own <= 2 * float(half_m[:2].min()) * 0.95 and float(obj.size_m[2]) <= 0.17
