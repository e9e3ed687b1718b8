"""Poses of the Panda: at home, or with the hand somewhere above the objects."""

from __future__ import annotations

import math

import numpy as np

from worlds.common.simulator import mujoco
from worlds.libero.simulation.pool_objects import PoolObject
from worlds.libero.simulation.rotations import Floats
from worlds.libero.simulation.stage import Stage

_STEPS = 80
_DAMPING = 0.05
_LARGEST_STEP_RAD = 0.15
_REACHED_M, _REACHED_RAD = 0.02, 0.08
FINGERS_OPEN_M = 0.04


def rest_near_home(rng: np.random.Generator, stage: Stage) -> None:
    """The benchmark's first pose, a little off."""
    stage.data.qpos[stage.robot_qpos] = stage.robot_home + rng.normal(0, 0.02, 7)
    _set_fingers(rng, stage)
    mujoco.mj_forward(stage.model, stage.data)


def reach_above(rng: np.random.Generator, stage: Stage, target_m: Floats) -> bool:
    """Bring the hand to a place, looking down, somewhat turned and tilted.

    Args:
        rng: Decides how it is turned.
        stage: Its robot is moved, and stays at home where the place is out of reach.
        target_m: Where the hand's body is to be, in the world frame [m].
    """
    stage.data.qpos[stage.robot_qpos] = stage.robot_home
    mujoco.mj_forward(stage.model, stage.data)
    home = stage.data.xmat[stage.hand_body].reshape(3, 3).copy()
    tilt = rng.normal(0, math.radians(6), 2)
    turn = np.array([tilt[0], tilt[1], rng.uniform(-0.9, 0.9)])
    reached = _solve(stage, target_m, _rotation(turn) @ home)
    _set_fingers(rng, stage)
    if not reached:
        stage.data.qpos[stage.robot_qpos] = stage.robot_home
    mujoco.mj_forward(stage.model, stage.data)
    return reached


def touches(stage: Stage, objects: list[PoolObject]) -> bool:
    """Whether the robot is in one of the objects."""
    owned = {int(geom) for obj in objects for geom in obj.geoms}
    bodies = stage.model.geom_bodyid
    for contact in stage.data.contact[: stage.data.ncon]:
        one, other = (int(geom) for geom in contact.geom)
        for geom, against in ((one, other), (other, one)):
            if geom in owned and int(bodies[against]) in stage.robot_bodies:
                return True
    return False


def _set_fingers(rng: np.random.Generator, stage: Stage) -> None:
    gap = FINGERS_OPEN_M if rng.random() < 0.6 else float(rng.uniform(0.0, FINGERS_OPEN_M))
    stage.data.qpos[stage.finger_qpos] = [gap, -gap]


def _solve(stage: Stage, target_m: Floats, rotation: Floats) -> bool:
    """Damped least squares from the pose that it has."""
    model, data, hand = stage.model, stage.data, stage.hand_body
    dofs = [int(model.jnt_dofadr[_joint_at(model, address)]) for address in stage.robot_qpos]
    ranges = np.array([model.jnt_range[_joint_at(model, address)] for address in stage.robot_qpos])
    across, about = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    for _ in range(_STEPS):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        offset = target_m - data.xpos[hand]
        spin = _rotation_vector(rotation @ data.xmat[hand].reshape(3, 3).T)
        if np.linalg.norm(offset) < _REACHED_M / 4 and np.linalg.norm(spin) < _REACHED_RAD / 4:
            return True
        mujoco.mj_jacBody(model, data, across, about, hand)
        jacobian = np.concatenate([across[:, dofs], about[:, dofs]])
        error = np.concatenate([offset, spin])
        square = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
        step = jacobian.T @ np.linalg.solve(square, error)
        step *= min(1.0, _LARGEST_STEP_RAD / max(float(np.abs(step).max()), 1e-9))
        pose = data.qpos[stage.robot_qpos] + step
        data.qpos[stage.robot_qpos] = np.clip(pose, ranges[:, 0], ranges[:, 1])
    return bool(np.linalg.norm(offset) < _REACHED_M and np.linalg.norm(spin) < _REACHED_RAD)


def _joint_at(model: mujoco.MjModel, address: int) -> int:
    return int(np.flatnonzero(model.jnt_qposadr == address)[0])


def _rotation(vector: Floats) -> Floats:
    angle = float(np.linalg.norm(vector))
    quaternion, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_axisAngle2Quat(quaternion, vector / max(angle, 1e-12), angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _rotation_vector(matrix: Floats) -> Floats:
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(matrix).ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
