"""Frozen value types in 3D: point cloud, support plane, oriented box and grasp.

All are in the camera's optical frame: x to the right, y down, z forward, in meters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.depth.camera import Floats, frozen_array
from segzero_core.errors import InputError, ShapeError

DRAWN_FINGER_M: Final = 0.05
"""How long the fingers of a gripper are drawn."""


@dataclass(frozen=True, eq=False)
class ObjectCloud:
    """Point cloud of the visible surface of one object."""

    points_m: NDArray[np.float32]  # float32 [N, 3] in the camera's optical frame [m]
    pixels_xy: NDArray[np.int32]  # int [N, 2], column and row of each point
    # Width of the rim that was removed from the mask [px]; a box around the object adds it again.
    eroded_px: int = 0

    def __post_init__(self) -> None:
        if self.points_m.ndim != 2 or self.points_m.shape[1] != 3:
            raise ShapeError("points_m", "float32 [N, 3]", self.points_m)
        if self.pixels_xy.shape != (len(self.points_m), 2):
            raise ShapeError("pixels_xy", f"int [{len(self.points_m)}, 2]", self.pixels_xy)
        self.points_m.setflags(write=False)
        self.pixels_xy.setflags(write=False)

    def __len__(self) -> int:
        return len(self.points_m)

    @cached_property
    def window_xyxy(self) -> tuple[int, int, int, int]:
        """First column and row of the pixels, and the column and row after the last."""
        columns, rows = np.ascontiguousarray(self.pixels_xy.T)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@dataclass(frozen=True, eq=False)
class SupportPlane:
    """Plane that an object stands on: the points p with normal · p = offset_m."""

    normal: Floats  # float64 [3], unit length, pointing to the side of the object and the camera
    offset_m: float  # offset of the plane along its normal [m]

    def __post_init__(self) -> None:
        normal = frozen_array("plane normal", self.normal, (3,))
        length = sqrt(normal @ normal)
        if abs(length - 1.0) > 1e-6:
            raise InputError(f"plane normal: its length must be 1, got {length:g}")
        object.__setattr__(self, "normal", normal)


@dataclass(frozen=True, eq=False)
class OrientedBox:
    """Oriented bounding box of a whole object, including an estimate of its hidden side."""

    center_m: Floats  # float64 [3], center of the box and position of the object [m]
    # float64 [3, 3]; the columns are the box's axes in the camera frame: z is up, away from the
    # support plane, x is along the longer horizontal side; right-handed.
    rotation: Floats
    size_m: Floats  # float64 [3], full extents along the axes [m]

    def __post_init__(self) -> None:
        for name, shape in (("center_m", (3,)), ("rotation", (3, 3)), ("size_m", (3,))):
            object.__setattr__(self, name, frozen_array(name, getattr(self, name), shape))

    def corners_m(self) -> Floats:
        """Return the corners, float64 [8, 3]; the bits of the index are the sides in x, y, z."""
        signs = np.array([[(i >> axis & 1) - 0.5 for axis in range(3)] for i in range(8)])
        return np.asarray(self.center_m + (signs * self.size_m) @ self.rotation.T, np.float64)

    def edges_m(self) -> Floats:
        """Return float64 [24, 3]: both ends of each edge, for drawing."""
        pairs = [(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit]
        return np.asarray(self.corners_m()[np.array(pairs).ravel()], np.float64)


@dataclass(frozen=True, eq=False)
class Grasp:
    """Pose of a parallel gripper that closes on an object.

    In the gripper's frame z is the approach, x the closing axis, and the origin lies midway
    between the two fingertips. A grasp that is rotated by 180 degrees about z is the same grasp;
    only one of the two is listed.
    """

    position_m: Floats  # float64 [3], origin of the gripper's frame in the camera frame [m]
    rotation: Floats  # float64 [3, 3]; the columns are the gripper's axes in the camera frame
    width_m: float  # opening before the grasp: the object between the fingers plus clearance [m]
    score: float  # 0 to 1; higher is better

    def __post_init__(self) -> None:
        for name, shape in (("position_m", (3,)), ("rotation", (3, 3))):
            object.__setattr__(self, name, frozen_array(name, getattr(self, name), shape))

    def gripper_lines_m(self) -> Floats:
        """Return float64 [8, 3]: both ends of two fingers, the palm and the wrist, for drawing."""
        half = self.width_m / 2
        left, right = (-half, 0.0, 0.0), (half, 0.0, 0.0)
        left_up, right_up = (-half, 0.0, -DRAWN_FINGER_M), (half, 0.0, -DRAWN_FINGER_M)
        palm, wrist = (0.0, 0.0, -DRAWN_FINGER_M), (0.0, 0.0, -2 * DRAWN_FINGER_M)
        lines = np.array([left, left_up, right, right_up, left_up, right_up, palm, wrist])
        return np.asarray(self.position_m + lines @ self.rotation.T, np.float64)
