"""Where a parallel gripper can take an object from above.

The object is looked at from above in many directions of the closing axis. In each, it is cut into
strips as wide as a finger; where a piece of the object that fits between the fingers has free
room on both sides for them, there is a candidate. So a wall of a bowl is found like a whole box.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segzero_core.config import GraspConfig
from segzero_core.solid import Body, body_of
from segzero_core.spatial import Floats, Grasp, ObjectCloud, SupportPlane

Singles: TypeAlias = NDArray[np.float32]

_DIRECTIONS: Final = 12
_MIN_CELL_M: Final = 0.003
_MAX_CELLS: Final = 72
_TIP_DEPTHS: Final = (1.0, 0.5)
"""How deep the tips go below the top, in lengths of the fingers."""
_MIN_STEP_M: Final = 0.005
"""Depths that differ by less are one."""
_CHECKED: Final = 24
"""Candidates that are looked at closely."""
_BINS: Final = 1000
"""More than there are places across in one direction."""
_OBSTACLES: Final = 800
"""Points of its surroundings that are looked at, at most."""

_GOOD_CONTACT_M: Final = 0.015
"""Fingers that overlap the object by more hold no better."""
_FRICTION_SLOPE: Final = 0.6
"""Sides whose normals are off the closing axis by more than this tangent slip away."""
_FAR: Final = np.float32(1e3)
_CENTRE_M: Final = 0.06
"""So far off the object's middle the weight begins to turn it in the gripper."""
_TOUCH_M: Final = 0.004
"""So far into the room of a finger points of the object may reach: noise, and thinning."""
_STRAY_POINTS: Final = 2
_MIN_SCORE: Final = 0.02
"""Worse candidates are none."""
_APART_M, _APART_COS = 0.012, 0.94
"""Candidates nearer than this, in place and in direction, are one."""


def grasp_candidates(
    cloud: ObjectCloud,
    support: SupportPlane | None = None,
    *,
    up: NDArray[Any] | None = None,
    surroundings_m: NDArray[Any] | None = None,
    config: GraspConfig | None = None,
) -> tuple[Grasp, ...]:
    """Find ways to take an object with two parallel fingers from above.

    The gripper's frame: z is the approach, x the closing axis, y = z × x; its origin is the middle
    between the tips of the fingers. The approach is down the support's normal, else down `up`,
    else along the view to the object.

    Args:
        cloud: What is seen of it, from one side.
        support: What it stands on; the tips stay above it.
        up: [3], against gravity in the camera frame, used where there is no support.
        surroundings_m: [M, 3], points of other things in the camera frame, which fingers must not
            meet [m].
        config: The gripper.

    Returns:
        Best first; empty where nothing fits between the fingers.

    Raises:
        InputError: All points lie at or below the support.
    """
    body = body_of(cloud, support, up=up)
    return grasps_of_body(body, surroundings_m=surroundings_m, config=config or GraspConfig())


def grasps_of_body(
    body: Body, *, surroundings_m: NDArray[Any] | None, config: GraspConfig
) -> tuple[Grasp, ...]:
    """Find grasps of a completed object; see `grasp_candidates`."""
    if config.max_grasps == 0:
        return ()
    search = _Search(body, surroundings_m, config)
    return search.grasps()


class _Search:
    """The search over one object; the frame is the body's, z up."""

    def __init__(
        self, body: Body, surroundings_m: NDArray[Any] | None, config: GraspConfig
    ) -> None:
        self._body = body
        self._config = config
        # Small numbers in small arrays, which stay in the processor's cache.
        self._points = body.points.astype(np.float32)
        self._middle = _middle_of(body)
        self._obstacles: Singles = np.zeros((0, 3), np.float32)
        self._tips = self._tip_heights()
        if surroundings_m is not None and len(surroundings_m):
            others = body.from_camera(surroundings_m)
            others = others[others[:, 2] > self._tips.min()]
            self._obstacles = _thinned(others, _OBSTACLES).astype(np.float32)

    def _tip_heights(self) -> Floats:
        config, top = self._config, float(self._body.high[2])
        # A thin thing leaves room for the tips only below the middle of its side.
        lowest = min(config.grasp_clearance_m, 0.4 * top) if self._body.stands else 0.0
        tips = [max(lowest, top - depth * config.finger_length_m) for depth in _TIP_DEPTHS]
        chosen = tips[:1]
        chosen += [tip for tip in tips[1:] if tip > chosen[-1] + _MIN_STEP_M]
        return np.array(chosen)

    def grasps(self) -> tuple[Grasp, ...]:
        """Return the best candidates."""
        rough = self._rough()
        if not len(rough):
            return ()
        looked = self._looked_at(rough)
        score = looked[4]
        order = np.argsort(-score, kind="stable")
        chosen: list[tuple[float, float, float, float]] = []
        grasps = []
        for i in order[score[order] > _MIN_SCORE]:
            angle, tip, centre, width = (each[i] for each in looked[:4])
            place = (float(angle), float(tip), float(centre[0]), float(centre[1]))
            if any(_alike(place, other) for other in chosen):
                continue
            if not self._meets_itself(*place, float(width)):
                chosen.append(place)
                grasps.append(self._grasp(angle, tip, centre, float(width), float(score[i])))
            if len(grasps) == self._config.max_grasps:
                break
        return tuple(grasps)

    def _grasp(
        self, angle: float, tip: float, centre: Floats, width: float, score: float
    ) -> Grasp:
        cos, sin = math.cos(angle), math.sin(angle)
        # Rows: the closing axis, z × x, and down.
        frame = np.array([(cos, sin, 0.0), (sin, -cos, 0.0), (0.0, 0.0, -1.0)])
        position = self._body.to_camera(np.array([[centre[0], centre[1], tip]]))[0]
        return Grasp(position, (frame @ self._body.axes).T, width, score)

    def _rough(self) -> Floats:
        """Return [C, 5]: angle, tip height, place across, and both ends along the closing axis."""
        config = self._config
        angles = np.arange(float(_DIRECTIONS)) * (np.pi / _DIRECTIONS)
        s, t = _along_and_across(self._points, angles)
        cell = max(_MIN_CELL_M, float(max(np.ptp(s), np.ptp(t))) / _MAX_CELLS)
        room = max(1, round((config.finger_thickness_m + config.grasp_clearance_m) / cell))
        half = max(1, round(config.finger_width_m / cell / 2))
        low_s, low_t = s.min(), t.min()
        columns = ((s - low_s) / cell).astype(np.int32)
        rows = ((t - low_t) / cell).astype(np.int32)
        shape = (len(angles), int(rows.max()) + 2 * half, int(columns.max()) + 1 + room + 1)
        number = np.arange(len(angles), dtype=np.int32)[:, None]
        flat = (number * shape[1] + rows + 2 * half - 1) * shape[2] + columns
        widest = config.gripper_opening_m - 2 * config.grasp_clearance_m
        found, leans, groups = [], [], []
        for i, tip in enumerate(self._tips):
            filled = np.zeros(shape, np.bool_)
            filled.reshape(-1)[flat[:, self._points[:, 2] > tip]] = True
            strips = _spread(filled, half, 1)
            both = strips.copy()
            both[:, :-half] |= strips[:, half:]
            which, row, begin, end = _runs(_spread(both, room, 2))
            end = end - room + 1
            fits = (end - begin - 1) * cell <= widest
            which, row, begin, end = which[fits], row[fits], begin[fits], end[fits]
            leans.append(_lean(strips, which, row, begin, end, half) / half)
            bins = (row * cell / _APART_M).astype(np.intp)
            groups.append(bins + _BINS * (which + i * len(angles)))
            across = low_t + (row - half + 1) * cell
            edges = (low_s + begin * cell, low_s + (end + 1) * cell)
            found.append(np.column_stack((angles[which], np.full(len(row), tip), across, *edges)))
        rough = np.concatenate(found)
        likely = self._likely(rough, np.concatenate(groups), np.concatenate(leans))
        return np.asarray(rough[np.argsort(-likely, kind="stable")[:_CHECKED]], np.float64)

    def _likely(self, rough: Floats, group: NDArray[np.intp], lean: Floats) -> Floats:
        """Guess the score of candidates, so that the best of each group comes first."""
        cos, sin = np.cos(rough[:, 0]), np.sin(rough[:, 0])
        x, y = self._middle
        along = (rough[:, 3] + rough[:, 4]) / 2 - (x * cos + y * sin)
        off = np.hypot(along, rough[:, 2] - (y * cos - x * sin))
        guess = np.clip(1 - 0.8 * lean, 0.05, 1) * np.exp(-0.5 * (off / _CENTRE_M) ** 2)
        order = np.argsort(group - 0.5 * guess)  # the guess is at most 1
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        sizes = np.diff(np.append(starts, len(order)))
        rank = np.empty(len(order))
        rank[order] = np.arange(len(order)) - np.repeat(starts, sizes)
        return np.asarray(guess - rank, np.float64)

    def _looked_at(self, rough: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return angle, tip, centre [C, 2], opening and score of each candidate, exactly."""
        config, half = self._config, self._config.finger_width_m / 2
        angle, tip, across = rough[:, 0], rough[:, 1], rough[:, 2]
        first, last, single_tip = (
            each.astype(np.float32)[:, None] for each in (rough[:, 3], rough[:, 4], tip)
        )
        s, t = _along_and_across(self._points, angle)
        t -= across.astype(np.float32)[:, None]
        height = self._points[:, 2] - single_tip
        slack = np.float32(2 * _MIN_CELL_M)
        inside = (np.abs(t) <= half) & (height > 0)
        inside &= (s >= first - slack) & (s <= last + slack)
        # Each end is looked for in either half of the finger's width.
        upper, lower = inside & (t > 0), inside & (t <= 0)
        begins = [np.where(part, s, _FAR).min(axis=1) for part in (upper, lower)]
        ends = [np.where(part, s, -_FAR).max(axis=1) for part in (upper, lower)]
        halves = np.stack((np.stack(begins), np.stack(ends))).astype(np.float64)
        begin, end = halves[0].min(axis=0), halves[1].max(axis=0)
        good = end >= begin
        opening = end - begin + 2 * config.grasp_clearance_m
        tops = np.where(inside, height, 0).max(axis=1)
        slope = np.abs(halves[:, 0] - halves[:, 1]).max(axis=0) / half
        at_ends = inside & ((s < begin[:, None] + slack) | (s > end[:, None] - slack))
        grip = np.where(at_ends, height, 0).sum(axis=1) / np.maximum(at_ends.sum(axis=1), 1)
        along, cos, sin = (begin + end) / 2, np.cos(angle), np.sin(angle)
        centre = np.column_stack((along * cos - across * sin, along * sin + across * cos))
        off = np.hypot(*(centre - self._middle).T)
        score = (
            np.clip(1 - slope / _FRICTION_SLOPE, 0, 1)
            * np.clip(tops / _GOOD_CONTACT_M, 0.2, 1)
            # Tips above the widest part would press the object down and out.
            * np.clip(grip / np.maximum(0.3 * tops, 1e-6), 0.1, 1)
            * np.exp(-0.5 * (off / _CENTRE_M) ** 2)
            * np.clip(0.8 + (config.gripper_opening_m - opening) / 0.1, 0.8, 1)
        )
        fits = good & (opening <= config.gripper_opening_m)
        fits &= ~self._blocked(angle, tip, across, begin, end)
        return angle, tip, centre, opening, np.where(fits, score, 0.0)

    def _meets_itself(self, angle: float, tip: float, x: float, y: float, width: float) -> bool:
        """Say whether a finger would come down on the object, where the search saw a gap."""
        config = self._config
        points = self._body.surface
        points = points[points[:, 2] > tip + _TOUCH_M]
        cos, sin = math.cos(angle), math.sin(angle)
        along = np.abs(points[:, 0] * cos + points[:, 1] * sin - (x * cos + y * sin))
        across = np.abs(points[:, 1] * cos - points[:, 0] * sin - (y * cos - x * sin))
        inner = width / 2 - config.grasp_clearance_m + _TOUCH_M
        met = (along > inner) & (along < width / 2 + config.finger_thickness_m)
        return int(np.count_nonzero(met & (across < config.finger_width_m / 2))) > _STRAY_POINTS

    def _blocked(
        self, angle: Floats, tip: Floats, across: Floats, begin: Floats, end: Floats
    ) -> NDArray[np.bool_]:
        """Say of each candidate whether a finger or the palm would meet something else."""
        if not len(self._obstacles):
            return np.zeros(len(angle), np.bool_)
        config, spare = self._config, self._config.grasp_clearance_m
        s, t = _along_and_across(self._obstacles, angle)
        reach = config.finger_thickness_m + spare
        lows, highs = begin - reach, end + reach
        met = np.abs(t - across.astype(np.float32)[:, None]) < config.finger_width_m / 2 + spare
        met &= (s > lows.astype(np.float32)[:, None]) & (s < highs.astype(np.float32)[:, None])
        met &= self._obstacles[:, 2] > tip.astype(np.float32)[:, None]
        return np.asarray(met.any(axis=1), np.bool_)


def _alike(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Say whether two candidates, each of angle, tip and place, are as good as one."""
    apart = math.hypot(one[2] - other[2], one[3] - other[3])
    if apart >= _APART_M or abs(one[1] - other[1]) >= _APART_M:
        return False
    return abs(math.cos(one[0] - other[0])) > _APART_COS


def _thinned(points: NDArray[Any], most: int) -> NDArray[Any]:
    return points[:: max(1, -(-len(points) // most))]


def _middle_of(body: Body) -> Floats:
    """Return float64 [2]: the middle of the footprint's area, by which the object balances."""
    flat = body.points[:, :2]
    cell = max(0.004, float(np.ptp(flat, axis=0).max()) / 40)
    cells = np.floor((flat - flat.min(axis=0)) / cell).astype(np.int64)
    filled = np.zeros(cells.max(axis=0) + 1, np.bool_)
    filled[cells[:, 0], cells[:, 1]] = True
    across, along = np.nonzero(filled)
    middle = np.array([across.mean() + 0.5, along.mean() + 0.5]) * cell
    return np.asarray(flat.min(axis=0) + middle, np.float64)


def _along_and_across(points: Singles, angles: Floats) -> tuple[Singles, Singles]:
    """Return coordinates [A, N] along closing axes of these angles, and across them."""
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    flat = points[:, :2].T
    return np.column_stack((cos, sin)) @ flat, np.column_stack((-sin, cos)) @ flat


def _spread(filled: NDArray[np.bool_], length: int, axis: int) -> NDArray[np.bool_]:
    """Let every filled cell fill the next ones too, `length` in all (before them, on axis 1)."""
    spread, done = filled.copy(), 1
    while done < length:
        step = min(done, length - done)
        # Copies, for in- and output overlap.
        if axis == 1:
            spread[:, :-step] |= spread[:, step:].copy()
        else:
            spread[:, :, step:] |= spread[:, :, :-step].copy()
        done += step
    return spread


def _runs(filled: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
    """Return plane, row, first and last column of every run of filled cells."""
    begins, ends = filled.copy(), filled.copy()
    begins[:, :, 1:] &= ~filled[:, :, :-1]
    ends[:, :, :-1] &= ~filled[:, :, 1:]
    first = np.flatnonzero(begins)
    last = np.flatnonzero(ends)
    rows, columns = np.divmod(first, filled.shape[2])
    plane, row = np.divmod(rows, filled.shape[1])
    return plane, row, columns, last - rows * filled.shape[2]


def _lean(
    strips: NDArray[np.bool_],
    which: NDArray[np.intp],
    row: NDArray[np.intp],
    begin: NDArray[np.intp],
    end: NDArray[np.intp],
    half: int,
) -> Floats:
    """Return by how many cells the two halves of a finger would touch a run apart, at most."""
    columns = np.arange(strips.shape[2])
    inside = (columns >= begin[:, None]) & (columns <= end[:, None])
    firsts, lasts = [], []
    for shift in (0, half):
        line = strips[which, np.minimum(row + shift, strips.shape[1] - 1)] & inside
        firsts.append(line.argmax(axis=1))
        lasts.append(line[:, ::-1].argmax(axis=1))
    apart = np.maximum(np.abs(firsts[0] - firsts[1]), np.abs(lasts[0] - lasts[1]))
    return np.asarray(apart, np.float64)
