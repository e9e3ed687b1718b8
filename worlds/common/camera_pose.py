"""Where a camera is in a simulated world, and its pinhole parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worlds.common.simulator import mujoco

IMAGE_SIZE_WH = (640, 480)


@dataclass(frozen=True, eq=False)
class CameraPose:
    """Where the camera is. `rotation` maps the optical frame (x right, y down, z forward)."""

    position_m: NDArray[np.float64]
    rotation: NDArray[np.float64]
    fov_y_rad: float

    def quaternion_xyzw(self) -> tuple[float, float, float, float]:
        """The rotation as a quaternion."""
        wxyz = np.zeros(4)
        mujoco.mju_mat2Quat(wxyz, np.ascontiguousarray(self.rotation).ravel())
        w, x, y, z = wxyz.tolist()
        return x, y, z, w

    def intrinsics(self, size_wh: tuple[int, int] = IMAGE_SIZE_WH) -> dict[str, float]:
        """Pinhole parameters [px]; square pixels, center in the middle of the image."""
        focal = size_wh[1] / 2 / math.tan(self.fov_y_rad / 2)
        return {"fx": focal, "fy": focal, "cx": size_wh[0] / 2, "cy": size_wh[1] / 2}


def direction(azimuth_rad: float, elevation_rad: float) -> NDArray[np.float64]:
    """The unit vector that points to an azimuth and so far up."""
    cos = math.cos(elevation_rad)
    return np.array(
        [cos * math.cos(azimuth_rad), cos * math.sin(azimuth_rad), math.sin(elevation_rad)]
    )
