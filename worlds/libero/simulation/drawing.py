"""Draws a stage off screen: colour, depth, and which object each pixel shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worlds.common.camera_pose import IMAGE_SIZE_WH, CameraPose
from worlds.common.simulator import mujoco
from worlds.libero.simulation.pool_objects import VISUAL_GROUP, PoolObject
from worlds.libero.simulation.stage import Stage

_NEAR_M, _FAR_M = 0.01, 20.0
_GEOMS_MAX = 4000


class Drawing:
    """Draws one stage. It owns an OpenGL context and the stage's textures: close it."""

    def __init__(self, stage: Stage) -> None:
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
        self._stage = stage
        stage.model.vis.global_.offwidth, stage.model.vis.global_.offheight = IMAGE_SIZE_WH
        stage.model.vis.quality.shadowsize = 2048
        self._scene = mujoco.MjvScene(stage.model, maxgeom=_GEOMS_MAX)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[VISUAL_GROUP] = 1
        self._context = mujoco.MjrContext(stage.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def close(self) -> None:
        """Give the OpenGL context back; the interpreter's own end is too late for it."""
        self._context.free()
        self._gl.free()

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def color_and_depth(self, pose: CameraPose) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Colour uint8 [H, W, 3] RGB, and depth uint16 [H, W] in mm."""
        self._fill(pose)
        color, depth = self._draw(IMAGE_SIZE_WH)
        metres = _NEAR_M / (1 - depth.astype(np.float64) * (1 - _NEAR_M / _FAR_M))
        millimetres = np.rint(metres * 1000)
        return color, np.where(millimetres < 65535, millimetres, 0).astype(np.uint16)

    def instances(
        self, pose: CameraPose, objects: Sequence[PoolObject], scale: int = 1
    ) -> NDArray[np.uint16]:
        """Which object each pixel shows: uint16 [H, W], its index + 1, else 0."""
        object_of_geom = np.zeros(self._stage.model.ngeom, dtype=np.uint16)
        for i, obj in enumerate(objects):
            object_of_geom[obj.geoms] = i + 1
        self._fill(pose)
        return self._segment(object_of_geom, scale)

    def areas_alone(
        self, pose: CameraPose, objects: Sequence[PoolObject], scale: int = 2
    ) -> NDArray[np.float64]:
        """Pixels of the image that each object would cover if it stood there alone."""
        rgba = self._stage.model.geom_rgba
        kept = rgba[:, 3].copy()
        areas = np.zeros(len(objects))
        for i, obj in enumerate(objects):
            rgba[:, 3] = 0
            rgba[obj.geoms, 3] = kept[obj.geoms]
            seen = self.instances(pose, [obj], scale)
            areas[i] = np.count_nonzero(seen) * scale**2
        rgba[:, 3] = kept
        return areas

    def _segment(self, object_of_geom: NDArray[np.uint16], scale: int) -> NDArray[np.uint16]:
        width, height = IMAGE_SIZE_WH
        flags = self._scene.flags
        chosen = (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR)
        for flag in chosen:
            flags[flag] = True
        pixels, _ = self._draw((width // scale, height // scale))
        for flag in chosen:
            flags[flag] = False
        wide = pixels.astype(np.int32)
        drawn = wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)
        value_of = np.zeros(self._scene.ngeom + 1, dtype=np.uint16)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                value_of[geom.segid + 1] = object_of_geom[geom.objid]
        return value_of[np.minimum(drawn, self._scene.ngeom)]

    def _fill(self, pose: CameraPose) -> None:
        mujoco.mjv_updateScene(
            self._stage.model,
            self._stage.data,
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
            eye.frustum_near, eye.frustum_far = _NEAR_M, _FAR_M
            eye.frustum_center = 0.0
            eye.frustum_width = 0.0
            eye.frustum_top = _NEAR_M * math.tan(pose.fov_y_rad / 2)
            eye.frustum_bottom = -eye.frustum_top
        for light in self._scene.lights[: self._scene.nlight]:
            if light.headlight:  # shines from where the camera was before it was moved here
                light.pos, light.dir = pose.position_m, pose.rotation[:, 2]

    def _draw(self, size_wh: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        width, height = size_wh
        viewport = mujoco.MjrRect(0, 0, width, height)
        color = np.empty((height, width, 3), np.uint8)
        depth = np.empty((height, width), np.float32)
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(color, depth, viewport, self._context)
        return np.ascontiguousarray(color[::-1]), depth[::-1]


def model_camera(model: Any, data: Any, name: str) -> CameraPose:
    """The pose of a camera of the model, as the state has it now."""
    index = model.camera(name).id
    across = data.cam_xmat[index].reshape(3, 3)
    rotation = across * [1, -1, -1]  # MuJoCo's cameras look along -z with y up
    fov = math.radians(model.cam_fovy[index])
    return CameraPose(np.array(data.cam_xpos[index]), rotation, fov)
