"""Where an object goes: on, in, beside or between places, and whether it stands there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np

from examples.pick_and_place.interfaces import Floats, Image
from examples.pick_and_place.measuring import Seen

RELATIONS: Final = ("on", "in", "to", "front", "behind", "left", "right", "beside", "between")
"""How something can be put; keys of `examples.pick_and_place.orders.RELATIONS`."""
_FLAT_M: Final = 0.08
"""A lower place is taken as a whole; of a taller one only its top counts."""
_MIDDLE_M: Final = 0.03
"""How much around its middle tells how high a place is."""
_ASIDE_M: Final = 0.05
"""Room between a place and what is put beside it."""
_SIDES: Final = {"front": (1, 0), "behind": (-1, 0), "left": (0, -1), "right": (0, 1)}
"""Directions on the table, as one sees them who faces the robot."""
_CELL_M, _LEVEL_M = 0.01, 0.0075
"""Cells of a place's top, and how much level ones differ in height from their neighbors."""
_LARGE: Final = 0.5
"""The top is the highest level part that has this share of the largest one's cells."""
_SLOPE, _SLIDE_M = 0.25, 0.09
"""A place whose top rises by more is a slope, on which things slide and fall so far."""
_REACH_M, _EDGE_M = 0.035, 0.04
"""So far from where it was put an object may be, and on a large place farther, but not so near
to its edge."""
_STANDS_M, _STRAY_PX = 0.02, 10
"""What is so much higher than a place stands there; so few pixels may be wrong."""
_NEW_M, _NEW_PX = 0.008, 25
"""Something stands where there was nothing if so many pixels are nearer by so much."""


@dataclass(frozen=True, eq=False)
class Goal:
    """Where an object is put."""

    point_m: Floats  # [3], where the middle of its lowest side goes
    reach_m: float  # its middle may be so far from there
    low_m: float  # its lowest point may be so low
    slope: Floats = field(
        default_factory=lambda: np.zeros(2)
    )  # [2], how the place rises; or level

    def holds(self, center_m: Floats) -> bool:
        """Whether an object with this middle is where it should be."""
        near = np.linalg.norm(center_m[:2] - self.point_m[:2]) <= self.reach_m
        return bool(near and center_m[2] > self.low_m)


def goal_of(places: Sequence[Seen], relation: str, image: Image, half_m: float) -> Goal:
    """Where an object goes.

    Args:
        places: What it is put on, in, or beside; two for "between".
        relation: One of `RELATIONS`.
        image: The image of the places.
        half_m: Half of the object's longer side.

    Raises:
        ValueError: Nothing is put so.
    """
    if relation not in RELATIONS:
        raise ValueError(f"nothing is put {relation!r} a place here")
    place = places[0]
    if relation == "between":
        middle = np.mean([one.center_m[:2] for one in places], axis=0)
        low = min(one.bottom_m for one in places)
        return Goal(np.array([*middle, low]), _REACH_M, low)
    if relation == "beside":
        options = (_aside(place, side, half_m) for side in _SIDES)
        return min(options, key=lambda goal: standing_px(goal, image, half_m))
    if relation in _SIDES:
        return _aside(place, relation, half_m)
    inner_m = np.ptp(place.points_m[:, :2], axis=0).min() / 2
    top = float(np.percentile(place.points_m[:, 2], 98))
    if relation in ("in", "to"):
        return Goal(np.array([*place.center_m[:2], top]), float(inner_m), place.bottom_m)
    point = place.center_m
    if np.ptp(place.points_m[:, 2]) > _FLAT_M:
        point = _top_m(place.points_m)
    near = np.linalg.norm(place.points_m[:, :2] - point[:2], axis=1) < _MIDDLE_M
    near &= place.points_m[:, 2] > point[2] - _FLAT_M / 2
    z = float(np.median(place.points_m[near, 2])) if near.any() else top
    spare = float(inner_m) - _EDGE_M
    goal = _roomiest(
        Goal(np.array([*point[:2], z]), max(_REACH_M, spare), z), spare, image, half_m
    )
    slope = _slope(place.points_m[near])
    if np.linalg.norm(slope) < _SLOPE:
        return goal
    return replace(goal, reach_m=_SLIDE_M, low_m=z - _SLIDE_M, slope=slope)


def stands_at(goal: Goal, half_m: float, height_m: float, before: Image, after: Image) -> bool:
    """Whether something of this half width and height stands at a goal that did not before."""
    points = after.points_m
    new = before.depth_m - after.depth_m > _NEW_M
    wide_m = goal.reach_m + max(2 * half_m, height_m)  # all of it, wherever it stands
    new &= np.linalg.norm(points[..., :2] - goal.point_m[:2], axis=2) < wide_m
    new &= (points[..., 2] > goal.low_m) & (points[..., 2] < goal.point_m[2] + height_m + _EDGE_M)
    if np.count_nonzero(new) < _NEW_PX:
        return False
    low, high = np.percentile(points[new][:, :2], (5, 95), axis=0)
    return bool(np.linalg.norm((low + high) / 2 - goal.point_m[:2]) <= goal.reach_m)


def _aside(place: Seen, side: str, half_m: float) -> Goal:
    edge = np.ptp(place.points_m[:, :2], axis=0) / 2
    xy = place.center_m[:2] + np.array(_SIDES[side]) * (edge + _ASIDE_M + half_m)
    return Goal(np.array([*xy, place.bottom_m]), _REACH_M, place.bottom_m)


def _roomiest(goal: Goal, spare_m: float, image: Image, half_m: float) -> Goal:
    """The goal, moved so far that nothing stands where the object will, or as little as can be."""
    most = max(spare_m - _CELL_M, 0.0)
    steps = np.arange(-most, most + 1e-6, _CELL_M) if most else np.zeros(1)
    offsets = [np.array([x, y, 0.0]) for x in steps for y in steps if np.hypot(x, y) <= most]
    offsets = sorted([np.zeros(3), *offsets], key=lambda offset: float(np.linalg.norm(offset)))
    points = image.points_m[image.points_m[..., 2] > goal.low_m + _STANDS_M]

    def met(offset: Floats) -> int:
        off = np.linalg.norm((points - goal.point_m - offset)[:, :2], axis=1)
        return max(_STRAY_PX, np.count_nonzero(off < half_m + _CELL_M))

    return replace(goal, point_m=goal.point_m + min(offsets, key=met))


def _slope(points_m: Floats) -> Floats:
    """How the ground rises along x and y, [2]."""
    if len(points_m) < _NEW_PX:
        return np.zeros(2)
    flat = np.column_stack((points_m[:, :2] - points_m[0, :2], np.ones(len(points_m))))
    return np.asarray(np.linalg.lstsq(flat, points_m[:, 2] - points_m[0, 2], rcond=None)[0][:2])


def standing_px(goal: Goal, image: Image, half_m: float) -> int:
    """How many pixels show something that stands around a goal; all if it is out of sight."""
    points = image.points_m
    near = np.linalg.norm(points[..., :2] - goal.point_m[:2], axis=2) < half_m
    seen = np.count_nonzero(near)
    return (
        np.count_nonzero(near & (points[..., 2] > goal.low_m + _STANDS_M)) if seen else near.size
    )


def _top_m(points_m: Floats) -> Floats:
    """The middle of a tall place's top, [3]: of the highest of its large level parts."""
    low = points_m.min(axis=0)
    cells = np.floor((points_m[:, :2] - low[:2]) / _CELL_M).astype(np.intp)
    heights = np.full(cells.max(axis=0) + 3, -np.inf)  # with a margin of cells around it
    np.maximum.at(heights, tuple(cells.T + 1), points_m[:, 2])
    neighbors = [np.roll(heights, shift, axis) for axis in (0, 1) for shift in (-1, 1)]
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.stack(neighbors) - heights)
    steps = np.where(np.isfinite(steps), steps, 0.0).max(axis=0)  # nothing is no step
    level = np.isfinite(heights) & (steps < _LEVEL_M)
    count, labels = cv2.connectedComponents(level.astype(np.uint8), connectivity=4)
    areas = np.bincount(labels.ravel(), minlength=count)
    areas[0] = 0
    large = np.flatnonzero((areas >= _LARGE * areas.max()) & (areas > 0))
    if not len(large):
        return np.asarray(points_m[points_m[:, 2].argmax()])
    best = max(large, key=lambda label: float(np.median(heights[labels == label])))
    where = np.argwhere(labels == best)
    middle = low[:2] + ((where.min(axis=0) + where.max(axis=0)) / 2 - 0.5) * _CELL_M
    return np.array([*middle, float(np.median(heights[labels == best]))])
