"""Draws a model off screen: color, depth, and which object each pixel shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from worlds.common.camera_pose import IMAGE_SIZE_WH, CameraPose
from worlds.common.simulator import mujoco

Geoms = NDArray[np.intp]
"""Indices of the geoms that belong to one object."""


def open_gl() -> mujoco.GLContext:
    """Open an OpenGL context; one per process, and not thread-safe.

    Raises:
        RuntimeError: No off-screen OpenGL is there; the message tells what to install.
    """
    try:
        context = mujoco.GLContext(*IMAGE_SIZE_WH)
        context.make_current()
    except Exception as error:  # mujoco raises whatever the binding of the library raises
        raise RuntimeError(
            f"no off-screen renderer ({error}); install it (Debian, Ubuntu: apt install "
            "libosmesa6) or set MUJOCO_GL=egl where a GPU driver is there"
        ) from error
    return context


class Renderer:
    """Draws a world with the OpenGL context that is open. It owns textures: close it.

    The world has a MuJoCo `model` with fewer than `max_geoms`, and the `data` that are drawn as
    they are. Nothing nearer than `near_m` or farther than `far_m` is drawn.
    """

    def __init__(self, world: Any, near_m: float, far_m: float, max_geoms: int) -> None:
        self._world = world
        self._near_m, self._far_m = near_m, far_m
        self._scene = mujoco.MjvScene(world.model, maxgeom=max_geoms)
        self._option = mujoco.MjvOption()
        self._context = mujoco.MjrContext(world.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def close(self) -> None:
        """Give the textures back."""
        self._context.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def color_and_depth(self, pose: CameraPose) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Color uint8 [H, W, 3] RGB, and depth uint16 [H, W] in mm; 0 beyond 65 m."""
        self._look(pose)
        color, depth = self._draw(IMAGE_SIZE_WH)
        meters = self._near_m / (1 - depth.astype(np.float64) * (1 - self._near_m / self._far_m))
        millimeters = np.rint(meters * 1000)
        return color, np.where(millimeters < 65535, millimeters, 0).astype(np.uint16)

    def instances(
        self, pose: CameraPose, objects: Sequence[Geoms], scale: int = 1
    ) -> NDArray[np.uint16]:
        """Which object each pixel shows: uint16 [H, W], its index + 1, else 0.

        A site that is drawn, as the coil of a stove is, belongs to the object of its body.
        """
        self._look(pose)
        chosen = (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR)
        for flag in chosen:
            self._scene.flags[flag] = True
        pixels, _ = self._draw((IMAGE_SIZE_WH[0] // scale, IMAGE_SIZE_WH[1] // scale))
        for flag in chosen:
            self._scene.flags[flag] = False
        model = self._world.model
        object_of_geom = np.zeros(model.ngeom, dtype=np.uint16)
        object_of_body = np.zeros(model.nbody, dtype=np.uint16)
        for i, geoms in enumerate(objects):
            object_of_geom[geoms] = object_of_body[model.geom_bodyid[geoms]] = i + 1
        object_of_body[0] = 0  # the world
        value_of = np.zeros(self._scene.ngeom + 1, dtype=np.uint16)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                value_of[geom.segid + 1] = object_of_geom[geom.objid]
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_SITE:
                value_of[geom.segid + 1] = object_of_body[model.site_bodyid[geom.objid]]
        drawn = pixels.astype(np.int32) @ (1, 1 << 8, 1 << 16)
        return value_of[np.minimum(drawn, self._scene.ngeom)]

    def areas_alone(
        self, pose: CameraPose, objects: Sequence[Geoms], scale: int
    ) -> NDArray[np.float64]:
        """Pixels of the image that each object would cover if it stood there alone.

        The objects are drawn `scale` times smaller, since only their area counts.
        """
        alpha = self._world.model.geom_rgba[:, 3]
        kept, areas = alpha.copy(), np.zeros(len(objects))
        for i, geoms in enumerate(objects):
            alpha[:] = 0
            alpha[geoms] = kept[geoms]
            areas[i] = np.count_nonzero(self.instances(pose, [geoms], scale)) * scale**2
        alpha[:] = kept
        return areas

    def _look(self, pose: CameraPose) -> None:
        mujoco.mjv_updateScene(
            self._world.model,
            self._world.data,
            self._option,
            None,
            mujoco.MjvCamera(),
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        for eye in self._scene.camera:
            eye.pos = pose.position_m
            eye.forward = pose.rotation[:, 2]
            eye.up = -pose.rotation[:, 1]
            eye.frustum_near, eye.frustum_far = self._near_m, self._far_m
            eye.frustum_center = 0.0
            eye.frustum_width = 0.0
            eye.frustum_top = self._near_m * math.tan(pose.fov_y_rad / 2)
            eye.frustum_bottom = -eye.frustum_top

    def _draw(self, size_wh: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        width, height = size_wh
        viewport = mujoco.MjrRect(0, 0, width, height)
        color = np.empty((height, width, 3), np.uint8)
        depth = np.empty((height, width), np.float32)
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(color, depth, viewport, self._context)
        return np.ascontiguousarray(color[::-1]), depth[::-1]
