"""Moves the cell's hand: straight lines with a result, and fingers that open and close."""

from __future__ import annotations

from enum import Enum
from typing import Final

import numpy as np

from worlds.common.simulator import mujoco
from worlds.libero.robot.cell import STEP_M, STEP_RAD, Cell, Floats

_NEAR_M, _NEAR_RAD = 0.004, 0.04
_GAIN: Final = 2.0
"""The next target lies so many times as far as the goal, or the last centimeters take long."""
_PATIENCE: Final = 14
"""Steps without progress after which a motion counts as blocked."""
_PROGRESS_M: Final = 0.004
_FINGER_STEPS: Final = 12
_WRIST_M, _FLANGE_M, _REACH_M = 0.20, 0.088, 0.68
"""The wrist's joint is so far behind the hand's frame, so far beside its axis, and at most so far
from the shoulder: at 0.72 the arm is straight, and cannot come back."""

_TILTED_RAD, _SLOWEST = 0.3, 0.15
"""A hand that is tilted so far goes at this share of its speed."""


class Motion(Enum):
    """How a motion ended."""

    REACHED = "reached"
    BLOCKED = "blocked"
    OUT_OF_REACH = "out of reach"
    """Nothing was moved."""
    STOPPED = "stopped"
    """The steps of the episode were used up, or somebody cancelled."""


def move_to(
    cell: Cell,
    position_m: Floats,
    rotation: Floats,
    grip: float,
    *,
    last_step: int,
    speed: float = 1.0,
) -> Motion:
    """Move the hand in a straight line, turning on the way.

    Args:
        cell: The robot.
        position_m: [3], where the hand's frame is to be, world frame.
        rotation: [3, 3], how it is to be turned.
        grip: `OPEN` or `CLOSED`, held on the way.
        last_step: The episode's count of steps at which to stop.
        speed: 0 to 1; the largest share of `STEP_M` in a step.
    """
    wrist = position_m - _WRIST_M * rotation[:, 2] - cell.shoulder_m
    along = wrist @ rotation[:, 2]
    beside = np.linalg.norm(wrist - along * rotation[:, 2]) - _FLANGE_M
    if np.hypot(along, beside) > _REACH_M:
        return Motion.OUT_OF_REACH
    best, waited = np.inf, 0
    while cell.steps < last_step:
        hand = cell.hand()
        away = position_m - hand.position_m
        turn = rotation_vector(rotation @ hand.rotation.T)
        left, turned = float(np.linalg.norm(away)), float(np.linalg.norm(turn))
        if left < _NEAR_M and turned < _NEAR_RAD:
            return Motion.REACHED
        remaining = left + 0.1 * turned
        if remaining < best - _PROGRESS_M:
            best, waited = remaining, 0
        waited += 1
        if waited > _PATIENCE:
            return Motion.BLOCKED
        # A hand that tilts on its way goes slower, until it is upright again: else the arm passes
        # the pose in which it is straight, and its elbow turns over.
        tilt_rad = np.arccos(np.clip(rotation[:, 2] @ hand.rotation[:, 2], -1.0, 1.0))
        slowed = speed * max(_SLOWEST, 1.0 - float(tilt_rad) / _TILTED_RAD)
        cell.act(_limited(_GAIN * away / STEP_M, slowed), _limited(turn / STEP_RAD, 0.5), grip)
    return Motion.STOPPED


def set_fingers(cell: Cell, grip: float, *, last_step: int) -> None:
    """Open or close the fingers, the hand at rest."""
    for _ in range(_FINGER_STEPS):
        if cell.steps >= last_step:
            return
        cell.act(np.zeros(3), np.zeros(3), grip)


def rotation_vector(matrix: Floats) -> Floats:
    """Axis times angle [rad] of a rotation matrix."""
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(matrix).ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


def _limited(vector: Floats, length: float) -> Floats:
    norm = float(np.linalg.norm(vector))
    return vector if norm <= length else vector * (length / norm)
