"""Support plane: what an object stands on, found in the depth around its mask."""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.depth.camera import CameraModel, Floats, unit_vector
from segzero_core.depth.types import ObjectCloud, SupportPlane

_RING_SHARE: Final = 0.35
"""Width of the ring around the mask as a share of the mask's larger side,"""
_RING_PX: Final = (12, 60)
"""and its smallest and largest width."""
_GAP_PX: Final = 3
"""Pixels between mask and ring, because masks are not exact."""
_SAMPLES: Final = 320
_TRIALS: Final = 48
_TOLERANCE: Final = 0.006
"""A point belongs to the plane if it is nearer than this share of its distance to the camera."""
_MIN_SHARE: Final = 0.25
"""Least share of the ring's points in the plane."""
_MAX_BELOW_SHARE: Final = 0.1
"""Largest share of the object's points below the plane."""
_MIN_LEVEL: Final = 0.966
"""Least cosine of the angle between the plane's normal and the known up: 15 degrees."""
_MIN_FACING: Final = 0.1
"""Least cosine of the angle between the plane's normal and the view; less is seen edge-on."""


def find_support_plane(
    mask: NDArray[np.bool_],
    depth_m: NDArray[np.float32],
    camera: CameraModel,
    *,
    cloud: ObjectCloud,
    up: NDArray[Any] | None = None,
) -> SupportPlane | None:
    """Find the plane that most of the surroundings lie in and the object lies above (RANSAC).

    The samples have a fixed seed: the same image gives the same plane.

    Args:
        mask: bool [H, W], of the object.
        depth_m: float32 [H, W], NaN where unknown.
        camera: Of that image.
        cloud: Of that mask.
        up: [3], the direction against gravity in the camera frame. If given, only planes that are
            about level count.

    Returns:
        None if no plane holds enough of the surroundings.
    """
    if up is not None:
        up = unit_vector(up)
    rng = np.random.default_rng(0)
    around = _ring_points(mask, depth_m, camera, cloud, rng)
    if len(around) < _SAMPLES // 10:
        return None
    points = cloud.points_m[:: max(1, len(cloud) // 200)].astype(np.float64)
    normals, offsets = _hypotheses(around, rng, up)
    if len(normals) == 0:
        return None
    tolerances = _TOLERANCE * around[:, 2]
    votes = (np.abs(normals @ around.T - offsets[:, None]) < tolerances).sum(axis=1)
    lowest = offsets[:, None] - _TOLERANCE * points[:, 2].mean()
    below = (normals @ points.T < lowest).sum(axis=1)
    votes[below > _MAX_BELOW_SHARE * len(points)] = 0
    best = int(votes.argmax())
    if votes[best] < _MIN_SHARE * len(around):
        return None
    normal, offset = normals[best], float(offsets[best])
    for share in (1.0, 0.5):
        inside = np.abs(around @ normal - offset) < share * tolerances
        normal, offset = _refined(around.T.compress(inside, axis=1), normal, up)
    return SupportPlane(normal, offset)


def _hypotheses(
    around: Floats, rng: np.random.Generator, up: NDArray[Any] | None
) -> tuple[Floats, Floats]:
    """Return normals [M, 3] towards the camera and offsets [M] of planes through random points."""
    a, b, c = around[rng.integers(len(around), size=(3, _TRIALS))]
    (x, y, z), (u, v, w) = (b - a).T, (c - a).T
    normals = np.stack((y * w - z * v, z * u - x * w, x * v - y * u), axis=1)
    lengths = np.sqrt(np.einsum("ij,ij->i", normals, normals))
    good = lengths > 1e-9
    normals, a_good = normals[good] / lengths[good, None], a[good]
    offsets = np.einsum("ij,ij->i", normals, a_good)
    # The camera, at the origin, sees the upper side of the plane: normal · 0 > offset.
    normals, offsets = np.where(offsets[:, None] > 0, -normals, normals), -np.abs(offsets)
    facing = -offsets > _MIN_FACING * np.sqrt(np.einsum("ij,ij->i", a_good, a_good))
    if up is None:
        return normals[facing], offsets[facing]
    level = facing & (normals @ up > _MIN_LEVEL)
    # In clutter three points are rarely all of the table. With a known normal one is enough.
    flat = np.broadcast_to(up, (_TRIALS, 3))
    return np.concatenate((normals[level], flat)), np.concatenate((offsets[level], a @ up))


def _refined(near: Floats, normal: Floats, up: NDArray[Any] | None) -> tuple[Floats, float]:
    """Fit the plane to points [3, M] by least squares, but keep the normal if it leaves level."""
    middle = near.mean(axis=1)
    off = near - middle[:, None]
    _, axes = np.linalg.eigh(off @ off.T)
    fitted = axes[:, 0] if axes[:, 0] @ normal > 0 else -axes[:, 0]
    if up is None or fitted @ up > _MIN_LEVEL:
        normal = fitted
    return normal, float(normal @ middle)


def _ring_points(
    mask: NDArray[np.bool_],
    depth_m: NDArray[np.float32],
    camera: CameraModel,
    cloud: ObjectCloud,
    rng: np.random.Generator,
) -> Floats:
    """Return float64 [M, 3]: some points of the ring around the mask."""
    low, high = _corners(cloud)
    smallest, largest = _RING_PX
    reach = min(max(int(_RING_SHARE * max(high - low)), smallest), largest)
    left, top = np.maximum(0, low - reach)
    right, bottom = high + reach
    free = ~_grown(mask[top:bottom, left:right], _GAP_PX) & (depth_m[top:bottom, left:right] > 0)
    places = np.flatnonzero(free)
    if len(places) > _SAMPLES:
        places = places[rng.integers(len(places), size=_SAMPLES)]
    rows, columns = np.divmod(places, free.shape[1])
    return _points_at(columns + left, rows + top, depth_m, camera)


def _corners(cloud: ObjectCloud) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first column and row of the cloud's mask, and those after the last."""
    left, top, right, bottom = cloud.window_xyxy
    edge = cloud.eroded_px
    return np.array([left - edge, top - edge]), np.array([right + edge, bottom + edge])


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Grow a mask by a square of so many pixels to each side."""
    square = np.ones((2 * steps + 1, 2 * steps + 1), np.uint8)
    return cv2.dilate(mask.astype(np.uint8), square).astype(np.bool_)


def _points_at(
    columns: NDArray[Any], rows: NDArray[Any], depth_m: NDArray[np.float32], camera: CameraModel
) -> Floats:
    """Return the points that pixels show, float64 [M, 3], where the camera model knows the ray."""
    z = depth_m[rows, columns].astype(np.float64)
    rays = camera.rays(np.stack((columns, rows), axis=1))
    # Each coordinate is contiguous, as the votes read them one by one.
    points = np.empty((3, len(z)))
    points[0], points[1], points[2] = rays[:, 0] * z, rays[:, 1] * z, z
    if not isfinite(points.sum()):
        points = points[:, np.isfinite(points).all(axis=0)]
    return points.T


def nearby_points(
    mask: NDArray[np.bool_],
    depth_m: NDArray[np.float32],
    camera: CameraModel,
    *,
    cloud: ObjectCloud,
    reach_m: float,
    samples: int = 1600,
) -> NDArray[np.float32]:
    """Return float32 [M, 3]: points of the object's surroundings, where a gripper could collide.

    Args:
        mask: bool [H, W], of the object.
        depth_m: float32 [H, W], NaN where unknown.
        camera: Of that image.
        cloud: Of that mask.
        reach_m: Distance around the object [m].
        samples: About the largest number of points, evenly spread over the image.
    """
    low, high = _corners(cloud)
    nearest = max(float(cloud.points_m[:, 2].min()), 1e-3)
    reach = int(np.ceil(reach_m * camera.focal_px / nearest))
    left, top = np.maximum(0, low - reach)
    right, bottom = np.minimum(camera.size_wh, high + reach)
    step = max(1, int(np.sqrt((bottom - top) * (right - left) / samples)))
    # The mask is grown a little, so that the object's own edge is no obstacle.
    own = _grown(mask[top:bottom, left:right], 2)[::step, ::step]
    free = ~own & (depth_m[top:bottom:step, left:right:step] > 0)
    rows, columns = np.divmod(np.flatnonzero(free), free.shape[1])
    return _points_at(columns * step + left, rows * step + top, depth_m, camera).astype(np.float32)
