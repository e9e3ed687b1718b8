"""Takes images of a settled table: color, depth and which object each pixel shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worlds.common.camera_pose import CameraPose, direction
from worlds.common.renderer import Geoms, Renderer, open_gl
from worlds.tabletop.world import World

_NEAR_M, _FAR_M = float(np.float32(0.05)), 20.0  # as OpenGL holds them
_GEOMS_MAX = 2000
_ALONE_SCALE = 4  # objects alone are drawn at a quarter of the size: only their area counts


@dataclass(frozen=True)
class RenderedImage:
    """One view."""

    color: NDArray[np.uint8]  # uint8 [H, W, 3] RGB
    depth_mm: NDArray[np.uint16]  # uint16 [H, W]; 0 beyond 65 m
    instances: NDArray[np.uint16]  # uint16 [H, W]; i + 1 where `world.objects[i]` is seen, else 0


def sample_camera(rng: np.random.Generator, center_m: NDArray[np.float64]) -> CameraPose:
    """A camera that looks at the middle of the objects from a person's or a robot's height."""
    azimuth = rng.uniform(0, 2 * math.pi)
    elevation = math.radians(rng.uniform(28, 64))
    distance = rng.uniform(0.56, 0.74)
    target = center_m + rng.uniform(-0.04, 0.04, 3) * [1, 1, 0.3]
    away = direction(azimuth, elevation)
    position = target + distance * away
    return CameraPose(position, look_at(-away, math.radians(rng.uniform(-4, 4))), math.radians(50))


def look_at(forward: NDArray[np.float64], roll_rad: float = 0.0) -> NDArray[np.float64]:
    """Rotation whose columns are the optical axes (right, down, forward) in the world."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = math.cos(roll_rad), math.sin(roll_rad)
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward], axis=1)


class Camera:
    """Draws worlds off screen. One per process: it owns the OpenGL context; not thread-safe."""

    def __init__(self) -> None:
        """Open the renderer; for errors see `open_gl`."""
        self._gl = open_gl()

    def close(self) -> None:
        """Give the OpenGL context back; the interpreter's own end is too late for it."""
        self._gl.free()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def shoot(self, world: World, pose: CameraPose) -> RenderedImage:
        """Color, depth and instances of one view."""
        with Renderer(world, _NEAR_M, _FAR_M, _GEOMS_MAX) as renderer:
            return _image(renderer, world, pose)

    def shoot_with_areas(
        self, world: World, pose: CameraPose
    ) -> tuple[RenderedImage, NDArray[np.float64]]:
        """The view, and per object the pixels that it would cover if it stood there alone."""
        with Renderer(world, _NEAR_M, _FAR_M, _GEOMS_MAX) as renderer:
            image = _image(renderer, world, pose)
            return image, renderer.areas_alone(pose, _geoms(world), _ALONE_SCALE)


def _image(renderer: Renderer, world: World, pose: CameraPose) -> RenderedImage:
    color, depth = renderer.color_and_depth(pose)
    return RenderedImage(color, depth, renderer.instances(pose, _geoms(world)))


def _geoms(world: World) -> list[Geoms]:
    return [np.flatnonzero(world.model.geom_bodyid == body) for body in world.bodies]
