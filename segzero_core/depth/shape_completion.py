"""Shape completion from a single view, and the oriented box around the completed shape.

A camera sees only the near side of an object, so the mean of its points lies on the surface and
not in the middle. The shape is therefore completed before it is measured. Below, it reaches down
to the support plane. Behind, it is assumed to be symmetric: the points are mirrored at vertical
planes through the middle of the top, and mirrored points are kept where the camera could not have
seen them. If too many mirrored points would be visible to the camera, that symmetry is rejected.

A depth camera tilts the faces of a tall box by some degrees. Such a box is measured as if it stood
upright, and its points lean again afterwards, as the camera saw them.
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
"""About the numbers of points used; more give the same box and take longer."""
_NEAREST_M: Final = 1e-6
"""A point nearer than this along the view is at or behind the camera."""
_MAX_SPACING_M: Final = 0.006
"""Largest distance of points across the view; large objects get more points for it."""
_DENSE_POINTS: Final = 4000
_BACK_PX: Final = 3
"""The slope of the surface at its outline is taken over at least so many pixels,"""
_MAX_SLOPE: Final = 2.5
"""and limited to this."""
_TOP_SHARE, _TOP_M = 0.05, 0.003
"""The top surface is within this share of the height, or this distance, of the highest point."""
_FOOT_M, _FOOT_SHARE = 0.003, 0.25
"""Points lower than this, or than this share of the height, may belong to the support plane."""
_UPPER_SHARE: Final = 0.12
"""The upper share of the height, which shows the object's orientation,"""
_MIN_UPPER: Final = 40
"""if it has so many points."""
_MIN_CONSISTENT: Final = 0.95
"""Least share of mirrored points that the camera could not have seen, for a symmetry to hold."""
_HIDDEN_M: Final = 0.004
"""A mirrored point so far in front of the visible surface still counts as hidden."""
_BEHIND_M: Final = 0.006
"""A mirrored point adds something new if it is so far behind the visible surface."""
_MIRRORS: Final = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]])
"""Mirrors at the vertical planes along and across the object, and at both: half a turn."""
_TRIM_SHARE: Final = 0.002
"""Share of points beyond each side of the box, which are noise."""
_TALL: Final = 1.5
"""An object may lean if it is so many times as high as its narrower side,"""
_FLAT_SHARE, _FACE_SHARE = 0.75, 0.03
"""and this share of its points are at faces of the box, within this share of its height."""
_LEANS: Final = np.arange(-16.0, 17.0) * 0.005
"""Leans that are tried: the tangents of up to 4.6 degrees."""
_LEAN_GAIN, _LEAN_TRIM = 0.96, 0.01
"""An object leans if upright its footprint is less than this, without this share of its points."""
_COARSE_STEP: Final = math.pi / 90
_COARSE_ANGLES: Final = np.arange(45.0) * _COARSE_STEP
_FINE_ANGLES: Final = np.arange(-16.0, 17.0) * (_COARSE_STEP / 16)
_HULL_ANGLES: Final = np.arange(32) * (np.pi / 32)
_HULL_DIRECTIONS: Final = np.stack((np.cos(_HULL_ANGLES), np.sin(_HULL_ANGLES)), axis=1).astype(
    np.float32
)
_MIN_SIDE_M: Final = 0.001
_MIN_HEIGHT_M: Final = 0.001
"""A lower object cannot be told from the support plane."""


@dataclass(frozen=True, eq=False)
class CompletedShape:
    """Visible and completed points of an object, in a frame on its support plane with z up.

    The point arrays are transposed views, so each coordinate is contiguous, which is faster.
    """

    points: Floats  # float64 [M, 3], visible and completed points [m]
    surface: NDArray[np.float32]  # float32 [N, 3], visible points, denser than `points` [m]
    origin_m: Floats  # float64 [3], origin of the frame in the camera frame [m]
    # float64 [3, 3]; the rows are the frame's axes in the camera frame, x along the longer side of
    # the footprint.
    axes: Floats
    low: Floats  # float64 [3], lowest corner of the box around the points
    high: Floats  # float64 [3], highest corner
    stands: bool  # whether z = 0 is the support plane, and not just the lowest visible point

    def box(self) -> OrientedBox:
        """Return the box around the points, in the camera frame."""
        center = self.origin_m + ((self.low + self.high)[None] / 2 @ self.axes)[0]
        return OrientedBox(center, self.axes.T, np.maximum(self.high - self.low, _MIN_SIDE_M))


def oriented_box(
    cloud: ObjectCloud, support: SupportPlane | None = None, *, up: NDArray[Any] | None = None
) -> OrientedBox:
    """Complete an object that is seen from one side, and return the box around it.

    The box's z axis is the support plane's normal, else `up`, else the direction to the camera.
    The box reaches down to the support plane or, without one, to the lowest visible point.

    Args:
        cloud: The visible surface.
        support: The plane that the object stands on; see `find_support_plane`.
        up: [3], the direction against gravity in the camera frame.

    Raises:
        InputError: All points lie at or below the support plane.
    """
    return complete_shape(cloud, support, up=up).box()


def complete_shape(
    cloud: ObjectCloud, support: SupportPlane | None = None, *, up: NDArray[Any] | None = None
) -> CompletedShape:
    """Complete the shape of an object; see `oriented_box` for arguments and errors."""
    seen = _surface(cloud)
    if support is not None:
        vertical = support.normal
    else:
        vertical = unit_vector(-seen.mean(axis=1) if up is None else up)
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
    # The top shows the orientation of the object; its sides are seen from one direction only.
    upper = flat[:2].compress(flat[2] > (1 - _UPPER_SHARE) * top, axis=1)
    turn = _longer_side(upper if upper.shape[1] >= _MIN_UPPER else flat[:2])
    axes, flat = turn @ axes, turn @ flat
    lean = _lean(flat, top)
    flat = flat - lean * flat[2]
    # Without its lean, the middle of a box with flat sides is that of all its points.
    middle_from = 0.0 if lean.any() else top - max(_TOP_M, _TOP_SHARE * top)
    leaning = axes.copy()
    leaning[2] += (lean * axes).sum(axis=0)
    whole = np.concatenate((flat, _mirrored(flat, origin, leaning, middle_from)), axis=1)
    turn = _longer_side(whole[:2])
    axes, whole, lean = turn @ axes, turn @ whole, turn @ lean
    low, high = _extent(whole)
    low[2], high[2] = 0.0 if support is not None else min(0.0, low[2]), top
    middle = lean[:, 0] * (low[2] + top) / 2
    low, high, whole = low + middle, high + middle, whole + lean * whole[2]
    dense = cloud.points_m[:: max(1, len(cloud) // _DENSE_POINTS)]
    surface = axes.astype(np.float32) @ (dense - origin.astype(np.float32)).T
    return CompletedShape(whole.T, surface.T, origin, axes, low, high, support is not None)


def _axes_of(vertical: Floats) -> Floats:
    """Return axes (rows) of a frame with the given z axis."""
    x, y, z = vertical.tolist()
    # Any horizontal direction, from the larger two components so that its length is not near zero.
    first = (-y, x, 0.0) if abs(z) < max(abs(x), abs(y)) else (0.0, -z, y)
    a, b, c = (value / math.hypot(*first) for value in first)
    second = (y * c - z * b, z * a - x * c, x * b - y * a)
    return np.array([(a, b, c), second, (x, y, z)])


def _surface(cloud: ObjectCloud) -> Floats:
    """Return float64 [3, N]: the thinned cloud, with its outline extended to the mask's.

    A point is the center of its pixel, and the rim of the mask was removed. Without the extension
    each side of a box would be too short by one and a half pixels.
    """
    left, upper, right, lower = cloud.window_xyxy
    # The number of the point at each pixel, from 1; 0 is none.
    numbers = np.zeros((lower - upper, right - left), np.int32)
    places = cloud.pixels_xy @ np.array((1, right - left)) - (upper * (right - left) + left)
    numbers.reshape(-1)[places] = np.arange(1, len(cloud) + 1, dtype=np.int32)
    # Thinned in both directions; a stride over the list would leave out whole columns.
    apart = max(1, min(round(math.sqrt(len(cloud) / _SEEN_POINTS)), _most_apart(cloud)))
    thin = numbers[::apart, ::apart].ravel()
    thin = thin.compress(thin > 0)
    # Over more pixels where there are more, because depth cameras round the edges of an object.
    back_px = max(_BACK_PX, apart)
    here, back = _outline(numbers, back_px)
    points = cloud.points_m.T.take(np.concatenate((thin, here, back)) - 1, axis=1)
    surface, here_m, back_m = np.split(
        points.astype(np.float64), (len(thin), len(thin) + len(here)), axis=1
    )
    ends = _extended(here_m, back_m, back_px, cloud.eroded_px + 0.5)
    return np.concatenate((surface, ends), axis=1)


def _most_apart(cloud: ObjectCloud) -> int:
    """Return the largest spacing of points [px], so that no finger seems to fit between them."""
    points, columns = cloud.points_m, cloud.pixels_xy[:, 0]
    left, right = int(columns.argmin()), int(columns.argmax())
    rays = points[[left, right], 0] / points[[left, right], 2]
    footprint = (rays[1] - rays[0]) / max(1, columns[right] - columns[left]) * points[left, 2]
    return int(_MAX_SPACING_M / max(float(footprint), 1e-4))


def _outline(
    numbers: NDArray[np.int32], back_px: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the points at both ends of rows and columns, and those `back_px` before each."""
    ends, backs = [], []
    turned = numbers.T.copy()
    for grid in (numbers, numbers[::-1], turned, turned[::-1]):
        here, back = grid[back_px:], grid[:-back_px]
        end = (here > 0) & (back > 0)
        end[:-1] &= here[1:] == 0
        end[:-2] &= here[2:] == 0  # one missing pixel is a hole
        places = np.flatnonzero(end)
        ends.append(here.reshape(-1).take(places))
        backs.append(back.reshape(-1).take(places))
    step = max(1, sum(map(len, ends)) // _OUTLINE_POINTS)
    return np.concatenate(ends)[::step], np.concatenate(backs)[::step]


def _extended(here: Floats, back: Floats, back_px: int, missing_px: float) -> Floats:
    """Extend the surface by `missing_px` in the direction from `back` to `here`, [3, N]."""
    ray, ray_back = here[:2] / here[2], back[:2] / back[2]
    pixel = (ray - ray_back) / back_px
    # The slope is steep at a round rim, and meaningless where another surface begins.
    most = _MAX_SLOPE * np.sqrt(pixel[0] * pixel[0] + pixel[1] * pixel[1]) * here[2]
    deeper = np.minimum(np.maximum((here[2] - back[2]) / back_px, -most), most)
    z = here[2] + missing_px * deeper
    return np.concatenate(((ray + missing_px * pixel) * z, z[None]))


def _longer_side(flat: Floats) -> Floats:
    """Return the rotation about z that aligns x with the longer side of the smallest rectangle.

    The rectangle is around the points `flat`, [2, N].
    """
    # The outermost points in many directions are almost the convex hull.
    along = _HULL_DIRECTIONS @ flat.astype(np.float32)
    hull = flat.take(np.concatenate((along.argmin(axis=1), along.argmax(axis=1))), axis=1)
    best = _COARSE_ANGLES[int(_rectangles(hull, _COARSE_ANGLES).prod(axis=0).argmin())]
    fine = best + _FINE_ANGLES
    sides = _rectangles(hull, fine)
    chosen = int(sides.prod(axis=0).argmin())
    angle = float(fine[chosen])
    if sides[1, chosen] > sides[0, chosen]:
        angle += math.pi / 2
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _rectangles(flat: Floats, angles: Floats) -> Floats:
    """Return float64 [2, A]: the sides of the rectangle around points at each angle."""
    cos, sin = np.cos(angles), np.sin(angles)
    turns: Floats = np.array(((cos, sin), (-sin, cos)))
    spread = turns.transpose(0, 2, 1) @ flat
    return np.asarray(spread.max(axis=2) - spread.min(axis=2), np.float64)


def _extent(points: Floats, trimmed: float = _TRIM_SHARE) -> tuple[Floats, Floats]:
    """Return lowest and highest of each row of [K, N], without a few outliers at each end."""
    skipped = int(trimmed * points.shape[1])
    last = points.shape[1] - 1 - skipped
    ordered = np.partition(points, (skipped, last), axis=1)
    return ordered[:, skipped].copy(), ordered[:, last].copy()


def _lean(flat: Floats, top: float) -> Floats:
    """Return float64 [3, 1]: how far a tall box leans in x and y for its height; mostly zeros."""
    none = np.zeros((3, 1))
    if top < _TALL * np.ptp(flat[:2], axis=1).min():
        return none
    moved = flat[:2, None] - _LEANS[:, None] * flat[2]
    low, high = _extent(moved.reshape(-1, flat.shape[1]), _LEAN_TRIM)
    widths = (high - low).reshape(2, -1)
    if widths.min(axis=1).prod() > _LEAN_GAIN * widths[:, len(_LEANS) // 2].prod():
        return none
    best = widths.argmin(axis=1)
    upright = np.concatenate((moved[(0, 1), best], flat[2:]))
    low, high = _extent(upright, _LEAN_TRIM)
    low[2] = -np.inf  # the face below is never seen
    apart = np.minimum(upright - low[:, None], high[:, None] - upright).min(axis=0)
    flat_sided = np.count_nonzero(apart < _FACE_SHARE * top) > _FLAT_SHARE * len(apart)
    return np.array([*_LEANS[best], 0.0])[:, None] if flat_sided else none


def _mirrored(flat: Floats, origin: Floats, axes: Floats, middle_from: float) -> Floats:
    """Return [3, M]: mirrored points behind the visible side, for the symmetries that hold.

    Args:
        flat: [3, N], visible points in the frame.
        origin: [3], of the frame in the camera frame.
        axes: [3, 3]; the rows are the frame's axes in the camera frame, of which z may lean.
        middle_from: Points above this height show where the object's middle is [m].
    """
    low, high = _extent(flat[:2].compress(flat[2] > middle_from, axis=1))
    # A mirrored point is the point times -1 or 1, plus a move.
    moves = (1 - _MIRRORS) * [*(low + high) / 2, 0.0]
    depth = _DepthBuffer(axes.T @ flat + origin[:, None])
    turns = axes.T * _MIRRORS[:, None]
    places = (moves @ axes + origin)[:, :, None]
    behind = depth.behind_m(turns @ flat + places)
    consistent = (behind > -_HIDDEN_M).sum(axis=1) >= _MIN_CONSISTENT * flat.shape[1]
    chosen = np.flatnonzero((behind > _BEHIND_M) & consistent[:, None])
    chosen = chosen[:: max(1, len(chosen) // _HIDDEN_POINTS)]
    which, points = np.divmod(chosen, flat.shape[1])
    return np.asarray(flat.take(points, axis=1) * _MIRRORS[which].T + moves[which].T, np.float64)


class _DepthBuffer:
    """Coarse depth image of a cloud, which tells what the cloud hides from the camera."""

    def __init__(self, seen_m: Floats) -> None:
        seen_m = seen_m.compress(seen_m[2] > _NEAREST_M, axis=1)
        rays = seen_m[:2] / seen_m[2]
        self._corner = rays.min(axis=1)[:, None]
        extent = np.maximum(rays.max(axis=1) - self._corner[:, 0], 1e-6)
        # Cells are large enough for each covered one to contain points.
        self._cell = math.sqrt(extent[0] * extent[1] / rays.shape[1]) * 2.0
        # A border of two cells: one to grow into, and one that hides nothing.
        rows, self._width = (math.ceil(side / self._cell) + 5 for side in extent)
        self._last = np.array([[rows - 1], [self._width - 1]])
        depth = np.full(rows * self._width, np.inf)
        np.minimum.at(depth, self._cells(rays), seen_m[2])
        # Each cell gets the least depth of itself and its neighbors.
        for step in (1, self._width):
            depth[step:-step] = np.minimum(
                np.minimum(depth[: -2 * step], depth[2 * step :]), depth[step:-step]
            )
        self._depth = depth

    def _cells(self, rays: Floats) -> NDArray[np.intp]:
        """Return the indices of the cells that rays [..., 2, N] go through."""
        cells = (rays - self._corner) / self._cell + 2
        cells = np.minimum(np.maximum(cells, 0), self._last).astype(np.intp)
        return np.asarray(cells[..., 0, :] * self._width + cells[..., 1, :], np.intp)

    def behind_m(self, points_m: Floats) -> Floats:
        """Return how far behind the cloud points [K, 3, N] are; minus infinity beside it."""
        z = points_m[:, 2:]
        seen = z > _NEAREST_M  # others lie behind the camera, where nothing hides them
        cells = self._cells(np.where(seen, points_m[:, :2] / np.where(seen, z, 1.0), 0.0))
        behind = points_m[:, 2] - self._depth.take(cells)
        return np.asarray(np.where(seen[:, 0], behind, -np.inf), np.float64)
