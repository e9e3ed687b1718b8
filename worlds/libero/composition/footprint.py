"""Rectangles on the table, seen from above: whether they overlap, and how far apart they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Footprint:
    """A turned rectangle on the surface."""

    x_m: float  # its middle [m]
    y_m: float  # its middle [m]
    half_x_m: float  # half extent along its own first axis [m]
    half_y_m: float  # half extent along its own second axis [m]
    yaw_rad: float  # how far it is turned

    def corners(self) -> NDArray[np.float64]:
        """Its four corners, [4, 2]."""
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        local = signs * [self.half_x_m, self.half_y_m]
        return local @ self.axes() + [self.x_m, self.y_m]

    def axes(self) -> NDArray[np.float64]:
        """Its two axes, a row each."""
        cos, sin = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        return np.array([(cos, sin), (-sin, cos)])

    def radius_m(self) -> float:
        """Mean of the half extents [m]."""
        return (self.half_x_m + self.half_y_m) / 2


def gap_m(one: Footprint, other: Footprint) -> float:
    """How far apart two rectangles are along the axis that parts them best; below 0: overlap."""
    best = -math.inf
    first, second = one.corners(), other.corners()
    for axis in np.concatenate([one.axes(), other.axes()]):
        a, b = first @ axis, second @ axis
        best = max(best, float(a.min() - b.max()), float(b.min() - a.max()))
    return best


def placed(
    low_m: NDArray[np.float64], high_m: NDArray[np.float64], x_m: float, y_m: float, yaw_rad: float
) -> Footprint:
    """The footprint of an object whose origin is at (x, y), from its extent about the origin."""
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    cx, cy = (low_m[:2] + high_m[:2]) / 2
    half = (high_m[:2] - low_m[:2]) / 2
    return Footprint(
        x_m + cos * cx - sin * cy,
        y_m + sin * cx + cos * cy,
        float(half[0]),
        float(half[1]),
        yaw_rad,
    )
