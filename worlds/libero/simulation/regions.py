"""Where the regions of objects are in the world."""

from __future__ import annotations

import numpy as np

from worlds.libero.simulation.pool_objects import Box
from worlds.libero.simulation.rotations import Floats, matrix_of
from worlds.libero.simulation.stage import Stage


def box_in_world(stage: Stage, box: Box) -> tuple[Floats, Floats, Floats]:
    """Middle, axes and half extents along the world's axes of a region."""
    axes = stage.data.xmat[box.body].reshape(3, 3)
    position = stage.data.xpos[box.body]
    for obj in stage.objects:
        if obj.qpos is not None and obj.body == box.body:  # moved since the last forward pass
            axes = matrix_of(stage.data.qpos[obj.qpos + 3 : obj.qpos + 7])
            position = stage.data.qpos[obj.qpos : obj.qpos + 3]
    rotation = axes @ box.rotation
    return position + axes @ box.position_m, rotation, np.abs(rotation) @ box.half_m
