"""LIBERO's simulated Panda as the client's robot, in one process."""

from __future__ import annotations

from typing import Final

import numpy as np

from examples.pick_and_place.interfaces import SLOW, Floats, Image, Moved
from segzero_core.depth import CameraModel, depth_in_meters
from worlds.common.camera_pose import IMAGE_SIZE_WH, CameraPose
from worlds.libero.robot.cell import CLOSED, OPEN, Cell
from worlds.libero.robot.motion import move_to, set_fingers

TIP_M: Final = 0.009
"""The fingertips reach so far beyond the hand's frame."""
_WIDE_M: Final = 0.075


class LiberoRobot:
    """Drives a cell; see `examples.pick_and_place.interfaces.Robot`."""

    def __init__(self, cell: Cell, horizon: int) -> None:
        self._cell, self._horizon, self._grip = cell, horizon, OPEN

    def look(self) -> Image:
        """See `Robot`."""
        return image_of(self._cell, "agentview")

    def position_m(self) -> Floats:
        """See `Robot`."""
        hand = self._cell.hand()
        return hand.position_m + TIP_M * hand.rotation[:, 2]

    def rotation(self) -> Floats:
        """See `Robot`."""
        return self._cell.hand().rotation

    def opening_m(self) -> float:
        """See `Robot`."""
        return self._cell.hand().opening_m

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        """See `Robot`."""
        return self.drive(position_m, rotation, SLOW if slow else 1.0)

    def drive(self, position_m: Floats, rotation: Floats, speed: float) -> Moved:
        """Move with a share of the full speed."""
        motion = move_to(
            self._cell,
            position_m - TIP_M * rotation[:, 2],
            rotation,
            self._grip,
            last_step=self._horizon,
            speed=speed,
        )
        return Moved(motion.value)

    def open(self) -> None:
        """See `Robot`."""
        if self._grip == OPEN and self.opening_m() > _WIDE_M:
            return
        self._grip = OPEN
        set_fingers(self._cell, OPEN, last_step=self._horizon)

    def close(self) -> None:
        """See `Robot`."""
        self._grip = CLOSED
        set_fingers(self._cell, CLOSED, last_step=self._horizon)

    def rest(self, steps: int) -> None:
        """Hold the hand and the fingers where they are."""
        for _ in range(steps):
            self._cell.act(np.zeros(3), np.zeros(3), self._grip)

    def out_of_time(self) -> bool:
        """See `Robot`."""
        return self._cell.steps >= self._horizon


def image_of(cell: Cell, camera: str) -> Image:
    """What one of the cell's cameras sees, for the client."""
    view = cell.look(camera)
    model = CameraModel(intrinsic_matrix(view.pose), (0.0,) * 5, IMAGE_SIZE_WH)
    depth = depth_in_meters(view.depth_mm, "16UC1")
    return Image(view.color, depth, model, view.pose.rotation, view.pose.position_m)


def intrinsic_matrix(pose: CameraPose) -> Floats:
    """K as ROS has it: 0 is the middle of the first pixel, where the renderer has its corner."""
    k = pose.intrinsics()
    return np.array([[k["fx"], 0, k["cx"] - 0.5], [0, k["fy"], k["cy"] - 0.5], [0, 0, 1]])
