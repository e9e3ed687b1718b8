"""The words of the third dimension: camera, cloud, plane, box, grasp; frozen values.

All of them live in the camera's optical frame: x right, y down, z forward, in metres. A pixel is
named by its centre, so that the middle of the pixel in column 3 and row 5 is (3.0, 5.0), as
sensor_msgs/CameraInfo has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite, sqrt
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError, ShapeError
from segzero_core.types import SizeWH

Floats: TypeAlias = NDArray[np.float64]

PLUMB_BOB: Final = "plumb_bob"
RATIONAL: Final = "rational_polynomial"
EQUIDISTANT: Final = "equidistant"
COEFFICIENTS: Final = {PLUMB_BOB: (4, 5), RATIONAL: (8,), EQUIDISTANT: (4,)}
"""How many numbers each distortion model has."""
_UNDISTORT_STEPS: Final = 12
_UNDISTORT_ERROR: Final = 2e-4
"""Of a normalised coordinate; a tenth of a pixel at a focal length of 500."""


def _frozen_array(name: str, value: Any, shape: tuple[int, ...]) -> Floats:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise ShapeError(name, f"numbers {list(shape)}", value) from None
    # A sum is finite only if all its terms are; it may overflow only with nonsense.
    if array.shape != shape or not isfinite(array.sum()):
        raise ShapeError(name, f"finite numbers {list(shape)}", array)
    array.setflags(write=False)
    return array


def unit_vector(up: NDArray[Any]) -> Floats:
    """Return a direction with the length 1.

    Raises:
        InputError: It is no direction.
    """
    direction = _frozen_array("up", up, (3,))
    length = sqrt(direction @ direction)
    if not length > 0:
        raise InputError("up: its length is zero; give the direction against gravity")
    return np.asarray(direction / length, np.float64)


@dataclass(frozen=True, eq=False)
class CameraModel:
    """How a camera maps directions to pixels.

    Attributes:
        k: float64 [3, 3]: fx, fy, cx, cy [px] and the skew, as in CameraInfo.
        distortion: Coefficients in the order of CameraInfo; empty or all zero is none.
        size_wh: Width and height of its pictures [px].
        distortion_model: plumb_bob, rational_polynomial or equidistant; empty takes the one that
            has so many coefficients.
    """

    k: Floats
    distortion: tuple[float, ...]
    size_wh: SizeWH
    distortion_model: str = ""

    def __post_init__(self) -> None:
        k = _frozen_array("camera matrix K", self.k, (3, 3))
        if not (k[0, 0] > 0 and k[1, 1] > 0):
            raise InputError(
                f"camera matrix K: fx and fy must be positive, got {k[0, 0]:g} and {k[1, 1]:g}; "
                "is the camera calibrated? Its camera_info must have K"
            )
        if tuple(k[2]) != (0.0, 0.0, 1.0) or k[1, 0] != 0:
            raise InputError(f"camera matrix K: not of the form fx s cx, 0 fy cy, 0 0 1: {k}")
        width, height = self.size_wh
        if width < 1 or height < 1:
            raise InputError(f"camera size: must be at least 1x1 pixel, got {width}x{height}")
        object.__setattr__(self, "k", k)
        numbers = tuple(float(each) for each in self.distortion)
        object.__setattr__(self, "distortion", numbers)
        object.__setattr__(self, "distortion_model", self._checked_model(numbers))

    def _checked_model(self, numbers: tuple[float, ...]) -> str:
        name = self.distortion_model
        if not name:
            name = RATIONAL if len(numbers) == 8 else PLUMB_BOB
        if name not in COEFFICIENTS:
            raise InputError(
                f"distortion model {name!r} is none of {', '.join(COEFFICIENTS)}; rectify the "
                "pictures, or calibrate with one of these"
            )
        if numbers and len(numbers) not in COEFFICIENTS[name]:
            wanted = " or ".join(map(str, COEFFICIENTS[name]))
            raise InputError(f"distortion {name} has {wanted} coefficients, got {len(numbers)}")
        if not np.isfinite(numbers).all():
            raise InputError(f"distortion: not all numbers are finite: {list(numbers)}")
        return name

    @property
    def focal_px(self) -> float:
        """The mean of fx and fy: how many pixels a radian spans in the middle [px]."""
        return float(self.k[0, 0] + self.k[1, 1]) / 2

    def rays(self, pixels_xy: NDArray[Any]) -> Floats:
        """Return float64 [N, 2]: x and y on the plane z = 1 that each pixel's centre sees.

        Directions that the distortion model cannot tell (outside of where it holds) are NaN.

        Args:
            pixels_xy: [N, 2], column and row.
        """
        pixels = np.asarray(pixels_xy, np.float64)
        y = (pixels[:, 1] - self.k[1, 2]) / self.k[1, 1]
        x = (pixels[:, 0] - self.k[0, 2] - self.k[0, 1] * y) / self.k[0, 0]
        if not any(self.distortion):
            return np.stack((x, y), axis=1)
        if self.distortion_model == EQUIDISTANT:
            return _undistort_equidistant(x, y, self.distortion)
        return _undistort(x, y, self.distortion)

    def pixels(self, points_m: NDArray[Any]) -> Floats:
        """Return float64 [N, 2]: where points [N, 3] before the camera are seen [px]."""
        points = np.asarray(points_m, np.float64)
        x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
        if any(self.distortion):
            if self.distortion_model == EQUIDISTANT:
                x, y = _distort_equidistant(x, y, self.distortion)
            else:
                x, y = _distort(x, y, self.distortion)
        column = self.k[0, 0] * x + self.k[0, 1] * y + self.k[0, 2]
        return np.stack((column, self.k[1, 1] * y + self.k[1, 2]), axis=1)


def _parts(x: Floats, y: Floats, d: tuple[float, ...]) -> tuple[Floats, Floats, Floats]:
    """Return the radial factor and the tangential shifts of plumb_bob and rational_polynomial."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*d, *(0.0,) * (8 - len(d)))
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    shift_x = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    shift_y = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return radial, shift_x, shift_y


def _distort(x: Floats, y: Floats, d: tuple[float, ...]) -> tuple[Floats, Floats]:
    radial, shift_x, shift_y = _parts(x, y, d)
    return x * radial + shift_x, y * radial + shift_y


def _undistort(seen_x: Floats, seen_y: Floats, d: tuple[float, ...]) -> Floats:
    """Invert `_distort` by fixed-point steps, which real lenses need few of."""
    x, y = seen_x, seen_y
    with np.errstate(all="ignore"):  # what does not converge is found below
        for _ in range(_UNDISTORT_STEPS):
            radial, shift_x, shift_y = _parts(x, y, d)
            x, y = (seen_x - shift_x) / radial, (seen_y - shift_y) / radial
        again_x, again_y = _distort(x, y, d)
        good = np.hypot(again_x - seen_x, again_y - seen_y) < _UNDISTORT_ERROR
    return np.where(good[:, None], np.stack((x, y), axis=1), np.nan)


def _angle_out(theta: Floats, d: tuple[float, ...]) -> Floats:
    t2 = theta * theta
    return theta * (1 + t2 * (d[0] + t2 * (d[1] + t2 * (d[2] + t2 * d[3]))))


def _distort_equidistant(x: Floats, y: Floats, d: tuple[float, ...]) -> tuple[Floats, Floats]:
    r = np.maximum(np.hypot(x, y), 1e-12)
    scale = _angle_out(np.arctan(r), d) / r
    return x * scale, y * scale


def _undistort_equidistant(seen_x: Floats, seen_y: Floats, d: tuple[float, ...]) -> Floats:
    """Invert the angle's polynomial by Newton's method."""
    out = np.maximum(np.hypot(seen_x, seen_y), 1e-12)
    theta = out
    with np.errstate(all="ignore"):
        for _ in range(_UNDISTORT_STEPS):
            t2 = theta * theta
            slope = 1 + t2 * (3 * d[0] + t2 * (5 * d[1] + t2 * (7 * d[2] + t2 * 9 * d[3])))
            theta = theta - (_angle_out(theta, d) - out) / slope
        good = (np.abs(_angle_out(theta, d) - out) < _UNDISTORT_ERROR) & (theta >= 0)
        good &= theta < np.pi / 2  # beyond, nothing meets the plane z = 1
        scale = np.where(good, np.tan(theta) / out, np.nan)
    return np.stack((seen_x * scale, seen_y * scale), axis=1)


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
        normal = _frozen_array("plane normal", self.normal, (3,))
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
            object.__setattr__(self, name, _frozen_array(name, getattr(self, name), shape))

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
            object.__setattr__(self, name, _frozen_array(name, getattr(self, name), shape))
