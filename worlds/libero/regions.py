"""Where the regions of things are in the world."""

from __future__ import annotations

import numpy as np

from worlds.libero.stage import Box, Floats, Stage, matrix_of


def box_in_world(stage: Stage, box: Box) -> tuple[Floats, Floats, Floats]:
    """Middle, axes and half extents along the world's axes of a region."""
    axes = stage.data.xmat[box.body].reshape(3, 3)
    position = stage.data.xpos[box.body]
    for piece in stage.pieces:
        if piece.qpos is not None and piece.body == box.body:  # moved since the last forward pass
            axes = matrix_of(stage.data.qpos[piece.qpos + 3 : piece.qpos + 7])
            position = stage.data.qpos[piece.qpos : piece.qpos + 3]
    rotation = axes @ box.rotation
    return position + axes @ box.position_m, rotation, np.abs(rotation) @ box.half_m
