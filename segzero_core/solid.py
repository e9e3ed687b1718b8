"""The whole object from the one side that a camera sees: completed, and boxed in.

A cloud from one view is a shell: its mean lies on the near surface, not in the object. So the
object is completed before it is measured. Below, it reaches down to what it stands on. Behind,
it is taken to be symmetric: the cloud is mirrored at the vertical planes through the middle of
its top, and what comes out is kept where the camera could not have seen it. A mirror image that
would stand where the camera saw something else shows that the object is not symmetric so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError
from segzero_core.spatial import Floats, ObjectCloud, OrientedBox, SupportPlane, unit_vector

_SEEN_POINTS, _OUTLINE_POINTS, _HIDDEN_POINTS = 640, 140, 300
"""About so many points of each sort are used; more change nothing and cost time."""
_MAX_SPACING_M: Final = 0.006
"""Points of large things are no further apart than this across the view, however many it takes."""
_DENSE_POINTS: Final = 4000
_BACK_PX: Final = 3
"""The slope of the surface at its outline is taken over so many pixels,"""
_MAX_SLOPE: Final = 2.5
"""and is at most this."""
_TOP_SHARE, _TOP_M = 0.05, 0.003
"""The top is what is at most this share of the height, or this, below the highest point."""
_FOOT_M, _FOOT_SHARE = 0.003, 0.25
"""Points lower than this above the support, or this share of the height, may be the support's."""
_UPPER_SHARE: Final = 0.12
"""The part of the height that tells how the object is turned,"""
_MIN_UPPER: Final = 40
"""if so many points are there."""
_MIN_CONSISTENT: Final = 0.95
"""Of a mirror image's points that the camera could not have seen elsewhere."""
_HIDDEN_M: Final = 0.004
"""So much before the visible surface a point may lie and count as of it,"""
_MIRRORS: Final = np.array([[[1.0, -1.0, 1.0]], [[-1.0, 1.0, 1.0]], [[-1.0, -1.0, 1.0]]])
"""At the vertical planes along and across it, and at both: half a turn."""
_BEHIND_M: Final = 0.006
"""and so much behind it does it tell something new."""
_TRIM_SHARE: Final = 0.002
"""Of the points beyond each side of the box: noise of the camera."""
_COARSE_ANGLES: Final = 45
_FINE_STEPS: Final = 16
_HULL_ANGLES: Final = np.arange(32) * (np.pi / 32)
_HULL_DIRECTIONS: Final = np.stack((np.cos(_HULL_ANGLES), np.sin(_HULL_ANGLES)), axis=1).astype(
    np.float32
)
_MIN_SIDE_M: Final = 0.001
_MIN_HEIGHT_M: Final = 0.001
"""What is lower cannot be told from what it lies on."""


@dataclass(frozen=True, eq=False)
class Body:
    """An object's points in a frame that stands on its support, z up.

    Attributes:
        points: float64 [M, 3], seen and completed [m].
        surface: float32 [N, 3], what is seen of it, closer together than `points` [m].
        origin_m: float64 [3], the frame's origin in the camera frame [m].
        axes: float64 [3, 3]; its rows are the frame's axes in the camera frame, x along the
            longer side of the footprint.
        low: float64 [3], the lowest corner of the box around the points.
        high: float64 [3], the highest.
        stands: Whether z = 0 is what it stands on, and not just its lowest visible point.
    """

    points: Floats
    surface: NDArray[np.float32]
    origin_m: Floats
    axes: Floats
    low: Floats
    high: Floats
    stands: bool

    def to_camera(self, points: Floats) -> Floats:
        """Return float64 [N, 3]: points of this frame in the camera frame [m]."""
        return np.asarray(self.origin_m + points @ self.axes, np.float64)

    def from_camera(self, points_m: NDArray[Any]) -> Floats:
        """Return float64 [N, 3]: points of the camera frame in this one [m]."""
        return np.asarray((points_m - self.origin_m) @ self.axes.T, np.float64)


def oriented_box(
    cloud: ObjectCloud, support: SupportPlane | None = None, *, up: NDArray[Any] | None = None
) -> OrientedBox:
    """Put a box around a whole object that is seen from one side.

    Its z axis is the support's normal, else `up`, else the direction to the camera. It reaches
    down to the support where there is one, and to the lowest visible point where there is none.

    Args:
        cloud: What is seen.
        support: What it stands on; see `support_plane`.
        up: [3], against gravity in the camera frame.

    Raises:
        InputError: All points lie at or below the support.
    """
    return box_of_body(body_of(cloud, support, up=up))


def box_of_body(body: Body) -> OrientedBox:
    """Return the box around a completed object."""
    centre = body.to_camera((body.low + body.high)[None] / 2)[0]
    size = np.maximum(body.high - body.low, _MIN_SIDE_M)
    return OrientedBox(centre, body.axes.T, size)


def body_of(
    cloud: ObjectCloud, support: SupportPlane | None = None, *, up: NDArray[Any] | None = None
) -> Body:
    """Complete an object; see `oriented_box`."""
    seen = np.concatenate(_surface(cloud))
    vertical = _vertical(seen, support, up)
    heights = seen @ vertical
    lowest, last = len(heights) // 100, len(heights) - 1 - round(_TRIM_SHARE * len(heights))
    ordered = np.partition(heights, (lowest, last))
    ground = support.offset_m if support else float(ordered[lowest])
    top = float(ordered[last]) - ground
    if support is not None:
        foot = min(_FOOT_M, _FOOT_SHARE * top)
        seen = seen[heights > ground + foot]
    if top < _MIN_HEIGHT_M or len(seen) < 3:
        raise InputError(
            f"the object does not rise above what it lies on (its top is at {1000 * top:.0f} mm); "
            "is the mask on the object?"
        )
    axes = _axes_of(vertical)
    origin = seen.mean(axis=0)
    origin = origin + (ground - origin @ vertical) * vertical
    flat = (seen - origin) @ axes.T
    # The top shows how the object lies; what is seen of its sides is one-sided.
    upper = flat[flat[:, 2] > (1 - _UPPER_SHARE) * top]
    turn = _longer_side(upper[:, :2] if len(upper) >= _MIN_UPPER else flat[:, :2])
    axes = turn @ axes
    flat = flat @ turn.T
    whole = np.concatenate((flat, _mirrored(flat, origin, axes, top)))
    turn = _longer_side(whole[:, :2])
    axes, whole = turn @ axes, whole @ turn.T
    low, high = _extent(whole)
    low[2], high[2] = 0.0 if support is not None else min(0.0, low[2]), top
    dense = cloud.points_m[:: max(1, len(cloud) // _DENSE_POINTS)]
    surface = (dense - origin.astype(np.float32)) @ axes.T.astype(np.float32)
    return Body(whole, surface, origin, axes, low, high, support is not None)


def _vertical(seen: Floats, support: SupportPlane | None, up: NDArray[Any] | None) -> Floats:
    if support is not None:
        return support.normal
    return unit_vector(-seen.mean(axis=0) if up is None else up)


def _axes_of(vertical: Floats) -> Floats:
    """Return axes (rows) with the given third one."""
    x, y, z = vertical.tolist()
    # Any direction across it; from the larger two of its parts, so that none is near zero.
    first = (-y, x, 0.0) if abs(z) < max(abs(x), abs(y)) else (0.0, -z, y)
    a, b, c = (each / math.hypot(*first) for each in first)
    second = (y * c - z * b, z * a - x * c, x * b - y * a)
    return np.array([(a, b, c), second, (x, y, z)])


def _surface(cloud: ObjectCloud) -> tuple[Floats, Floats]:
    """Return the cloud, thinned, and its outline continued to where the mask ended.

    A point stands for the middle of its pixel, and the mask lost its edge before: without this
    every side of a box would be too short by one and a half pixels.
    """
    pixels = cloud.pixels_xy
    left, upper, right, lower = cloud.window_xyxy
    grid = np.zeros((lower - upper, right - left, 3), np.float32)
    known = np.zeros(grid.shape[:2], np.bool_)
    places = (pixels[:, 1] - upper) * (right - left) + (pixels[:, 0] - left)
    grid.reshape(-1, 3)[places] = cloud.points_m
    known.reshape(-1)[places] = True
    missing = cloud.eroded_px + 0.5
    ends = np.concatenate(
        [
            _continued(grid, known, axis, sign, missing)
            for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1))
        ]
    )
    # Every so many pixels in both directions; a stride over the list would leave out columns.
    apart = max(1, min(round(math.sqrt(len(cloud) / _SEEN_POINTS)), _most_apart(cloud)))
    surface = grid[::apart, ::apart][known[::apart, ::apart]]
    return surface.astype(np.float64), ends[:: max(1, len(ends) // _OUTLINE_POINTS)]


def _most_apart(cloud: ObjectCloud) -> int:
    """Return how many pixels apart points may be, so that no finger seems to fit between."""
    points, columns = cloud.points_m, cloud.pixels_xy[:, 0]
    left, right = int(columns.argmin()), int(columns.argmax())
    rays = points[[left, right], 0] / points[[left, right], 2]
    footprint = (rays[1] - rays[0]) / max(1, columns[right] - columns[left]) * points[left, 2]
    return int(_MAX_SPACING_M / max(float(footprint), 1e-4))


def _continued(
    grid: NDArray[np.float32], known: NDArray[np.bool_], axis: int, sign: int, missing_px: float
) -> Floats:
    """Continue the surface by so many pixels where it ends in one direction of the picture."""
    if axis == 1:
        grid, known = grid.transpose(1, 0, 2), known.T
    if sign < 0:
        grid, known = grid[::-1], known[::-1]
    ends = known.copy()
    ends[:-1] &= ~known[1:]
    ends[:_BACK_PX] = False
    ends[_BACK_PX:] &= known[:-_BACK_PX]
    rows, columns = np.nonzero(ends)
    here = grid[rows, columns].astype(np.float64)
    back = grid[rows - _BACK_PX, columns].astype(np.float64)
    ray, ray_back = here[:, :2] / here[:, 2:], back[:, :2] / back[:, 2:]
    pixel = (ray - ray_back) / _BACK_PX
    # Steep at a round thing's rim, and without meaning where another surface begins.
    most = _MAX_SLOPE * np.linalg.norm(pixel, axis=1) * here[:, 2]
    deeper = np.clip((here[:, 2] - back[:, 2]) / _BACK_PX, -most, most)
    z = (here[:, 2] + missing_px * deeper)[:, None]
    return np.concatenate(((ray + missing_px * pixel) * z, z), axis=1)


def _longer_side(flat: Floats) -> Floats:
    """Return the turn about z that lays the smallest rectangle's longer side along x."""
    hull = flat[_outermost(flat)]
    coarse = np.arange(float(_COARSE_ANGLES)) * (np.pi / 2 / _COARSE_ANGLES)
    best = coarse[int(_rectangles(hull, coarse).prod(axis=0).argmin())]
    width = np.pi / 2 / _COARSE_ANGLES
    fine = best + np.arange(-1.0 * _FINE_STEPS, _FINE_STEPS + 1) * (width / _FINE_STEPS)
    sides = _rectangles(hull, fine)
    chosen = int(sides.prod(axis=0).argmin())
    angle = float(fine[chosen])
    if sides[1, chosen] > sides[0, chosen]:
        angle += np.pi / 2
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _outermost(flat: Floats) -> NDArray[np.intp]:
    """Return the indices of points that are outermost in some direction: almost the hull."""
    along = _HULL_DIRECTIONS @ flat.T.astype(np.float32)
    return np.unique(np.concatenate((along.argmin(axis=1), along.argmax(axis=1))))


def _rectangles(flat: Floats, angles: Floats) -> Floats:
    """Return float64 [2, A]: the sides of the rectangles around points, along each direction."""
    cos, sin = np.cos(angles), np.sin(angles)
    x, y = flat[:, 0], flat[:, 1]
    spread = np.empty((2, len(angles), len(flat)))
    spread[0] = cos[:, None] * x + sin[:, None] * y
    spread[1] = cos[:, None] * y - sin[:, None] * x
    return np.asarray(spread.max(axis=2) - spread.min(axis=2), np.float64)


def _extent(points: Floats) -> tuple[Floats, Floats]:
    """Return the corners of the box that leaves out the outermost few points of each side."""
    skipped = int(_TRIM_SHARE * len(points))
    last = len(points) - 1 - skipped
    ordered = np.partition(np.ascontiguousarray(points.T), (skipped, last), axis=1)
    return ordered[:, skipped].copy(), ordered[:, last].copy()


def _mirrored(flat: Floats, origin: Floats, axes: Floats, top: float) -> Floats:
    """Return what the object must have behind its visible side if it is symmetric."""
    upper = flat[flat[:, 2] > top - max(_TOP_M, _TOP_SHARE * top)]
    low, high = _extent(upper)
    middle = (low + high) / 2
    shadow = _Shadow(origin + flat @ axes)
    middle[2] = 0.0
    images = np.asarray(((flat - middle) * _MIRRORS + middle).reshape(-1, 3), np.float64)
    behind = shadow.behind_m(origin + images @ axes).reshape(len(_MIRRORS), -1)
    possible = (behind > -_HIDDEN_M).mean(axis=1) >= _MIN_CONSISTENT
    mirrored: Floats = images[((behind > _BEHIND_M) & possible[:, None]).reshape(-1)]
    return mirrored[:: max(1, len(mirrored) // _HIDDEN_POINTS)]


class _Shadow:
    """The space that a cloud hides from the camera, as a coarse picture of its depth."""

    def __init__(self, seen_m: Floats) -> None:
        rays = seen_m[:, :2] / seen_m[:, 2:]
        self._corner = rays.min(axis=0)
        extent = np.maximum(rays.max(axis=0) - self._corner, 1e-6)
        # Cells large enough that every one that is covered has points in it.
        self._cell = float(np.sqrt(extent.prod() / len(rays))) * 2.0
        shape = np.ceil(extent / self._cell).astype(int) + 3
        self._depth = np.full(shape, np.inf)
        place = tuple(self._cells(rays).T)
        np.minimum.at(self._depth, place, seen_m[:, 2])
        self._depth = _nearest(self._depth)

    def _cells(self, rays: Floats) -> NDArray[np.intp]:
        cells = np.floor((rays - self._corner) / self._cell) + 1
        return np.asarray(cells, np.intp)

    def behind_m(self, points_m: Floats) -> Floats:
        """Return float64 [N]: how far behind the cloud points lie; minus infinity beside it."""
        cells = self._cells(points_m[:, :2] / points_m[:, 2:])
        last = np.array(self._depth.shape) - 1
        inside = ((cells >= 0) & (cells <= last)).all(axis=1)
        cells = np.clip(cells, 0, last)
        behind = points_m[:, 2] - self._depth[cells[:, 0], cells[:, 1]]
        return np.where(inside, behind, -np.inf)


def _nearest(depth: Floats) -> Floats:
    """Give every cell the least depth of itself and its neighbours."""
    wide = np.pad(depth, 1, constant_values=np.inf)
    rows = np.minimum(np.minimum(wide[:-2], wide[1:-1]), wide[2:])
    return np.asarray(np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:]), np.float64)
