"""The words of the third dimension: camera, cloud, plane, box, grasp; frozen values.

All of them live in the camera's optical frame: x right, y down, z forward, in metres. A pixel is
named by its centre, so that the middle of the pixel in column 3 and row 5 is (3.0, 5.0), as
sensor_msgs/CameraInfo has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segzero_core.depth.camera import Floats, frozen_array
from segzero_core.errors import InputError, ShapeError


@dataclass(frozen=True, eq=False)
class ObjectCloud:
    """The visible surface of one object.

    Attributes:
        points_m: float32 [N, 3] in the camera's optical frame [m].
        pixels_xy: int [N, 2], the column and row that each point was seen at.
        eroded_px: How many pixels were taken from the mask's edge before; a box around the
            object counts them in again.
    """

    points_m: NDArray[np.float32]
    pixels_xy: NDArray[np.int32]
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
        """First column and row, and those behind the last, of the pixels it was seen at."""
        columns, rows = np.ascontiguousarray(self.pixels_xy.T)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@dataclass(frozen=True, eq=False)
class SupportPlane:
    """What an object stands on: the points p with normal · p = offset_m.

    Attributes:
        normal: float64 [3], of length 1, towards the side that the object and the camera are on.
        offset_m: Of the plane along its normal [m].
    """

    normal: Floats
    offset_m: float

    def __post_init__(self) -> None:
        normal = frozen_array("plane normal", self.normal, (3,))
        length = sqrt(normal @ normal)
        if abs(length - 1.0) > 1e-6:
            raise InputError(f"plane normal: its length must be 1, got {length:g}")
        object.__setattr__(self, "normal", normal)

    def heights_m(self, points_m: NDArray[Any]) -> Floats:
        """Return float64 [N]: how far above the plane points [N, 3] are [m]."""
        return np.asarray(points_m @ self.normal - self.offset_m, np.float64)


@dataclass(frozen=True, eq=False)
class OrientedBox:
    """A box around a whole object, its hidden side included as far as it can be told.

    Attributes:
        centre_m: float64 [3], the middle of the box [m]; the object's place.
        rotation: float64 [3, 3]; its columns are the box's axes in the camera frame: z up from
            what the object stands on, x along the longer side lying, right-handed.
        size_m: float64 [3], full extents along the axes [m].
    """

    centre_m: Floats
    rotation: Floats
    size_m: Floats

    def __post_init__(self) -> None:
        for name, shape in (("centre_m", (3,)), ("rotation", (3, 3)), ("size_m", (3,))):
            object.__setattr__(self, name, frozen_array(name, getattr(self, name), shape))

    def corners_m(self) -> Floats:
        """Return float64 [8, 3]: the corners; bit 0 of the index is x, bit 1 is y, bit 2 is z."""
        signs = np.array([[(i >> axis & 1) - 0.5 for axis in range(3)] for i in range(8)])
        return np.asarray(self.centre_m + (signs * self.size_m) @ self.rotation.T, np.float64)


@dataclass(frozen=True, eq=False)
class Grasp:
    """Where a parallel gripper closes. Its frame: z is the approach, x the closing axis.

    The origin is the middle between the tips of the two fingers. Turned by half a turn about z it
    is the same grasp; only one of the two is listed.

    Attributes:
        position_m: float64 [3], the gripper frame's origin in the camera frame [m].
        rotation: float64 [3, 3]; its columns are the gripper's axes in the camera frame.
        width_m: How far open to come: the object between the fingers and clearance [m].
        score: 0 to 1; higher is better.
    """

    position_m: Floats
    rotation: Floats
    width_m: float
    score: float

    def __post_init__(self) -> None:
        for name, shape in (("position_m", (3,)), ("rotation", (3, 3))):
            object.__setattr__(self, name, frozen_array(name, getattr(self, name), shape))
