"""What depth says about the objects of an answer, as the page draws it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.depth import CameraModel, Grasp, OrientedBox
from segzero_core.limits import MAX_DEPTH_M
from segzero_core.types import RgbImage

CLOUD_POINTS: Final = 25_000
"""Points of the scene that the page turns; more would make it slow."""
_FARTHEST_M: Final = 30.0
"""A point's coordinates are sent in millimeters, in 16 bits."""


def space_record(
    box: OrientedBox, grasps: Sequence[Grasp], camera: CameraModel | None
) -> dict[str, Any]:
    """Describe an object in space.

    Args:
        box: Around the object.
        grasps: Best first.
        camera: Of the image, for what is drawn into it; None where box and grasps are not in its
            frame.
    """
    record: dict[str, Any] = {
        "size_m": _rounded(box.size_m),
        "center_m": _rounded(box.center_m),
        "box_lines_m": _rounded(box.edges_m()),
        "box_lines_px": _projected(box.edges_m(), camera),
    }
    if grasps:
        best = grasps[0]
        record["grasp"] = {
            "width_m": round(best.width_m, 4),
            "score": round(best.score, 3),
            "position_m": _rounded(best.position_m),
            "lines_m": _rounded(best.gripper_lines_m()),
            "lines_px": _projected(best.gripper_lines_m(), camera),
        }
    return record


def unmeasured_record(reason: str) -> dict[str, Any]:
    """Say why an object has no place in space."""
    return {"reason": reason}


def cloud_record(
    color: RgbImage,
    depth_m: NDArray[np.float32],
    masks: NDArray[np.bool_],
    camera: CameraModel,
) -> dict[str, Any]:
    """Return the scene as a cloud, thinned evenly over the image.

    Args:
        color: uint8 [H, W, 3].
        depth_m: float32 [H, W], NaN where unknown.
        masks: bool [N, H, W].
        camera: Of that image.
    """
    height, width = depth_m.shape
    step = max(1, round((height * width / CLOUD_POINTS) ** 0.5))
    rows, columns = (grid.ravel() for grid in np.mgrid[0:height:step, 0:width:step])
    z = depth_m[rows, columns]
    rays = camera.rays(np.stack((columns, rows), axis=1))
    points = np.column_stack((rays, np.ones(len(rays)))) * z[:, None]
    return points_record(
        points, color[rows, columns], masks[:, rows, columns].any(axis=0).astype(np.uint8)
    )


def points_record(
    points_m: NDArray[Any], color: NDArray[np.uint8], is_object: NDArray[np.uint8]
) -> dict[str, Any]:
    """Encode points [N, 3] with their colors [N, 3]; what is not finite or too far is left out."""
    with np.errstate(invalid="ignore"):
        kept = (np.abs(points_m) < min(_FARTHEST_M, MAX_DEPTH_M)).all(axis=1)
    millimeters = (points_m[kept] * 1000).round().astype("<i2")
    parts = {"points_mm": millimeters, "color": color[kept], "is_object": is_object[kept]}
    return {
        name: base64.b64encode(np.ascontiguousarray(part).tobytes()).decode()
        for name, part in parts.items()
    }


def _projected(points_m: NDArray[Any], camera: CameraModel | None) -> list[list[float]] | None:
    """Return pixels [px]; None where a point is not in front of the camera."""
    if camera is None or not (points_m[:, 2] > 0).all():
        return None
    return [[round(x, 1), round(y, 1)] for x, y in camera.pixels(points_m).tolist()]


def _rounded(values: NDArray[Any]) -> Any:
    return np.round(np.asarray(values, np.float64), 4).tolist()
