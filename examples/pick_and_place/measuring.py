"""Objects and places in the robot's base frame, from a mask and the depth image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.pick_and_place.interfaces import Floats, Image
from segzero_core.config import GraspConfig
from segzero_core.depth import measure_object, object_cloud

PANDA: Final = GraspConfig(gripper="panda")
_UPPER_M: Final = 0.02
"""The top of a place is what lies so far below its highest points."""
_FLAT_M: Final = 0.08
"""A lower place is taken as a whole; of a taller one only the top counts."""
_MIDDLE_M: Final = 0.03
"""How much around its middle tells how high a place is."""
_ASIDE_M: Final = 0.08
"""Distance from the edge of a place to what is put beside it."""
_SIDES: Final = {"front": (1, 0), "behind": (-1, 0), "left": (0, -1), "right": (0, 1)}
"""Directions on the table, as one sees them who faces the robot."""


@dataclass(frozen=True, eq=False)
class Seen:
    """An object in the base frame."""

    mask: NDArray[np.bool_]  # bool [H, W], of the image
    points_m: Floats  # float64 [N, 3], its visible surface
    center_m: Floats  # float64 [3], middle of its box
    bottom_m: float  # height of its lowest point
    # Position [3] and rotation [3, 3] of the hand, best first.
    grasps: tuple[tuple[Floats, Floats], ...]


def measured(mask: NDArray[np.bool_], image: Image, gripper: GraspConfig) -> Seen:
    """An object with its grasps.

    Raises:
        InputError: The mask shows no whole object in the depth image.
    """
    up = image.rotation.T[:, 2]
    found = measure_object(mask, image.depth_m, image.camera, up=up, grasping=gripper)
    grasps = tuple(
        (image.in_base(grasp.position_m[None])[0], image.rotation @ grasp.rotation)
        for grasp in found.grasps
    )
    bottom = float(image.in_base(found.box.corners_m())[:, 2].min())
    center = image.in_base(found.box.center_m[None])[0]
    return Seen(mask, image.in_base(found.cloud.points_m), center, bottom, grasps)


def surface(mask: NDArray[np.bool_], image: Image) -> Seen:
    """The visible surface alone, for places that the image cuts off or that are large.

    Raises:
        InputError: The mask has no depth.
    """
    points = image.in_base(object_cloud(mask, image.depth_m, image.camera).points_m)
    low, high = points.min(axis=0), points.max(axis=0)
    return Seen(mask, points, (low + high) / 2, float(low[2]), ())


def place_point_m(place: Seen, relation: str) -> Floats:
    """Where the lowest point of an object goes, [3].

    Args:
        place: What it is put on, in, or beside.
        relation: A key of `examples.pick_and_place.orders.RELATIONS`.

    Raises:
        ValueError: Nothing is put so.
    """
    points = place.points_m
    low, high = points.min(axis=0), points.max(axis=0)
    if relation in _SIDES:
        aside = np.array(_SIDES[relation]) * ((high - low)[:2] / 2 + _ASIDE_M)
        return np.array([*(place.center_m[:2] + aside), place.bottom_m])
    if relation not in ("on", "in"):
        raise ValueError(f"nothing is put {relation!r} a place here")
    top = float(np.percentile(points[:, 2], 98))
    if relation == "in":
        return np.array([*place.center_m[:2], top])
    middle = place.center_m[:2]
    if high[2] - low[2] > _FLAT_M:
        points = points[points[:, 2] > top - _UPPER_M]
        middle = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
    near = points[np.linalg.norm(points[:, :2] - middle, axis=1) < _MIDDLE_M, 2]
    return np.array([*middle, float(np.median(near)) if len(near) else top])


def changed_share(region: NDArray[np.bool_], before: Image, after: Image, least_m: float) -> float:
    """The share of a region of the image whose depth changed by so much, from a still camera."""
    moved = np.abs(after.depth_m - before.depth_m)[region]
    known = np.isfinite(moved)
    return float((moved[known] > least_m).mean()) if known.any() else 0.0
