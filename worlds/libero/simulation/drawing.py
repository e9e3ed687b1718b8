"""Draws a stage off screen: color, depth, and which object each pixel shows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from worlds.common.camera_pose import IMAGE_SIZE_WH, CameraPose
from worlds.common.renderer import Renderer, open_gl
from worlds.libero.simulation.pool_objects import VISUAL_GROUP
from worlds.libero.simulation.stage import Stage

_NEAR_M, _FAR_M = 0.01, 20.0
_GEOMS_MAX = 4000


class Drawing(Renderer):
    """Draws one stage. It owns an OpenGL context and the stage's textures: close it."""

    def __init__(self, stage: Stage) -> None:
        """Open the renderer; for errors see `open_gl`."""
        self._gl = open_gl()
        stage.model.vis.global_.offwidth, stage.model.vis.global_.offheight = IMAGE_SIZE_WH
        stage.model.vis.quality.shadowsize = 2048
        super().__init__(stage, _NEAR_M, _FAR_M, _GEOMS_MAX)
        self._option.geomgroup[:] = 0
        self._option.geomgroup[VISUAL_GROUP] = 1

    def close(self) -> None:
        """Give the OpenGL context back; the interpreter's own end is too late for it."""
        super().close()
        self._gl.free()

    def _look(self, pose: CameraPose) -> None:
        super()._look(pose)
        for light in self._scene.lights[: self._scene.nlight]:
            if light.headlight:  # shines from where the camera was before it was moved here
                light.pos, light.dir = pose.position_m, pose.rotation[:, 2]


def model_camera(model: Any, data: Any, name: str) -> CameraPose:
    """The pose of a camera of the model, as the state has it now."""
    index = model.camera(name).id
    across = data.cam_xmat[index].reshape(3, 3)
    rotation = across * [1, -1, -1]  # MuJoCo's cameras look along -z with y up
    fov = math.radians(model.cam_fovy[index])
    return CameraPose(np.array(data.cam_xpos[index]), rotation, fov)
