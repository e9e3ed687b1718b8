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
from segzero_core.depth.camera import Floats
from segzero_core.depth.shape_completion import Body, body_of
from segzero_core.depth.types import Grasp, ObjectCloud, SupportPlane

Singles: TypeAlias = NDArray[np.float32]

_DIRECTIONS: Final = 12
_ANGLES: Final = np.arange(float(_DIRECTIONS)) * (math.pi / _DIRECTIONS)
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
_NOWHERE: Final = -(10**6)
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
        self._points = body.points.T.astype(np.float32)
        self._middle = _middle_of(body)
        self._obstacles: Singles = np.zeros((3, 0), np.float32)
        self._tips = self._tip_heights()
        if surroundings_m is not None and len(surroundings_m):
            heights = (surroundings_m - body.origin_m) @ body.axes[2]
            places = _thinned(np.flatnonzero(heights > self._tips.min()), _OBSTACLES)
            others = surroundings_m.take(places, axis=0)
            self._obstacles = body.from_camera(others).T.astype(np.float32)

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
        if not rough.shape[1]:
            return ()
        looked = self._looked_at(rough)
        order = np.argsort(-looked[5], kind="stable")
        chosen: list[tuple[float, float, float, float]] = []
        grasps: list[Grasp] = []
        for angle, tip, x, y, width, score in looked.T[order].tolist():
            place = (angle, tip, x, y)
            if score <= _MIN_SCORE or len(grasps) == self._config.max_grasps:
                break
            if any(_alike(place, other) for other in chosen):
                continue
            if not self._meets_itself(*place, width):
                chosen.append(place)
                grasps.append(self._grasp(*place, width, score))
        return tuple(grasps)

    def _grasp(
        self, angle: float, tip: float, x: float, y: float, width: float, score: float
    ) -> Grasp:
        cos, sin = math.cos(angle), math.sin(angle)
        # Rows: the closing axis, z × x, and down; and the place.
        frame = np.array([(cos, sin, 0.0), (sin, -cos, 0.0), (0.0, 0.0, -1.0), (x, y, tip)])
        frame = frame @ self._body.axes
        return Grasp(self._body.origin_m + frame[3], frame[:3].T, width, score)

    def _rough(self) -> Floats:
        """Return [5, C]: angle, tip height, place across, and both ends along the closing axis."""
        config = self._config
        s, t = _along_and_across(self._points, _ANGLES)
        low_s, low_t = s.min(), t.min()
        s, t = s - low_s, t - low_t
        cell = max(_MIN_CELL_M, float(max(s.max(), t.max())) / _MAX_CELLS)
        room = max(1, round((config.finger_thickness_m + config.grasp_clearance_m) / cell))
        half = max(1, round(config.finger_width_m / cell / 2))
        columns, rows = (s / cell).astype(np.int32), (t / cell).astype(np.int32)
        # Room to spread into, also at each row's end: so runs of one row never meet the next's.
        shape = (_DIRECTIONS, int(rows.max()) + 2 * half, int(columns.max()) + 1 + room + 1)
        number = np.arange(_DIRECTIONS, dtype=np.int32)[:, None]
        cells = (number * shape[1] + rows + 2 * half - 1) * shape[2] + columns
        widest = config.gripper_opening_m - 2 * config.grasp_clearance_m
        found, leans, groups = [], [], []
        for i, tip in enumerate(self._tips):
            strips = np.zeros(math.prod(shape), np.bool_)
            strips[cells.compress(self._points[2] > tip, axis=1)] = True
            _spread(strips, half, -shape[2])
            both = strips.copy()
            both[: -half * shape[2]] |= strips[half * shape[2] :]
            _spread(both, room, 1)
            first, last = _runs(both)
            last = last - room + 1
            fits = (last - first - 1) * cell <= widest
            first, last = first.compress(fits), last.compress(fits)
            line, begin = np.divmod(first, shape[2])
            which, row = np.divmod(line, shape[1])
            # Where the other half of the finger is: as many rows further on as there still are.
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
        """Guess the score of candidates, so that the best of each group comes first."""
        angle, _, across, first, last = rough
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = self._middle
        along = (first + last) / 2 - (x * cos + y * sin)
        across = across - (y * cos - x * sin)
        guess = np.maximum(1 - 0.8 * lean, 0.05) * _balance(along, across)
        order = np.argsort(group - 0.5 * guess)  # the guess is at most 1
        group = group[order]
        places = np.arange(len(order))
        starts = places.copy()
        starts[1:][group[1:] == group[:-1]] = 0
        rank = np.empty(len(order))
        rank[order] = places - np.maximum.accumulate(starts)
        return np.asarray(guess - rank, np.float64)

    def _looked_at(self, rough: Floats) -> Floats:
        """Return [6, C]: angle, tip, centre (x, y), opening and score of each candidate."""
        config, half = self._config, self._config.finger_width_m / 2
        angle, tip, across, first, last = rough
        count = len(angle)
        s, t = _along_and_across(self._points, angle)
        t -= _column(across)
        slack = np.float32(2 * _MIN_CELL_M)
        inside = (np.abs(t) <= half) & (self._points[2] > _column(tip))
        inside &= (s >= _column(first) - slack) & (s <= _column(last) + slack)
        # From here on with the few points that are inside, each with its candidate's number.
        places = np.flatnonzero(inside)
        which, point = np.divmod(places, s.shape[1])
        s, height = s.reshape(-1).take(places), self._points[2].take(point)
        height = height - tip.astype(np.float32).take(which)
        # Each end is looked for in either half of the finger's width.
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
            # Tips above the widest part would press the object down and out.
            * np.clip(grip / np.maximum(0.3 * tops, 1e-6), 0.1, 1)
            * _balance(x - self._middle[0], y - self._middle[1])
            * np.clip(0.8 + (config.gripper_opening_m - opening) / 0.1, 0.8, 1)
        )
        fits = (end >= begin) & (opening <= config.gripper_opening_m)
        fits &= ~self._blocked(angle, tip, across, begin, end)
        return np.stack((angle, tip, x, y, opening, np.where(fits, score, 0.0)))

    def _meets_itself(self, angle: float, tip: float, x: float, y: float, width: float) -> bool:
        """Say whether a finger would come down on the object, where the search saw a gap."""
        config = self._config
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([(cos, sin), (-sin, cos)], np.float32)
        surface = self._body.surface.T
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
        """Say of each candidate whether a finger or the palm would meet something else."""
        if not self._obstacles.shape[1]:
            return np.zeros(len(angle), np.bool_)
        config, spare = self._config, self._config.grasp_clearance_m
        s, t = _along_and_across(self._obstacles, angle)
        reach = config.finger_thickness_m + spare
        met = np.abs(t - _column(across)) < config.finger_width_m / 2 + spare
        met &= (s > _column(begin - reach)) & (s < _column(end + reach))
        met &= self._obstacles[2] > _column(tip)
        return np.asarray(met.any(axis=1), np.bool_)


def _alike(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Say whether two candidates, each of angle, tip and place, are as good as one."""
    apart = math.hypot(one[2] - other[2], one[3] - other[3])
    if apart >= _APART_M or abs(one[1] - other[1]) >= _APART_M:
        return False
    return abs(math.cos(one[0] - other[0])) > _APART_COS


def _thinned(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    return places[:: max(1, -(-len(places) // most))]


def _column(values: Floats) -> Singles:
    return values.astype(np.float32)[:, None]


def _balance(along: Floats, across: Floats) -> Floats:
    """Say how well an object balances that is held so far off its middle: 0 to 1."""
    return np.asarray(np.exp((along**2 + across**2) * (-0.5 / _CENTRE_M**2)), np.float64)


def _middle_of(body: Body) -> Floats:
    """Return float64 [2]: the middle of the footprint's area, by which the object balances."""
    flat = body.points.T[:2]
    low = flat.min(axis=1)
    cell = max(0.004, float((flat.max(axis=1) - low).max()) / 40)
    across, along = ((flat - low[:, None]) / cell).astype(np.intp)
    filled = np.zeros((across.max() + 1, along.max() + 1), np.bool_)
    filled[across, along] = True
    across, along = np.divmod(np.flatnonzero(filled), filled.shape[1])
    middle = np.array([across.mean() + 0.5, along.mean() + 0.5]) * cell
    return np.asarray(low + middle, np.float64)


def _along_and_across(points: Singles, angles: Floats) -> tuple[Singles, Singles]:
    """Return coordinates [A, N] of points [3, N] along closing axes, and across them."""
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    flat = points[:2]
    return np.column_stack((cos, sin)) @ flat, np.column_stack((-sin, cos)) @ flat


def _spread(filled: NDArray[np.bool_], length: int, stride: int) -> None:
    """Let every filled cell fill `length` cells in all, one every `stride` places.

    All cells lie in one list, which must leave room: what is spread beyond a row is in the next.
    """
    done = 1
    while done < length:
        more = min(done, length - done)
        step = more * stride
        if step > 0:
            filled[step:] |= filled[:-step]
        else:
            filled[:step] |= filled[-step:]
        done += more


def _runs(filled: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first and last place of every run of filled cells; the list's last is empty."""
    changed = filled.copy()
    changed[1:] ^= filled[:-1]
    places = np.flatnonzero(changed)
    return places[::2], places[1::2] - 1


def _lean(
    strips: NDArray[np.bool_],
    first: NDArray[np.intp],
    last: NDArray[np.intp],
    further: NDArray[np.intp],
) -> Floats:
    """Return by how many cells the two halves of a finger would touch a run apart, at most.

    Args:
        strips: All cells in one list.
        first: [C], the place of each run's first cell in it.
        last: [C], the place of each run's last cell.
        further: [C], so many places further on is what the finger's other half may touch.
    """
    begins, ends = _runs(strips)
    touched = []
    for shift in (np.zeros_like(further), further):
        # The cells touched are runs that lie wholly between the first and the last cell.
        one = np.searchsorted(begins, first + shift)
        other = np.searchsorted(ends, last + shift, side="right") - 1
        both = (begins.take(one, mode="clip") - shift, ends.take(other, mode="clip") - shift)
        touched.append(np.where(one <= other, both, _NOWHERE))
    return np.asarray(np.abs(touched[0] - touched[1]).max(axis=0), np.float64)
