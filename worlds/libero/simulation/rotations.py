"""Quaternions, w first, as MuJoCo has them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from worlds.common.simulator import mujoco

Floats = NDArray[np.float64]


def yaw_wxyz(angle_rad: float) -> Floats:
    """A turn about the world's vertical axis."""
    return np.array([math.cos(angle_rad / 2), 0.0, 0.0, math.sin(angle_rad / 2)])


def product_wxyz(first: Floats, second: Floats) -> Floats:
    """The rotation that does `second`, then `first`."""
    total = np.zeros(4)
    mujoco.mju_mulQuat(total, first, second)
    return total


def matrix_of(quaternion_wxyz: Floats) -> Floats:
    """The rotation matrix of a quaternion."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion_wxyz)
    return matrix.reshape(3, 3)
