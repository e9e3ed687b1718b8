"""From a mask and a depth image to the object in the camera's optical frame.

    depth_m = depth_in_meters(depth, "16UC1")
    measured = measure_object(mask, depth_m, CameraModel(k, distortion, (640, 480)))
    measured.box.center_m, measured.box.size_m, measured.grasps[0].position_m

`measure_object` does all steps. Each is also a function of its own: `object_cloud`,
`find_support_plane`, `oriented_box` and `grasp_candidates`. Depth must be registered to the color
image: both have the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.config import GraspConfig
from segzero_core.depth.camera import CameraModel
from segzero_core.depth.grasp_planner import grasps_on_shape
from segzero_core.depth.shape_completion import complete_shape
from segzero_core.depth.support_plane import find_support_plane, nearby_points
from segzero_core.depth.types import Grasp, ObjectCloud, OrientedBox, SupportPlane
from segzero_core.errors import InputError, ShapeError
from segzero_core.geometry import box_from_mask
from segzero_core.limits import MAX_DEPTH_M

ERODE_PX: Final = 1
"""Depth cameras mix object and background in the outermost pixels of a mask."""
MIN_POINTS: Final = 24
"""Fewer points give neither a position nor a size."""
MAX_BORDER_PX: Final = 3
"""An object whose mask has more pixels at the image's border is cut off there."""
_STEP_PX: Final = 8.0
_STEP_M: Final = 0.004
"""Neighboring pixels of one surface differ in depth by at most so many pixel widths, or by so
much; 8 pixel widths correspond to a surface seen at 7 degrees."""
_MIN_NEIGHBORS: Final = 4
"""Of the eight around a pixel. Flying pixels, which lie between two surfaces, have fewer."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """One object in 3D, in the camera's optical frame."""

    cloud: ObjectCloud  # the visible surface
    # The plane that the object stands on; None if none was found around it.
    support: SupportPlane | None
    box: OrientedBox  # around the whole object
    grasps: tuple[Grasp, ...]  # best first; empty if the gripper cannot take the object


def depth_in_meters(depth: NDArray[Any], encoding: str) -> NDArray[np.float32]:
    """Convert a depth image to meters, with NaN for unknown depth.

    Args:
        depth: [H, W] of the encoding's type, in any byte order.
        encoding: 16UC1 (or mono16): millimeters, 0 is unknown. 32FC1: meters; NaN is unknown,
            infinity too far and minus infinity too near (REP 117). These, all numbers that are
            not positive, and all beyond `MAX_DEPTH_M` become NaN.

    Returns:
        float32 [H, W].

    Raises:
        InputError: The encoding is another one.
        ShapeError: The array does not match the encoding.
    """
    types = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
    if encoding not in types:
        raise InputError(
            f"depth encoding {encoding!r} is none of 16UC1 (millimeters) and 32FC1 (meters)"
        )
    dtype = np.dtype(types[encoding])
    if depth.ndim != 2 or depth.dtype.newbyteorder("=") != dtype:
        raise ShapeError("depth", f"{dtype} [H, W] for {encoding}", depth)
    meters = depth.astype(np.float32)
    if dtype == np.uint16:
        meters *= np.float32(0.001)
    meters[~((meters > 0) & (meters < MAX_DEPTH_M))] = np.nan
    return meters


def border_pixels(mask: NDArray[np.bool_]) -> int:
    """Count the pixels of a mask at the image's border, where the camera may cut the object."""
    edges = (mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1])
    return int(sum(np.count_nonzero(edge) for edge in edges))


def object_cloud(
    mask: NDArray[np.bool_],
    depth_m: NDArray[np.float32],
    camera: CameraModel,
    *,
    erode_px: int = ERODE_PX,
) -> ObjectCloud:
    """Turn the pixels of a mask into a point cloud.

    Leaves out the rim of the mask, pixels without depth, and flying pixels.

    Args:
        mask: bool [H, W].
        depth_m: float32 [H, W], NaN where unknown; see `depth_in_meters`.
        camera: Of that image.
        erode_px: Width of the rim [px]; the image's border is no rim.

    Raises:
        ShapeError: The mask is not bool [H, W].
        InputError: The sizes differ, the mask is empty or too thin, or has no depth.
    """
    _check_sizes(mask, depth_m, camera)
    box = box_from_mask(mask)
    if box is None:
        raise InputError("the mask is empty: there is no object to measure")
    # A margin around the box holds what is not object. OpenCV ignores what lies outside an image.
    left, top = (max(0, int(edge) - erode_px) for edge in box.xyxy[:2])
    right, bottom = (int(edge) + erode_px for edge in box.xyxy[2:])
    inside = mask[top:bottom, left:right]
    crop = depth_m[top:bottom, left:right]
    square = np.ones((2 * erode_px + 1, 2 * erode_px + 1), np.uint8)
    kept = cv2.erode(inside.astype(np.uint8), square).astype(np.bool_)
    total = np.count_nonzero(kept)
    if total < MIN_POINTS:
        raise InputError(
            f"the mask is too thin: {np.count_nonzero(inside)} pixels, of which {total} are left "
            f"without its edge; {MIN_POINTS} are needed"
        )
    kept &= (crop > 0) & (crop < MAX_DEPTH_M)  # false for NaN
    valid = np.count_nonzero(kept)
    if valid < MIN_POINTS:
        raise InputError(
            f"no depth under the mask: {valid} of {total} pixels have one, {MIN_POINTS} are "
            "needed; is the object too near, too far, shiny or transparent?"
        )
    rows, columns = _surface_pixels(kept, crop, camera.focal_px)
    pixels = np.empty((len(rows), 2), np.int32)
    pixels[:, 0], pixels[:, 1] = columns + left, rows + top
    z = crop[rows, columns]
    rays = camera.rays(pixels)
    points = np.empty((len(z), 3), np.float32)
    points[:, 0], points[:, 1], points[:, 2] = rays[:, 0] * z, rays[:, 1] * z, z
    if any(camera.distortion):
        known = np.isfinite(rays).all(axis=1)
        points, pixels = points[known], pixels[known]
    if len(points) < MIN_POINTS:
        raise InputError(
            f"the depth under the mask is no surface: {len(points)} of {valid} pixels continue "
            f"their neighbors, {MIN_POINTS} are needed"
        )
    return ObjectCloud(points, pixels, erode_px)


def _check_sizes(mask: NDArray[np.bool_], depth_m: NDArray[Any], camera: CameraModel) -> None:
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ShapeError("mask", "bool [H, W]", mask)
    height, width = mask.shape
    if depth_m.shape != mask.shape:
        raise InputError(
            f"depth is {'x'.join(map(str, depth_m.shape[::-1]))} and the image {width}x{height}; "
            "register depth to color, so that both have the same pixels"
        )
    if camera.size_wh != (width, height):
        raise InputError(
            f"camera_info is for {'x'.join(map(str, camera.size_wh))} and the image is "
            f"{width}x{height}; publish the camera_info of this image"
        )


def _surface_pixels(
    kept: NDArray[np.bool_], depth_m: NDArray[np.float32], focal_px: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the pixels, without flying pixels."""
    height, width = kept.shape
    # One flat list of all pixels, with an unknown one after each row: there is no neighbor there.
    grid = np.full((height, width + 1), np.nan, np.float32)
    np.copyto(grid[:, :width], depth_m, where=kept)
    z = grid.reshape(-1)
    step = np.maximum(z * np.float32(_STEP_PX / focal_px), np.float32(_STEP_M))
    neighbors = np.zeros(z.shape, np.uint8)
    for shift in (1, width, width + 1, width + 2):  # right; down and left, down, down and right
        near = (np.abs(z[:-shift] - z[shift:]) < step[:-shift]).view(np.uint8)
        neighbors[:-shift] += near
        neighbors[shift:] += near
    return np.divmod(np.flatnonzero(neighbors >= _MIN_NEIGHBORS), width + 1)


def measure_object(
    mask: NDArray[np.bool_],
    depth_m: NDArray[np.float32],
    camera: CameraModel,
    *,
    up: NDArray[Any] | None = None,
    grasping: GraspConfig | None = None,
) -> Measurement:
    """Measure one object: point cloud, support plane, box and grasps.

    Args:
        mask: bool [H, W].
        depth_m: float32 [H, W]; see `depth_in_meters`.
        camera: Of that image.
        up: [3], the direction against gravity in the camera frame, where known. Otherwise up is
            the normal of the support plane or, without one, the direction to the camera.
        grasping: The gripper; None finds no grasps.

    Raises:
        InputError: The object cannot be measured; the message says why. An object that the
            image's border cuts has no known size, and so no box.
    """
    try:
        return _measured(mask, depth_m, camera, up, grasping)
    # Depth and calibration are somebody else's: no numbers of theirs are a defect of ours.
    except (ArithmeticError, IndexError, ValueError, np.linalg.LinAlgError, cv2.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the depth under and around the mask has no shape that can be measured: {error}"
        ) from error


def _measured(
    mask: NDArray[np.bool_],
    depth_m: NDArray[np.float32],
    camera: CameraModel,
    up: NDArray[Any] | None,
    grasping: GraspConfig | None,
) -> Measurement:
    cloud = object_cloud(mask, depth_m, camera)
    outside = border_pixels(mask)
    if outside > MAX_BORDER_PX:
        raise InputError(
            f"the object reaches over the image's border ({outside} of its pixels lie there); "
            "turn the camera so that it is seen whole"
        )
    support = find_support_plane(mask, depth_m, camera, cloud=cloud, up=up)
    shape = complete_shape(cloud, support, up=up)
    grasps: tuple[Grasp, ...] = ()
    if grasping is not None:
        reach_m = max(grasping.gripper_opening_m, grasping.palm_width_m / 2)
        around = nearby_points(mask, depth_m, camera, cloud=cloud, reach_m=reach_m)
        grasps = grasps_on_shape(shape, surroundings_m=around, config=grasping)
    return Measurement(cloud, support, shape.box(), grasps)
