"""Takes images of a settled table: color, depth and which object each pixel shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worlds.common.camera_pose import IMAGE_SIZE_WH, CameraPose
from worlds.common.simulator import mujoco
from worlds.tabletop.world import World

_ALONE_SCALE = 4  # objects alone are drawn at a quarter of the size: only their area counts


@dataclass(frozen=True)
class RenderedImage:
    """One view.

    Attributes:
        color: uint8 [H, W, 3] RGB.
        depth_mm: uint16 [H, W]; 0 beyond 65 m.
        instances: uint16 [H, W]; i + 1 where `world.objects[i]` is seen, else 0.
    """

    color: NDArray[np.uint8]
    depth_mm: NDArray[np.uint16]
    instances: NDArray[np.uint16]


def sample_camera(rng: np.random.Generator, center_m: NDArray[np.float64]) -> CameraPose:
    """A camera that looks at the middle of the objects from a person's or a robot's height."""
    azimuth = rng.uniform(0, 2 * math.pi)
    elevation = math.radians(rng.uniform(28, 64))
    distance = rng.uniform(0.56, 0.74)
    target = center_m + rng.uniform(-0.04, 0.04, 3) * [1, 1, 0.3]
    away = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
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
        """Open the renderer.

        Raises:
            RuntimeError: No off-screen OpenGL is there; the message tells what to install.
        """
        try:
            self._gl = mujoco.GLContext(*IMAGE_SIZE_WH)
            self._gl.make_current()
        except Exception as error:  # mujoco raises whatever the binding of the library raises
            raise RuntimeError(
                f"no off-screen renderer ({error}); install it (Debian, Ubuntu: apt install "
                "libosmesa6) or set MUJOCO_GL=egl where a GPU driver is there"
            ) from error

    def close(self) -> None:
        """Give the OpenGL context back; the interpreter's own end is too late for it."""
        self._gl.free()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def shoot(self, world: World, pose: CameraPose) -> RenderedImage:
        """Color, depth and instances of one view."""
        with _Drawing(world, pose) as drawing:
            color, depth = drawing.color_and_depth()
            return RenderedImage(color, depth, drawing.instances())

    def shoot_with_areas(
        self, world: World, pose: CameraPose
    ) -> tuple[RenderedImage, NDArray[np.float64]]:
        """The view, and per object the pixels that it would cover if it stood there alone."""
        with _Drawing(world, pose) as drawing:
            color, depth = drawing.color_and_depth()
            image = RenderedImage(color, depth, drawing.instances())
            return image, drawing.areas_alone()


class _Drawing:
    """The renderer's state for one world and one view."""

    def __init__(self, world: World, pose: CameraPose) -> None:
        self._world = world
        self._scene = mujoco.MjvScene(world.model, maxgeom=2000)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._context = mujoco.MjrContext(world.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._pose = pose
        object_of_body = {body: i for i, body in enumerate(world.bodies)}
        self._object_of_geom = np.array(
            [object_of_body.get(int(body), -1) for body in world.model.geom_bodyid]
        )
        self._fill()

    def __enter__(self) -> _Drawing:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.free()

    def color_and_depth(self) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        color, depth = self._draw(IMAGE_SIZE_WH)
        near, far = self._scene.camera[0].frustum_near, self._scene.camera[0].frustum_far
        meters = near / (1 - depth.astype(np.float64) * (1 - near / far))
        millimetres = np.rint(meters * 1000)
        return color, np.where(millimetres < 65535, millimetres, 0).astype(np.uint16)

    def instances(self, scale: int = 1) -> NDArray[np.uint16]:
        width, height = IMAGE_SIZE_WH
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        pixels, _ = self._draw((width // scale, height // scale))
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        wide = pixels.astype(np.int32)
        drawn = wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)
        value_of = np.zeros(self._scene.ngeom + 1, dtype=np.uint16)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                value_of[geom.segid + 1] = self._object_of_geom[geom.objid] + 1
        return value_of[np.minimum(drawn, self._scene.ngeom)]

    def areas_alone(self) -> NDArray[np.float64]:
        areas = np.zeros(len(self._world.bodies))
        rgba = self._world.model.geom_rgba
        kept = rgba[:, 3].copy()
        for i in range(len(areas)):
            rgba[:, 3] = np.where((self._object_of_geom == i), kept, 0)
            self._fill()
            areas[i] = np.count_nonzero(self.instances(_ALONE_SCALE)) * _ALONE_SCALE**2
        rgba[:, 3] = kept
        self._fill()
        return areas

    def _fill(self) -> None:
        mujoco.mjv_updateScene(
            self._world.model,
            self._world.data,
            self._option,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        for eye in self._scene.camera:
            near = 0.05
            eye.pos = self._pose.position_m
            eye.forward = self._pose.rotation[:, 2]
            eye.up = -self._pose.rotation[:, 1]
            eye.frustum_near, eye.frustum_far = near, 20.0
            eye.frustum_center = 0.0
            eye.frustum_width = 0.0
            eye.frustum_top = near * math.tan(self._pose.fov_y_rad / 2)
            eye.frustum_bottom = -eye.frustum_top

    def _draw(self, size_wh: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        width, height = size_wh
        viewport = mujoco.MjrRect(0, 0, width, height)
        color = np.empty((height, width, 3), np.uint8)
        depth = np.empty((height, width), np.float32)
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(color, depth, viewport, self._context)
        return np.ascontiguousarray(color[::-1]), depth[::-1]
