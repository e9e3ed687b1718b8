"""Ray-cast depth images with known ground truth: boxes and balls on a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segzero_core.depth import CameraModel

Floats = NDArray[np.float64]


def look_down(elevation_deg: float) -> Floats:
    """Rotation, by its columns, of a camera that looks along the world's +y and down."""
    angle = np.radians(elevation_deg)
    forward = np.array([0.0, np.cos(angle), -np.sin(angle)])
    right = np.array([1.0, 0.0, 0.0])
    return np.stack((right, np.cross(forward, right), forward), axis=1)


@dataclass(frozen=True)
class Brick:
    """A box on the table: position of its center [m], size [m], rotation about z [rad]."""

    place_xy: tuple[float, float]
    size_m: tuple[float, float, float]
    yaw: float = 0.0

    @property
    def center_m(self) -> Floats:
        return np.array([*self.place_xy, self.size_m[2] / 2])

    def hit(self, origin: Floats, rays: Floats) -> Floats:
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        start, way = turn @ (origin - self.center_m), rays @ turn.T
        half = np.array(self.size_m) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = (-half - start) / way, (half - start) / way
        near, far = np.minimum(one, other).max(axis=1), np.maximum(one, other).min(axis=1)
        return np.where((near < far) & (near > 0), near, np.inf)


@dataclass(frozen=True)
class Ball:
    """A ball on the table."""

    place_xy: tuple[float, float]
    radius_m: float

    @property
    def center_m(self) -> Floats:
        return np.array([*self.place_xy, self.radius_m])

    def hit(self, origin: Floats, rays: Floats) -> Floats:
        start = origin - self.center_m
        a, b = (rays**2).sum(axis=1), rays @ start
        inside = b**2 - a * (start @ start - self.radius_m**2)
        near = (-b - np.sqrt(np.maximum(inside, 0))) / a
        return np.where((inside > 0) & (near > 0), near, np.inf)


@dataclass(frozen=True, eq=False)
class View:
    """What a camera over the table sees."""

    camera: CameraModel
    rotation: Floats
    position_m: Floats
    depth_m: NDArray[np.float32]
    ids: NDArray[np.int64]

    def mask(self, number: int = 1) -> NDArray[np.bool_]:
        return self.ids == number

    def to_world(self, points_m: Any) -> Floats:
        return np.asarray(points_m) @ self.rotation.T + self.position_m

    @property
    def up(self) -> Floats:
        return self.rotation[2]


def see(
    objects: list[Any],
    *,
    elevation_deg: float = 45.0,
    distance_m: float = 0.6,
    camera: CameraModel | None = None,
) -> View:
    """Cast a ray through every pixel; objects are numbered from 1, the table is 0."""
    if camera is None:
        camera = CameraModel([[300, 0, 159.5], [0, 300, 119.5], [0, 0, 1]], (), (320, 240))
    width, height = camera.size_wh
    rows, columns = np.mgrid[:height, :width]
    flat = camera.rays(np.stack((columns.ravel(), rows.ravel()), axis=1))
    rotation = look_down(elevation_deg)
    position = -distance_m * rotation[:, 2]
    rays = np.column_stack((flat, np.ones(len(flat)))) @ rotation.T
    with np.errstate(divide="ignore", invalid="ignore"):
        table = np.where(rays[:, 2] < 0, -position[2] / rays[:, 2], np.inf)
    distances = np.stack([table, *(item.hit(position, rays) for item in objects)])
    distances = np.where(np.isfinite(distances), distances, np.inf)
    ids = distances.argmin(axis=0)
    z = distances.min(axis=0)
    z[~np.isfinite(z)] = np.nan
    return View(
        camera,
        rotation,
        position,
        z.reshape(height, width).astype(np.float32),
        ids.reshape(height, width),
    )
