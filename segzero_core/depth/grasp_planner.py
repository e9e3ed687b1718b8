"""Grasps of a parallel gripper from above.

The object is seen from above, with the closing axis in many directions. For each direction it is
cut into strips as wide as a finger. Where a part of the object fits between the fingers and there
is free room on both sides of it, there is a candidate. So the wall of a bowl is found like a box.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.config import GraspConfig
from segzero_core.depth.camera import Floats
from segzero_core.depth.shape_completion import CompletedShape, complete_shape
from segzero_core.depth.types import Grasp, ObjectCloud, SupportPlane

Singles: TypeAlias = NDArray[np.float32]

_DIRECTIONS: Final = 12
_ANGLES: Final = np.arange(float(_DIRECTIONS)) * (math.pi / _DIRECTIONS)
_MIN_CELL_M: Final = 0.003
_MAX_CELLS: Final = 72
_TIP_DEPTHS: Final = (1.0, 0.5)
"""Depths of the fingertips below the top, in finger lengths."""
_RIM_SHARE, _DEEPER_SHARE = 0.5, 0.25
"""The share of a flat object's height above which it may be a rim; how much deeper it is taken."""
_MIN_STEP_M: Final = 0.005
"""Depths that differ by less count as one."""
_CHECKED: Final = 24
"""Candidates that are scored."""
_BINS: Final = 1000
"""More than the number of bins across in one direction."""
_OBSTACLES: Final = 800
"""Largest number of points of the surroundings."""

_GOOD_CONTACT_M: Final = 0.015
"""Fingers that overlap the object by more hold no better."""
_FRICTION_SLOPE: Final = 0.6
"""Sides slip whose normals are off the closing axis by more than this tangent."""
_FAR: Final = np.float32(1e3)
_NOWHERE: Final = -(10**6)
_CENTER_M: Final = 0.06
"""At this distance from the object's center its weight begins to turn it in the gripper."""
_TOUCH_M: Final = 0.004
"""Points may reach so far into the space of a finger, because of noise and thinning."""
_STRAY_POINTS: Final = 2
_MIN_SCORE: Final = 0.02
"""Candidates that score less are dropped."""
_APART_M, _APART_COS = 0.012, 0.94
"""Candidates closer than this, in position and in direction, count as one."""


def grasp_candidates(
    cloud: ObjectCloud,
    support: SupportPlane | None = None,
    *,
    up: NDArray[Any] | None = None,
    surroundings_m: NDArray[Any] | None = None,
    config: GraspConfig | None = None,
) -> tuple[Grasp, ...]:
    """Find grasps of an object with two parallel fingers from above.

    In the gripper's frame z is the approach, x the closing axis and y = z × x; the origin lies
    midway between the fingertips. The approach is down the support plane's normal, else down
    `up`, else along the view to the object.

    Args:
        cloud: The visible surface, from one side.
        support: The plane that the object stands on; the fingertips stay above it.
        up: [3], the direction against gravity in the camera frame, used without a support plane.
        surroundings_m: [M, 3], points of other objects in the camera frame, which the fingers
            must not hit [m].
        config: The gripper.

    Returns:
        Best first; empty if nothing fits between the fingers.

    Raises:
        InputError: All points lie at or below the support plane.
    """
    shape = complete_shape(cloud, support, up=up)
    return grasps_on_shape(shape, surroundings_m=surroundings_m, config=config or GraspConfig())


def grasps_on_shape(
    shape: CompletedShape, *, surroundings_m: NDArray[Any] | None, config: GraspConfig
) -> tuple[Grasp, ...]:
    """Find grasps of a completed shape; see `grasp_candidates`."""
    if config.max_grasps == 0:
        return ()
    return _GraspSearch(shape, surroundings_m, config).grasps()


class _GraspSearch:
    """Search over one object, in the frame of its completed shape with z up."""

    def __init__(
        self, shape: CompletedShape, surroundings_m: NDArray[Any] | None, config: GraspConfig
    ) -> None:
        self._shape = shape
        self._config = config
        # Single precision, so that the arrays stay in the processor's cache.
        self._points = shape.points.T.astype(np.float32)
        self._deeper = 0.0
        self._center = _footprint_center(shape.points.T[:2])
        top = float(shape.high[2])
        # A thin object leaves room for the fingertips only below the middle of its side.
        lowest = min(config.grasp_clearance_m, 0.4 * top) if shape.stands else 0.0
        tips = [max(lowest, top - depth * config.finger_length_m) for depth in _TIP_DEPTHS]
        distinct = [tip for tip in tips[1:] if tip > tips[0] + _MIN_STEP_M]
        self._tips = np.array([tips[0], *distinct])
        self._obstacles: Singles = np.zeros((3, 0), np.float32)
        if surroundings_m is not None and len(surroundings_m):
            heights = (surroundings_m - shape.origin_m) @ shape.axes[2]
            high = np.flatnonzero(heights > self._tips.min())
            others = surroundings_m.take(high[:: max(1, -(-len(high) // _OBSTACLES))], axis=0)
            self._obstacles = ((others - shape.origin_m) @ shape.axes.T).T.astype(np.float32)

    def grasps(self) -> tuple[Grasp, ...]:
        """Return the best candidates."""
        found = self._grasps()
        if not found and self._shape.high[2] < self._config.finger_length_m:
            # A flat object that is too wide, as a plate, may have a rim to be taken.
            top = float(self._shape.high[2])
            self._tips, self._deeper = np.array([_RIM_SHARE * top]), _DEEPER_SHARE * top
            found = self._grasps()
        return found

    def _grasps(self) -> tuple[Grasp, ...]:
        rough = self._rough()
        if not rough.shape[1]:
            return ()
        scored = self._scored(rough)
        order = np.argsort(-scored[5], kind="stable")
        chosen: list[tuple[float, float, float, float]] = []
        grasps: list[Grasp] = []
        for angle, tip, x, y, width, score in scored.T[order].tolist():
            pose = (angle, tip, x, y)
            if score <= _MIN_SCORE or len(grasps) == self._config.max_grasps:
                break
            if any(_same_grasp(pose, other) for other in chosen):
                continue
            if not self._hits_object(*pose, width):
                chosen.append(pose)
                grasps.append(self._grasp(*pose, width, score))
        return tuple(grasps)

    def _grasp(
        self, angle: float, tip: float, x: float, y: float, width: float, score: float
    ) -> Grasp:
        cos, sin = math.cos(angle), math.sin(angle)
        # Rows: the closing axis, z × x, the approach (down), and the position.
        frame = np.array(
            [(cos, sin, 0.0), (sin, -cos, 0.0), (0.0, 0.0, -1.0), (x, y, tip - self._deeper)]
        )
        frame = frame @ self._shape.axes
        return Grasp(self._shape.origin_m + frame[3], frame[:3].T, width, score)

    def _rough(self) -> Floats:
        """Return candidates [5, C]: angle, tip height, position across, first and last along."""
        config = self._config
        s, t = _along_and_across(self._points, _ANGLES)
        low_s, low_t = s.min(), t.min()
        s, t = s - low_s, t - low_t
        cell = max(_MIN_CELL_M, float(max(s.max(), t.max())) / _MAX_CELLS)
        room = max(1, round((config.finger_thickness_m + config.grasp_clearance_m) / cell))
        half = max(1, round(config.finger_width_m / cell / 2))
        columns, rows = (s / cell).astype(np.int32), (t / cell).astype(np.int32)
        # Margins to dilate into, also at the end of each row, so that runs end with their row.
        shape = (_DIRECTIONS, int(rows.max()) + 2 * half, int(columns.max()) + 1 + room + 1)
        number = np.arange(_DIRECTIONS, dtype=np.int32)[:, None]
        cells = (number * shape[1] + rows + 2 * half - 1) * shape[2] + columns
        widest = config.gripper_opening_m - 2 * config.grasp_clearance_m
        found, leans, groups = [], [], []
        for i, tip in enumerate(self._tips):
            filled = np.zeros(math.prod(shape), np.uint8)
            filled[cells.compress(self._points[2] > tip, axis=1)] = 1
            grid = filled.reshape(-1, shape[2])
            # What half a finger touches; and what a whole finger and the room beside it touch.
            strips = cv2.dilate(grid, np.ones((half, 1), np.uint8), anchor=(0, 0)).ravel()
            finger = np.ones((2 * half, room), np.uint8)
            first, last = _runs(cv2.dilate(grid, finger, anchor=(room - 1, 0)).ravel())
            last = last - room + 1
            fits = (last - first - 1) * cell <= widest
            first, last = first.compress(fits), last.compress(fits)
            line, begin = np.divmod(first, shape[2])
            which, row = np.divmod(line, shape[1])
            # The other half of the finger is so many rows further on, if there are as many.
            further = np.minimum(half, shape[1] - 1 - row) * shape[2]
            leans.append(_lean(strips, first, last, further) / half)
            bins = (row * cell / _APART_M).astype(np.intp)
            groups.append(bins + _BINS * (which + i * _DIRECTIONS))
            across = low_t + (row - half + 1) * cell
            edges = (low_s + begin * cell, low_s + (begin + last - first + 1) * cell)
            found.append(np.stack((_ANGLES[which], np.full(len(row), tip), across, *edges)))
        rough = np.concatenate(found, axis=1)
        likely = self._likely(rough, np.concatenate(groups), np.concatenate(leans))
        return rough.take(np.argsort(-likely, kind="stable")[:_CHECKED], axis=1)

    def _likely(self, rough: Floats, group: NDArray[np.intp], lean: Floats) -> Floats:
        """Estimate scores; the best candidate of each group ranks before all second ones."""
        angle, _, across, first, last = rough
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = self._center
        along = (first + last) / 2 - (x * cos + y * sin)
        across = across - (y * cos - x * sin)
        estimate = np.maximum(1 - 0.8 * lean, 0.05) * _balance(along, across)
        order = np.argsort(group - 0.5 * estimate)  # the estimate is at most 1
        group = group[order]
        places = np.arange(len(order))
        starts = places.copy()
        starts[1:][group[1:] == group[:-1]] = 0
        rank = np.empty(len(order))
        rank[order] = places - np.maximum.accumulate(starts)
        return np.asarray(estimate - rank, np.float64)

    def _scored(self, rough: Floats) -> Floats:
        """Return [6, C]: angle, tip height, center (x, y), opening and score of each candidate."""
        config, half = self._config, self._config.finger_width_m / 2
        angle, tip, across, first, last = rough
        count = len(angle)
        s, t = _along_and_across(self._points, angle)
        t -= _column(across)
        slack = np.float32(2 * _MIN_CELL_M)
        inside = (np.abs(t) <= half) & (self._points[2] > _column(tip))
        inside &= (s >= _column(first) - slack) & (s <= _column(last) + slack)
        # From here on only the points inside count, each with the number of its candidate.
        places = np.flatnonzero(inside)
        which, point = np.divmod(places, s.shape[1])
        s, height = s.reshape(-1).take(places), self._points[2].take(point)
        height = height - tip.astype(np.float32).take(which)
        # Each end is found separately for both halves of the finger's width.
        part = which + count * (t.reshape(-1).take(places) > 0)
        begins, ends = np.full(2 * count, _FAR), np.full(2 * count, -_FAR)
        np.minimum.at(begins, part, s)
        np.maximum.at(ends, part, s)
        halves = np.stack((begins, ends)).reshape(2, 2, count).astype(np.float64)
        begin, end = halves[0].min(axis=0), halves[1].max(axis=0)
        opening = end - begin + 2 * config.grasp_clearance_m
        tops = np.zeros(count, np.float32)
        np.maximum.at(tops, which, height)
        slope = np.abs(halves[:, 0] - halves[:, 1]).max(axis=0) / half
        near_begin = s < (begin.astype(np.float32) + slack).take(which)
        at_ends = near_begin | (s > (end.astype(np.float32) - slack).take(which))
        held = which.compress(at_ends)
        heights = np.bincount(held, height.compress(at_ends), count)
        grip = heights / np.maximum(np.bincount(held, minlength=count), 1)
        along, cos, sin = (begin + end) / 2, np.cos(angle), np.sin(angle)
        x, y = along * cos - across * sin, along * sin + across * cos
        score = (
            np.clip(1 - slope / _FRICTION_SLOPE, 0, 1)
            * np.clip(tops / _GOOD_CONTACT_M, 0.2, 1)
            # Fingertips above the widest part would push the object down and out.
            * np.clip(grip / np.maximum(0.3 * tops, 1e-6), 0.1, 1)
            * _balance(x - self._center[0], y - self._center[1])
            * np.clip(0.8 + (config.gripper_opening_m - opening) / 0.1, 0.8, 1)
        )
        fits = (end >= begin) & (opening <= config.gripper_opening_m)
        fits &= ~self._blocked(angle, tip, across, begin, end)
        return np.stack((angle, tip, x, y, opening, np.where(fits, score, 0.0)))

    def _hits_object(self, angle: float, tip: float, x: float, y: float, width: float) -> bool:
        """Check whether a finger would hit the object where the coarse search saw a gap."""
        config = self._config
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([(cos, sin), (-sin, cos)], np.float32)
        surface = self._shape.surface.T
        along, across = turn @ surface[:2]
        met = np.abs(across - np.float32(y * cos - x * sin)) < config.finger_width_m / 2
        met &= surface[2] > tip + _TOUCH_M
        along = np.abs(along.compress(met) - np.float32(x * cos + y * sin))
        inner = width / 2 - config.grasp_clearance_m + _TOUCH_M
        met = (along > inner) & (along < width / 2 + config.finger_thickness_m)
        return int(np.count_nonzero(met)) > _STRAY_POINTS

    def _blocked(
        self, angle: Floats, tip: Floats, across: Floats, begin: Floats, end: Floats
    ) -> NDArray[np.bool_]:
        """Check for each candidate whether a finger or the palm would hit another object."""
        if not self._obstacles.shape[1]:
            return np.zeros(len(angle), np.bool_)
        config, spare = self._config, self._config.grasp_clearance_m
        s, t = _along_and_across(self._obstacles, angle)
        t = np.abs(t - _column(across))
        height = self._obstacles[2] - _column(tip)
        reach = config.finger_thickness_m + spare
        met = t < config.finger_width_m / 2 + spare
        met &= (s > _column(begin - reach)) & (s < _column(end + reach))
        met &= height > 0
        palm = np.abs(s - _column((begin + end) / 2)) < config.palm_width_m / 2
        palm &= (t < config.palm_thickness_m / 2) & (height > config.finger_length_m)
        return np.asarray((met | palm).any(axis=1), np.bool_)


def _same_grasp(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Check whether two candidates (angle, tip height, x, y) are almost the same."""
    apart = math.hypot(one[2] - other[2], one[3] - other[3])
    if apart >= _APART_M or abs(one[1] - other[1]) >= _APART_M:
        return False
    return abs(math.cos(one[0] - other[0])) > _APART_COS


def _column(values: Floats) -> Singles:
    return values.astype(np.float32)[:, None]


def _balance(along: Floats, across: Floats) -> Floats:
    """Score from 0 to 1 for holding an object so far from its center."""
    return np.asarray(np.exp((along**2 + across**2) * (-0.5 / _CENTER_M**2)), np.float64)


def _footprint_center(flat: Floats) -> Floats:
    """Return float64 [2]: center of the area that points [2, N] cover; it balances there."""
    low = flat.min(axis=1)
    cell = max(0.004, float((flat.max(axis=1) - low).max()) / 40)
    across, along = ((flat - low[:, None]) / cell).astype(np.intp)
    filled = np.zeros((across.max() + 1, along.max() + 1), np.bool_)
    filled[across, along] = True
    across, along = np.divmod(np.flatnonzero(filled), filled.shape[1])
    center = np.array([across.mean() + 0.5, along.mean() + 0.5]) * cell
    return np.asarray(low + center, np.float64)


def _along_and_across(points: Singles, angles: Floats) -> tuple[Singles, Singles]:
    """Return the coordinates [A, N] of points [3, N] along the closing axes and across them."""
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    flat = points[:2]
    return np.column_stack((cos, sin)) @ flat, np.column_stack((-sin, cos)) @ flat


def _runs(filled: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return first and last index of each run of ones; the last cell is always zero."""
    changed = filled.copy()
    changed[1:] ^= filled[:-1]
    edges = np.flatnonzero(changed)
    return edges[::2], edges[1::2] - 1


def _lean(
    strips: NDArray[Any],
    first: NDArray[np.intp],
    last: NDArray[np.intp],
    further: NDArray[np.intp],
) -> Floats:
    """Return the largest distance [cells] between the contacts of the two halves of a finger.

    Args:
        strips: What half a finger touches, all cells in one list.
        first: [C], index of the first cell of each run.
        last: [C], index of the last cell of each run.
        further: [C], distance to the cells of the finger's other half.
    """
    begins, ends = _runs(strips)
    touched = []
    for shift in (np.zeros_like(further), further):
        # The runs that lie wholly between the first and the last cell.
        one = np.searchsorted(begins, first + shift)
        other = np.searchsorted(ends, last + shift, side="right") - 1
        both = (begins.take(one, mode="clip") - shift, ends.take(other, mode="clip") - shift)
        touched.append(np.where(one <= other, both, _NOWHERE))
    return np.asarray(np.abs(touched[0] - touched[1]).max(axis=0), np.float64)
