"""From a mask and a depth picture to the object in the camera's frame.

    depth_m = depth_in_metres(depth, "16UC1")
    found = measure_object(mask, depth_m, CameraModel(k, distortion, (640, 480)))
    found.box.centre_m, found.box.size_m, found.grasps[0].position_m

`measure_object` does all steps; each can be had alone: `object_cloud`, `support_plane`,
`oriented_box`, `grasp_candidates`. Depth must be registered to the colour picture: a pixel of one
is the same pixel of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.config import GraspConfig
from segzero_core.depth.camera import CameraModel
from segzero_core.depth.grasp_planner import grasp_candidates, grasps_of_body
from segzero_core.depth.shape_completion import body_of, box_of_body, oriented_box
from segzero_core.depth.support_plane import nearby_points, support_plane
from segzero_core.depth.types import Grasp, ObjectCloud, OrientedBox, SupportPlane
from segzero_core.errors import InputError, ShapeError
from segzero_core.geometry import box_from_mask

__all__ = [
    "CameraModel",
    "Grasp",
    "GraspConfig",
    "Measurement",
    "ObjectCloud",
    "OrientedBox",
    "SupportPlane",
    "border_pixels",
    "depth_in_metres",
    "grasp_candidates",
    "measure_object",
    "nearby_points",
    "object_cloud",
    "oriented_box",
    "support_plane",
]

ERODE_PX: Final = 1
"""Depth cameras mix object and background in the outermost pixels of a mask."""
MIN_POINTS: Final = 24
"""Fewer tell neither a place nor a size."""
MAX_BORDER_PX: Final = 3
"""A mask with more pixels at the picture's border is of an object that is cut off there."""
_STEP_PX: Final = 8.0
_STEP_M: Final = 0.004
"""Neighbouring pixels of one surface differ in depth by at most so many pixels' widths, or so
much; 8 is a surface seen at 7 degrees."""
_MIN_NEIGHBOURS: Final = 4
"""Of the eight around a pixel; flying pixels hang between two surfaces and have fewer."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Everything that is known about one object in space, in the camera's optical frame.

    Attributes:
        cloud: The surface that is seen.
        support: What the object stands on; None where no plane was found around it.
        box: Around the whole object.
        grasps: Best first; none where the gripper cannot take it.
    """

    cloud: ObjectCloud
    support: SupportPlane | None
    box: OrientedBox
    grasps: tuple[Grasp, ...]


def depth_in_metres(depth: NDArray[Any], encoding: str) -> NDArray[np.float32]:
    """Convert a depth picture to metres, NaN where nothing is known.

    Args:
        depth: [H, W] of the encoding's type, in any byte order.
        encoding: 16UC1 (or mono16): millimetres, 0 is unknown; 32FC1: metres, where NaN is
            unknown, infinity is too far and minus infinity too near (REP 117), all of which become
            NaN, like numbers that are not positive.

    Returns:
        float32 [H, W].

    Raises:
        InputError: The encoding is another.
        ShapeError: The array is not what the encoding says.
    """
    kinds = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
    if encoding not in kinds:
        raise InputError(
            f"depth encoding {encoding!r} is none of 16UC1 (millimetres) and 32FC1 (metres)"
        )
    kind = np.dtype(kinds[encoding])
    if depth.ndim != 2 or depth.dtype.newbyteorder("=") != kind:
        raise ShapeError("depth", f"{kind} [H, W] for {encoding}", depth)
    metres = depth.astype(np.float32)
    if kind == np.uint16:
        metres *= np.float32(0.001)
    metres[~((metres > 0) & (metres < np.inf))] = np.nan
    return metres


def check_alike(mask: NDArray[np.bool_], depth_m: NDArray[Any], camera: CameraModel) -> None:
    """Refuse a mask, a depth picture and a camera of different sizes.

    Raises:
        ShapeError: The mask is no bool [H, W].
        InputError: The sizes differ.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ShapeError("mask", "bool [H, W]", mask)
    if depth_m.shape != mask.shape:
        raise InputError(
            f"depth is {_size(depth_m)} and the picture {_size(mask)}; register depth to colour, "
            "so that both have the same pixels"
        )
    if camera.size_wh != (mask.shape[1], mask.shape[0]):
        width, height = camera.size_wh
        raise InputError(
            f"camera_info is for {width}x{height} and the picture is {_size(mask)}; publish the "
            "camera_info of this picture"
        )


def _size(array: NDArray[Any]) -> str:
    return "x".join(map(str, array.shape[::-1]))


def border_pixels(mask: NDArray[np.bool_]) -> int:
    """Count the mask's pixels at the picture's border: there the object goes on unseen."""
    edges = (mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1])
    return int(sum(np.count_nonzero(edge) for edge in edges))


def object_cloud(
    mask: NDArray[np.bool_],
    depth_m: NDArray[np.float32],
    camera: CameraModel,
    *,
    erode_px: int = ERODE_PX,
) -> ObjectCloud:
    """Lift the pixels of a mask into space.

    The mask's edge is taken off first, then pixels without depth and flying pixels: those that
    most of their neighbours do not continue.

    Args:
        mask: bool [H, W].
        depth_m: float32 [H, W], NaN where unknown; see `depth_in_metres`.
        camera: Of that picture.
        erode_px: How many pixels to take off; the picture's border is no edge.

    Raises:
        InputError: The sizes differ, the mask is empty or too thin, or has no depth.
    """
    check_alike(mask, depth_m, camera)
    box = box_from_mask(mask)
    if box is None:
        raise InputError("the mask is empty: there is no object to measure")
    left, top, right, bottom = (int(edge) for edge in box.xyxy)
    inside = mask[top:bottom, left:right]
    crop = depth_m[top:bottom, left:right]
    kept = _eroded(inside, erode_px, _at_border((left, top, right, bottom), mask.shape))
    total = np.count_nonzero(kept)
    if total < MIN_POINTS:
        raise InputError(
            f"the mask is too thin: {np.count_nonzero(inside)} pixels, of which {total} are left "
            f"without its edge; {MIN_POINTS} are needed"
        )
    kept &= crop > 0  # false for NaN
    valid = np.count_nonzero(kept)
    if valid < MIN_POINTS:
        raise InputError(
            f"no depth under the mask: {valid} of {total} pixels have one, {MIN_POINTS} are "
            "needed; is the object too near, too far, shiny or transparent?"
        )
    rows, columns = _without_flying(kept, crop, camera.focal_px)
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
            f"their neighbours, {MIN_POINTS} are needed"
        )
    return ObjectCloud(points, pixels, erode_px)


def _at_border(
    edges: tuple[int, int, int, int], shape: tuple[int, ...]
) -> tuple[bool, bool, bool, bool]:
    left, top, right, bottom = edges
    return left == 0, top == 0, right == shape[1], bottom == shape[0]


def _eroded(
    mask: NDArray[np.bool_], steps: int, at_border: tuple[bool, bool, bool, bool]
) -> NDArray[np.bool_]:
    """Take pixels off a mask's edge, all eight neighbours counting."""
    left, top, right, bottom = at_border
    for _ in range(steps):
        wide = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.bool_)
        wide[1:-1, 1:-1] = mask
        # What the picture does not show counts as object.
        if left:
            wide[:, 0] = wide[:, 1]
        if right:
            wide[:, -1] = wide[:, -2]
        if top:
            wide[0] = wide[1]
        if bottom:
            wide[-1] = wide[-2]
        tall = wide[:, :-2] & wide[:, 1:-1] & wide[:, 2:]
        mask = tall[:-2] & tall[1:-1] & tall[2:]
    return mask


def _without_flying(
    kept: NDArray[np.bool_], depth_m: NDArray[np.float32], focal_px: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the pixels that enough of their neighbours continue."""
    height, width = kept.shape
    # One list of all pixels, with an unknown one after each row: no neighbour there.
    grid = np.full((height, width + 1), np.nan, np.float32)
    np.copyto(grid[:, :width], depth_m, where=kept)
    z = grid.reshape(-1)
    step = np.maximum(z * np.float32(_STEP_PX / focal_px), np.float32(_STEP_M))
    alike = np.zeros(z.shape, np.uint8)
    for shift in (1, width, width + 1, width + 2):  # right; down and left, down, down and right
        near = (np.abs(z[:-shift] - z[shift:]) < step[:-shift]).view(np.uint8)
        alike[:-shift] += near
        alike[shift:] += near
    return np.divmod(np.flatnonzero(alike >= _MIN_NEIGHBOURS), width + 1)


def measure_object(
    mask: NDArray[np.bool_],
    depth_m: NDArray[np.float32],
    camera: CameraModel,
    *,
    up: NDArray[Any] | None = None,
    grasping: GraspConfig | None = None,
) -> Measurement:
    """Do every step for one object.

    Args:
        mask: bool [H, W].
        depth_m: float32 [H, W]; see `depth_in_metres`.
        camera: Of that picture.
        up: [3], against gravity in the camera frame, where it is known; else the plane around the
            object tells it, and without one the direction to the camera takes its place.
        grasping: The gripper; None finds no grasps.

    Raises:
        InputError: It cannot be measured; the message says why. An object that the picture's
            border cuts has no known size, and so no box.
    """
    cloud = object_cloud(mask, depth_m, camera)
    outside = border_pixels(mask)
    if outside > MAX_BORDER_PX:
        raise InputError(
            f"the object reaches over the picture's border ({outside} of its pixels lie there); "
            "turn the camera so that it is seen whole"
        )
    support = support_plane(mask, depth_m, camera, cloud=cloud, up=up)
    body = body_of(cloud, support, up=up)
    grasps: tuple[Grasp, ...] = ()
    if grasping is not None:
        around = nearby_points(
            mask, depth_m, camera, cloud=cloud, reach_m=grasping.gripper_opening_m
        )
        grasps = grasps_of_body(body, surroundings_m=around, config=grasping)
    return Measurement(cloud, support, box_of_body(body), grasps)
