"""What a settled scene is: what stands on or in what, and how large everything is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worlds.libero.regions import box_in_world
from worlds.libero.roles import BASKETS, BOWLS, CABINETS, PAN, RAMEKIN, TALL_FIXED, TRAY
from worlds.libero.stage import Floats, Piece, Stage, matrix_of, product_wxyz
from worlds.libero.workbench import Layout

HOLLOW = (*BOWLS, *BASKETS, PAN, RAMEKIN, "porcelain_mug", "red_coffee_mug", "white_yellow_mug")
_NEAR_SURFACE_M = 0.012
_INSIDE_SLACK_M = 0.012
_RIM_M = 0.008  # what reaches so far below a rim is inside
_NARROWER = 0.85  # of the holder's width: what is wider stands on it


@dataclass(frozen=True)
class Support:
    """What a movable thing rests on or in.

    Attributes:
        relation: "on" or "in"; "leaning" where it is neither and not on the surface either.
        holder: Name of the piece, empty when leaning.
        part: For instance "top" drawer, "back" compartment; empty where there are no parts.
    """

    relation: str
    holder: str
    part: str


@dataclass(frozen=True, eq=False)
class Extent:
    """Where a piece is.

    Attributes:
        low_m: Least corner along the world's axes [m].
        high_m: Greatest corner [m].
        center_m: Middle of its own box in the world frame [m].
        quaternion_xyzw: How its own box is turned from upright.
        size_m: Extent along the axes of its own box [m].
    """

    low_m: Floats
    high_m: Floats
    center_m: Floats
    quaternion_xyzw: tuple[float, float, float, float]
    size_m: Floats


def extent_of(stage: Stage, piece: Piece) -> Extent:
    """Where a piece is now."""
    axes = stage.data.xmat[piece.body].reshape(3, 3)
    origin = stage.data.xpos[piece.body]
    cloud = piece.cloud_m @ axes.T + origin
    conjugate = piece.upright_wxyz * [1, -1, -1, -1]
    turn = product_wxyz(stage.data.xquat[piece.body], conjugate)
    center = origin + matrix_of(turn) @ ((piece.low_m + piece.high_m) / 2)
    w, x, y, z = turn.tolist()
    return Extent(cloud.min(axis=0), cloud.max(axis=0), center, (x, y, z, w), piece.size_m)


def find_supports(stage: Stage, layout: Layout) -> dict[str, Support]:
    """What each movable rests on or in; those on the surface itself are not named."""
    extents = {piece.name: extent_of(stage, piece) for piece in layout.pieces}
    touching = _touching(stage, layout)
    found = {}
    for piece in layout.pieces:
        if piece.fixed:
            continue
        support = _inside(stage, layout, piece, extents) or _upon(
            layout, piece, extents, touching[piece.name]
        )
        surface_z = stage.arena.top_xyz_m[2]
        if support is not None:
            found[piece.name] = support
        elif extents[piece.name].low_m[2] > surface_z + _NEAR_SURFACE_M:
            found[piece.name] = Support("leaning", "", "")
    return found


def _touching(stage: Stage, layout: Layout) -> dict[str, set[str]]:
    owner = {int(geom): piece.name for piece in layout.pieces for geom in piece.geoms}
    touching: dict[str, set[str]] = {piece.name: set() for piece in layout.pieces}
    for contact in stage.data.contact[: stage.data.ncon]:
        one, other = (owner.get(int(geom)) for geom in contact.geom)
        if one and other and one != other:
            touching[one].add(other)
            touching[other].add(one)
    return touching


def _inside(
    stage: Stage, layout: Layout, piece: Piece, extents: dict[str, Extent]
) -> Support | None:
    """In a region of a fixture, a basket or a tray: its lowest part is."""
    own = extents[piece.name]
    foot = np.array([*(own.low_m[:2] + own.high_m[:2]) / 2, own.low_m[2] + 0.01])
    for holder in layout.pieces:
        if holder is piece or holder.kind in TALL_FIXED:
            continue
        for name, box in holder.boxes.items():
            if not name.endswith("_region") or name == "cook_region":
                continue
            center, rotation, _ = box_in_world(stage, box)
            local = rotation.T @ (foot - center)
            if (np.abs(local) <= box.half_m + _INSIDE_SLACK_M).all():
                return Support("in", holder.name, _part(holder, name))
    return None


def _part(holder: Piece, region: str) -> str:
    if holder.kind in CABINETS or holder.kind == "wooden_two_layer_shelf":
        return region.removesuffix("_region")
    if holder.kind == "desk_caddy":
        return region.removesuffix("_contain_region")
    return ""


def _upon(
    layout: Layout, piece: Piece, extents: dict[str, Extent], touching: set[str]
) -> Support | None:
    """On what it touches, stands above and is over the middle of."""
    own = extents[piece.name]
    middle = (own.low_m[:2] + own.high_m[:2]) / 2
    best: tuple[float, Support] | None = None
    for holder in layout.pieces:
        if holder.name not in touching:
            continue
        other = extents[holder.name]
        over = (middle >= other.low_m[:2] - 0.01).all() and (
            middle <= other.high_m[:2] + 0.01
        ).all()
        if not over or own.low_m[2] < other.low_m[2] + 0.004:
            continue
        support = Support(*_upon_how(piece, holder, own, other))
        if best is None or other.high_m[2] > best[0]:
            best = float(other.high_m[2]), support
    return best[1] if best else None


def _upon_how(piece: Piece, holder: Piece, own: Extent, other: Extent) -> tuple[str, str, str]:
    narrow = float(piece.size_m[:2].max()) < _NARROWER * float(holder.size_m[:2].min())
    sunk = own.low_m[2] < other.high_m[2] - _RIM_M
    if holder.kind == TRAY or (holder.kind in HOLLOW and narrow and sunk):
        return "in", holder.name, ""
    return "on", holder.name, "top" if holder.kind in CABINETS else ""
