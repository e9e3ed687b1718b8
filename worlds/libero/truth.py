"""What a settled scene is: what stands on or in what, and how large everything is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worlds.libero.composition.roles import (
    BASKETS,
    BOWLS,
    CABINETS,
    PAN,
    RAMEKIN,
    TALL_FIXED,
    TRAY,
)
from worlds.libero.composition.workbench import Layout
from worlds.libero.simulation.pool_objects import PoolObject
from worlds.libero.simulation.regions import box_in_world
from worlds.libero.simulation.rotations import Floats, matrix_of, product_wxyz
from worlds.libero.simulation.stage import Stage

HOLLOW = (*BOWLS, *BASKETS, PAN, RAMEKIN, "porcelain_mug", "red_coffee_mug", "white_yellow_mug")
_NEAR_SURFACE_M = 0.012
_INSIDE_SLACK_M = 0.012
_RIM_M = 0.008  # what reaches so far below a rim is inside
_NARROWER = 0.85  # of the holder's width: what is wider stands on it


@dataclass(frozen=True)
class Support:
    """What a movable object rests on or in."""

    relation: str  # "on" or "in"; "leaning" where it is neither and not on the surface either
    holder: str  # name of the object, empty when leaning
    part: str  # for instance "top" drawer, "back" compartment; empty where there are no parts


@dataclass(frozen=True, eq=False)
class Extent:
    """Where an object is."""

    low_m: Floats  # least corner along the world's axes [m]
    high_m: Floats  # greatest corner [m]
    center_m: Floats  # middle of its own box in the world frame [m]
    quaternion_xyzw: tuple[float, float, float, float]  # how its own box is turned from upright
    size_m: Floats  # extent along the axes of its own box [m]


def extent_of(stage: Stage, obj: PoolObject) -> Extent:
    """Where an object is now."""
    axes = stage.data.xmat[obj.body].reshape(3, 3)
    origin = stage.data.xpos[obj.body]
    cloud = obj.cloud_m @ axes.T + origin
    conjugate = obj.upright_wxyz * [1, -1, -1, -1]
    turn = product_wxyz(stage.data.xquat[obj.body], conjugate)
    center = origin + matrix_of(turn) @ ((obj.low_m + obj.high_m) / 2)
    w, x, y, z = turn.tolist()
    return Extent(cloud.min(axis=0), cloud.max(axis=0), center, (x, y, z, w), obj.size_m)


def find_supports(stage: Stage, layout: Layout) -> dict[str, Support]:
    """What each movable rests on or in; those on the surface itself are not named."""
    extents = {obj.name: extent_of(stage, obj) for obj in layout.objects}
    touching = _touching(stage, layout)
    found = {}
    for obj in layout.objects:
        if obj.fixed:
            continue
        support = _inside(stage, layout, obj, extents) or _upon(
            layout, obj, extents, touching[obj.name]
        )
        surface_z = stage.arena.top_xyz_m[2]
        if support is not None:
            found[obj.name] = support
        elif extents[obj.name].low_m[2] > surface_z + _NEAR_SURFACE_M:
            found[obj.name] = Support("leaning", "", "")
    return found


def _touching(stage: Stage, layout: Layout) -> dict[str, set[str]]:
    owner = {int(geom): obj.name for obj in layout.objects for geom in obj.geoms}
    touching: dict[str, set[str]] = {obj.name: set() for obj in layout.objects}
    for contact in stage.data.contact[: stage.data.ncon]:
        one, other = (owner.get(int(geom)) for geom in contact.geom)
        if one and other and one != other:
            touching[one].add(other)
            touching[other].add(one)
    return touching


def _inside(
    stage: Stage, layout: Layout, obj: PoolObject, extents: dict[str, Extent]
) -> Support | None:
    """In a region of a fixture, a basket or a tray: its lowest part is."""
    own = extents[obj.name]
    foot = np.array([*(own.low_m[:2] + own.high_m[:2]) / 2, own.low_m[2] + 0.01])
    for holder in layout.objects:
        if holder is obj or holder.kind in TALL_FIXED:
            continue
        for name, box in holder.boxes.items():
            if not name.endswith("_region") or name == "cook_region":
                continue
            center, rotation, _ = box_in_world(stage, box)
            local = rotation.T @ (foot - center)
            if (np.abs(local) <= box.half_m + _INSIDE_SLACK_M).all():
                return Support("in", holder.name, _part(holder, name))
    return None


def _part(holder: PoolObject, region: str) -> str:
    if holder.kind in CABINETS or holder.kind == "wooden_two_layer_shelf":
        return region.removesuffix("_region")
    if holder.kind == "desk_caddy":
        return region.removesuffix("_contain_region")
    return ""


def _upon(
    layout: Layout, obj: PoolObject, extents: dict[str, Extent], touching: set[str]
) -> Support | None:
    """On what it touches, stands above and is over the middle of."""
    own = extents[obj.name]
    middle = (own.low_m[:2] + own.high_m[:2]) / 2
    best: tuple[float, Support] | None = None
    for holder in layout.objects:
        if holder.name not in touching:
            continue
        other = extents[holder.name]
        over = (middle >= other.low_m[:2] - 0.01).all() and (
            middle <= other.high_m[:2] + 0.01
        ).all()
        if not over or own.low_m[2] < other.low_m[2] + 0.004:
            continue
        support = Support(*_upon_how(obj, holder, own, other))
        if best is None or other.high_m[2] > best[0]:
            best = float(other.high_m[2]), support
    return best[1] if best else None


def _upon_how(
    obj: PoolObject, holder: PoolObject, own: Extent, other: Extent
) -> tuple[str, str, str]:
    narrow = float(obj.size_m[:2].max()) < _NARROWER * float(holder.size_m[:2].min())
    sunk = own.low_m[2] < other.high_m[2] - _RIM_M
    if holder.kind == TRAY or (holder.kind in HOLLOW and narrow and sunk):
        return "in", holder.name, ""
    return "on", holder.name, "top" if holder.kind in CABINETS else ""
