"""Pinhole camera with lens distortion: pixels to rays, and points back to pixels.

The camera's optical frame has x to the right, y down and z forward, in meters. A pixel is named by
its center, so the center of the pixel in column 3 and row 5 is (3.0, 5.0), as in
sensor_msgs/CameraInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
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
"""Number of coefficients that each distortion model takes."""
_UNDISTORT_STEPS: Final = 12
_UNDISTORT_ERROR: Final = 2e-4
"""In normalized image coordinates; a tenth of a pixel at a focal length of 500."""


def frozen_array(name: str, value: Any, shape: tuple[int, ...]) -> Floats:
    """Return a read-only float64 copy of an array.

    Raises:
        ShapeError: The array has another shape or a number that is not finite.
    """
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise ShapeError(name, f"numbers {list(shape)}", value) from None
    # A sum is finite only if all its terms are; only absurd numbers could overflow it.
    if array.shape != shape or not isfinite(array.sum()):
        raise ShapeError(name, f"finite numbers {list(shape)}", array)
    array.setflags(write=False)
    return array


def unit_vector(up: NDArray[Any]) -> Floats:
    """Scale a direction to length 1.

    Raises:
        InputError: The array is not three finite numbers, or all of them are zero.
    """
    direction = frozen_array("up", up, (3,))
    length = sqrt(direction @ direction)
    if not length > 0:
        raise InputError("up: its length is zero; give the direction against gravity")
    return np.asarray(direction / length, np.float64)


@dataclass(frozen=True, eq=False)
class CameraModel:
    """Intrinsic calibration of a camera."""

    k: Floats  # float64 [3, 3]: fx, fy, cx, cy [px] and the skew, as in CameraInfo
    # Coefficients in the order of CameraInfo; empty or all zero means none.
    distortion: tuple[float, ...]
    size_wh: SizeWH  # width and height of the camera's images [px]
    # plumb_bob, rational_polynomial or equidistant. Empty chooses rational_polynomial for 8
    # coefficients, else plumb_bob.
    distortion_model: str = ""

    def __post_init__(self) -> None:
        k = frozen_array("camera matrix K", self.k, (3, 3))
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
        distortion = tuple(float(value) for value in self.distortion)
        model = self.distortion_model or (RATIONAL if len(distortion) == 8 else PLUMB_BOB)
        if model not in COEFFICIENTS:
            raise InputError(
                f"distortion model {model!r} is none of {', '.join(COEFFICIENTS)}; rectify the "
                "images, or calibrate with one of these"
            )
        if distortion and len(distortion) not in COEFFICIENTS[model]:
            expected = " or ".join(map(str, COEFFICIENTS[model]))
            raise InputError(
                f"distortion {model} has {expected} coefficients, got {len(distortion)}"
            )
        if not np.isfinite(distortion).all():
            raise InputError(f"distortion: not all numbers are finite: {list(distortion)}")
        object.__setattr__(self, "distortion", distortion)
        object.__setattr__(self, "distortion_model", model)

    @property
    def focal_px(self) -> float:
        """Mean of fx and fy [px]."""
        return float(self.k[0, 0] + self.k[1, 1]) / 2

    def rays(self, pixels_xy: NDArray[Any]) -> Floats:
        """Return float64 [N, 2]: where rays through the centers of pixels meet the plane z = 1.

        Pixels are [N, 2], column and row. Rays outside the range where the distortion model can be
        inverted are NaN.
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
        """Project points [N, 3] in front of the camera to pixels of the image, float64 [N, 2]."""
        points = np.asarray(points_m, np.float64)
        x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
        if any(self.distortion):
            if self.distortion_model == EQUIDISTANT:
                x, y = _distort_equidistant(x, y, self.distortion)
            else:
                x, y = _distort(x, y, self.distortion)
        column = self.k[0, 0] * x + self.k[0, 1] * y + self.k[0, 2]
        return np.stack((column, self.k[1, 1] * y + self.k[1, 2]), axis=1)


def camera_from_info(info: Any, *, rectified: bool) -> CameraModel:
    """Read a calibration, with its binning and region of interest.

    Args:
        info: An object with the fields of sensor_msgs/CameraInfo.
        rectified: Whether its images are; of them P holds, and nothing is distorted.

    Raises:
        InputError: It is none; K is zero where a camera is not calibrated.
    """
    matrix = np.reshape(info.p, (3, 4))[:, :3] if rectified else np.reshape(info.k, (3, 3))
    matrix = np.array(matrix, np.float64)
    across, down = max(1, info.binning_x), max(1, info.binning_y)
    roi = info.roi
    width, height = (roi.width or info.width) // across, (roi.height or info.height) // down
    matrix[0, 2] -= roi.x_offset
    matrix[1, 2] -= roi.y_offset
    matrix[0] /= across
    matrix[1] /= down
    if rectified:
        return CameraModel(matrix, (), (width, height))
    model = info.distortion_model if any(info.d) else ""
    return CameraModel(matrix, tuple(info.d) if model else (), (width, height), model)


def _brown_conrady(x: Floats, y: Floats, d: tuple[float, ...]) -> tuple[Floats, Floats, Floats]:
    """Return radial factor and tangential shifts of plumb_bob and rational_polynomial."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*d, *(0.0,) * (8 - len(d)))
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    shift_x = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    shift_y = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return radial, shift_x, shift_y


def _distort(x: Floats, y: Floats, d: tuple[float, ...]) -> tuple[Floats, Floats]:
    radial, shift_x, shift_y = _brown_conrady(x, y, d)
    return x * radial + shift_x, y * radial + shift_y


def _undistort(x_d: Floats, y_d: Floats, d: tuple[float, ...]) -> Floats:
    """Invert `_distort` by fixed-point iteration, which converges fast for real lenses."""
    x, y = x_d, y_d
    with np.errstate(all="ignore"):  # the check below finds what did not converge
        for _ in range(_UNDISTORT_STEPS):
            radial, shift_x, shift_y = _brown_conrady(x, y, d)
            x, y = (x_d - shift_x) / radial, (y_d - shift_y) / radial
        again_x, again_y = _distort(x, y, d)
        good = np.hypot(again_x - x_d, again_y - y_d) < _UNDISTORT_ERROR
    return np.where(good[:, None], np.stack((x, y), axis=1), np.nan)


def _distorted_angle(theta: Floats, d: tuple[float, ...]) -> Floats:
    t2 = theta * theta
    return theta * (1 + t2 * (d[0] + t2 * (d[1] + t2 * (d[2] + t2 * d[3]))))


def _distort_equidistant(x: Floats, y: Floats, d: tuple[float, ...]) -> tuple[Floats, Floats]:
    r = np.maximum(np.hypot(x, y), 1e-12)
    scale = _distorted_angle(np.arctan(r), d) / r
    return x * scale, y * scale


def _undistort_equidistant(x_d: Floats, y_d: Floats, d: tuple[float, ...]) -> Floats:
    """Invert the polynomial of the angle by Newton's method."""
    out = np.maximum(np.hypot(x_d, y_d), 1e-12)
    theta = out
    with np.errstate(all="ignore"):
        for _ in range(_UNDISTORT_STEPS):
            t2 = theta * theta
            slope = 1 + t2 * (3 * d[0] + t2 * (5 * d[1] + t2 * (7 * d[2] + t2 * 9 * d[3])))
            theta = theta - (_distorted_angle(theta, d) - out) / slope
        good = (np.abs(_distorted_angle(theta, d) - out) < _UNDISTORT_ERROR) & (theta >= 0)
        good &= theta < np.pi / 2  # rays beyond do not meet the plane z = 1
        scale = np.where(good, np.tan(theta) / out, np.nan)
    return np.stack((x_d * scale, y_d * scale), axis=1)
