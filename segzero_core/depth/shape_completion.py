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

from segzero_core.depth.camera import Floats, unit_vector
from segzero_core.depth.types import ObjectCloud, OrientedBox, SupportPlane
from segzero_core.errors import InputError

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
_MIRRORS: Final = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]])
"""At the vertical planes along and across it, and at both: half a turn."""
_BEHIND_M: Final = 0.006
"""and so much behind it does it tell something new."""
_TRIM_SHARE: Final = 0.002
"""Of the points beyond each side of the box: noise of the camera."""
_COARSE_STEP: Final = math.pi / 90
_COARSE_ANGLES: Final = np.arange(45.0) * _COARSE_STEP
_FINE_ANGLES: Final = np.arange(-16.0, 17.0) * (_COARSE_STEP / 16)
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

    Arrays of points are transposed ones: each coordinate lies in one piece, which is faster.

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
    seen = _surface(cloud)
    vertical = _vertical(seen, support, up)
    heights = vertical @ seen
    lowest, last = len(heights) // 100, len(heights) - 1 - round(_TRIM_SHARE * len(heights))
    ordered = np.partition(heights, (lowest, last))
    ground = support.offset_m if support else float(ordered[lowest])
    top = float(ordered[last]) - ground
    if support is not None:
        foot = min(_FOOT_M, _FOOT_SHARE * top)
        seen = seen.compress(heights > ground + foot, axis=1)
    if top < _MIN_HEIGHT_M or seen.shape[1] < 3:
        raise InputError(
            f"the object does not rise above what it lies on (its top is at {1000 * top:.0f} mm); "
            "is the mask on the object?"
        )
    axes = _axes_of(vertical)
    origin = seen.mean(axis=1)
    origin = origin + (ground - origin @ vertical) * vertical
    flat = axes @ (seen - origin[:, None])
    # The top shows how the object lies; what is seen of its sides is one-sided.
    upper = flat[:2].compress(flat[2] > (1 - _UPPER_SHARE) * top, axis=1)
    turn = _longer_side(upper if upper.shape[1] >= _MIN_UPPER else flat[:2])
    axes, flat = turn @ axes, turn @ flat
    whole = np.concatenate((flat, _mirrored(flat, origin, axes, top)), axis=1)
    turn = _longer_side(whole[:2])
    axes, whole = turn @ axes, turn @ whole
    low, high = _extent(whole)
    low[2], high[2] = 0.0 if support is not None else min(0.0, low[2]), top
    dense = cloud.points_m[:: max(1, len(cloud) // _DENSE_POINTS)]
    surface = axes.astype(np.float32) @ (dense - origin.astype(np.float32)).T
    return Body(whole.T, surface.T, origin, axes, low, high, support is not None)


def _vertical(seen: Floats, support: SupportPlane | None, up: NDArray[Any] | None) -> Floats:
    if support is not None:
        return support.normal
    return unit_vector(-seen.mean(axis=1) if up is None else up)


def _axes_of(vertical: Floats) -> Floats:
    """Return axes (rows) with the given third one."""
    x, y, z = vertical.tolist()
    # Any direction across it; from the larger two of its parts, so that none is near zero.
    first = (-y, x, 0.0) if abs(z) < max(abs(x), abs(y)) else (0.0, -z, y)
    a, b, c = (each / math.hypot(*first) for each in first)
    second = (y * c - z * b, z * a - x * c, x * b - y * a)
    return np.array([(a, b, c), second, (x, y, z)])


def _surface(cloud: ObjectCloud) -> Floats:
    """Return float64 [3, N]: the cloud, thinned, and its outline continued to the mask's.

    A point stands for the middle of its pixel, and the mask lost its edge before: without this
    every side of a box would be too short by one and a half pixels.
    """
    left, upper, right, lower = cloud.window_xyxy
    # The number of the point that is seen at each pixel; 0 is none.
    numbers = np.zeros((lower - upper, right - left), np.int32)
    places = cloud.pixels_xy @ np.array((1, right - left)) - (upper * (right - left) + left)
    numbers.reshape(-1)[places] = np.arange(1, len(cloud) + 1, dtype=np.int32)
    # Every so many pixels in both directions; a stride over the list would leave out columns.
    apart = max(1, min(round(math.sqrt(len(cloud) / _SEEN_POINTS)), _most_apart(cloud)))
    thin = numbers[::apart, ::apart].ravel()
    thin = thin.compress(thin > 0)
    here, back = _outline(numbers)
    points = cloud.points_m.T.take(np.concatenate((thin, here, back)) - 1, axis=1)
    surface, here_m, back_m = np.split(
        points.astype(np.float64), (len(thin), len(thin) + len(here)), axis=1
    )
    ends = _continued(here_m, back_m, cloud.eroded_px + 0.5)
    return np.concatenate((surface, ends), axis=1)


def _most_apart(cloud: ObjectCloud) -> int:
    """Return how many pixels apart points may be, so that no finger seems to fit between."""
    points, columns = cloud.points_m, cloud.pixels_xy[:, 0]
    left, right = int(columns.argmin()), int(columns.argmax())
    rays = points[[left, right], 0] / points[[left, right], 2]
    footprint = (rays[1] - rays[0]) / max(1, columns[right] - columns[left]) * points[left, 2]
    return int(_MAX_SPACING_M / max(float(footprint), 1e-4))


def _outline(numbers: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the points at the ends of rows and columns, and those `_BACK_PX` before each."""
    ends, backs = [], []
    turned = numbers.T.copy()
    for grid in (numbers, numbers[::-1], turned, turned[::-1]):
        here, back = grid[_BACK_PX:], grid[:-_BACK_PX]
        end = (here > 0) & (back > 0)
        end[:-1] &= here[1:] == 0
        places = np.flatnonzero(end)
        ends.append(here.reshape(-1).take(places))
        backs.append(back.reshape(-1).take(places))
    step = max(1, sum(map(len, ends)) // _OUTLINE_POINTS)
    return np.concatenate(ends)[::step], np.concatenate(backs)[::step]


def _continued(here: Floats, back: Floats, missing_px: float) -> Floats:
    """Continue the surface by so many pixels, the way it goes from `back` to `here`, [3, N]."""
    ray, ray_back = here[:2] / here[2], back[:2] / back[2]
    pixel = (ray - ray_back) / _BACK_PX
    # Steep at a round thing's rim, and without meaning where another surface begins.
    most = _MAX_SLOPE * np.sqrt(pixel[0] * pixel[0] + pixel[1] * pixel[1]) * here[2]
    deeper = np.minimum(np.maximum((here[2] - back[2]) / _BACK_PX, -most), most)
    z = here[2] + missing_px * deeper
    return np.concatenate(((ray + missing_px * pixel) * z, z[None]))


def _longer_side(flat: Floats) -> Floats:
    """Return the turn about z that lays the longer side of the smallest rectangle along x.

    Args:
        flat: [2, N], the points that the rectangle is around.
    """
    hull = _outermost(flat)
    best = _COARSE_ANGLES[int(_rectangles(hull, _COARSE_ANGLES).prod(axis=0).argmin())]
    fine = best + _FINE_ANGLES
    sides = _rectangles(hull, fine)
    chosen = int(sides.prod(axis=0).argmin())
    angle = float(fine[chosen])
    if sides[1, chosen] > sides[0, chosen]:
        angle += math.pi / 2
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _outermost(flat: Floats) -> Floats:
    """Return [2, M]: the points that are outermost in some direction, almost the hull."""
    along = _HULL_DIRECTIONS @ flat.astype(np.float32)
    return flat.take(np.concatenate((along.argmin(axis=1), along.argmax(axis=1))), axis=1)


def _rectangles(flat: Floats, angles: Floats) -> Floats:
    """Return float64 [2, A]: the sides of the rectangles around points, along each direction."""
    cos, sin = np.cos(angles), np.sin(angles)
    turns: Floats = np.array(((cos, sin), (-sin, cos)))
    spread = turns.transpose(0, 2, 1) @ flat
    return np.asarray(spread.max(axis=2) - spread.min(axis=2), np.float64)


def _extent(points: Floats) -> tuple[Floats, Floats]:
    """Return the corners of the box that leaves out the outermost few points [3, N] per side."""
    skipped = int(_TRIM_SHARE * points.shape[1])
    last = points.shape[1] - 1 - skipped
    ordered = np.partition(points, (skipped, last), axis=1)
    return ordered[:, skipped].copy(), ordered[:, last].copy()


def _mirrored(flat: Floats, origin: Floats, axes: Floats, top: float) -> Floats:
    """Return [3, M]: what must be behind the visible side of an object that is symmetric."""
    upper = flat[:2].compress(flat[2] > top - max(_TOP_M, _TOP_SHARE * top), axis=1)
    low, high = _extent(upper)
    # A mirror image is the point times -1 or 1, moved.
    moves = (1 - _MIRRORS) * [*(low + high) / 2, 0.0]
    shadow = _Shadow(axes.T @ flat + origin[:, None])
    turns = axes.T * _MIRRORS[:, None]
    places = (moves @ axes + origin)[:, :, None]
    behind = shadow.behind_m(turns @ flat + places)
    consistent = (behind > -_HIDDEN_M).sum(axis=1) >= _MIN_CONSISTENT * flat.shape[1]
    chosen = np.flatnonzero((behind > _BEHIND_M) & consistent[:, None])
    chosen = chosen[:: max(1, len(chosen) // _HIDDEN_POINTS)]
    which, points = np.divmod(chosen, flat.shape[1])
    return np.asarray(flat.take(points, axis=1) * _MIRRORS[which].T + moves[which].T, np.float64)


class _Shadow:
    """The space that a cloud hides from the camera, as a coarse picture of its depth."""

    def __init__(self, seen_m: Floats) -> None:
        rays = seen_m[:2] / seen_m[2]
        self._corner = rays.min(axis=1)[:, None]
        extent = np.maximum(rays.max(axis=1) - self._corner[:, 0], 1e-6)
        # Cells large enough that every one that is covered has points in it.
        self._cell = math.sqrt(extent[0] * extent[1] / rays.shape[1]) * 2.0
        # Two cells around it: one to grow into, and one that hides nothing.
        rows, self._width = (math.ceil(each / self._cell) + 5 for each in extent)
        self._last = np.array([[rows - 1], [self._width - 1]])
        depth = np.full(rows * self._width, np.inf)
        np.minimum.at(depth, self._cells(rays), seen_m[2])
        # Every cell gets the least depth of itself and its neighbours.
        for step in (1, self._width):
            depth[step:-step] = np.minimum(
                np.minimum(depth[: -2 * step], depth[2 * step :]), depth[step:-step]
            )
        self._depth = depth

    def _cells(self, rays: Floats) -> NDArray[np.intp]:
        """Return the numbers of the cells that rays [..., 2, N] go through."""
        cells = (rays - self._corner) / self._cell + 2
        cells = np.minimum(np.maximum(cells, 0), self._last).astype(np.intp)
        return np.asarray(cells[..., 0, :] * self._width + cells[..., 1, :], np.intp)

    def behind_m(self, points_m: Floats) -> Floats:
        """Return how far behind the cloud points [K, 3, N] lie; minus infinity beside it."""
        cells = self._cells(points_m[:, :2] / points_m[:, 2:])
        return np.asarray(points_m[:, 2] - self._depth.take(cells), np.float64)
