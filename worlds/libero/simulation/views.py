"""Cameras and light: around the benchmark's fixed camera, and in a hand that looks down."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from worlds.common.camera_pose import CameraPose
from worlds.common.simulator import mujoco
from worlds.libero.simulation.drawing import model_camera
from worlds.libero.simulation.pool_objects import PoolObject
from worlds.libero.simulation.robot import reach_above, rest_near_home, touches
from worlds.libero.simulation.rotations import Floats
from worlds.libero.simulation.stage import Stage

HAND_CHANCE = 0.2
_AS_IN_THE_BENCHMARK = 0.35  # of the fixed cameras
_MOVED_ARM = 0.45  # of the images by the fixed camera
_ARM_TRIES = 6
_TINTED = ("table_texture", "living_room_table", "desk", "floorplane", "walls_mat")


@dataclass(frozen=True, eq=False)
class View:
    """A camera of a scene: "agentview" or "hand"."""

    name: str
    pose: CameraPose


def sample_view(rng: np.random.Generator, stage: Stage, objects: list[PoolObject]) -> View | None:
    """Pose the robot and choose a camera; None where the robot found no free place.

    Args:
        rng: Where chance comes from.
        stage: With a settled scene; its robot is moved.
        objects: What stands there.
    """
    if rng.random() < HAND_CHANCE:
        if not _arm_above(rng, stage, objects, (0.3, 0.6)):
            return None
        return View("hand", model_camera(stage.model, stage.data, "robot0_eye_in_hand"))
    if rng.random() < _MOVED_ARM:
        if not _arm_above(rng, stage, objects, (0.2, 0.55)):
            return None
    else:
        rest_near_home(rng, stage)
        if touches(stage, objects):
            return None
    return View("agentview", around_agentview(rng, stage))


def _arm_above(
    rng: np.random.Generator,
    stage: Stage,
    objects: list[PoolObject],
    heights_m: tuple[float, float],
) -> bool:
    movables = [stage.data.xpos[obj.body] for obj in objects if not obj.fixed]
    middle = np.mean(movables, axis=0)
    surface_z = stage.arena.center_xyz_m[2]
    for _ in range(_ARM_TRIES):
        target = middle + np.append(rng.normal(0, 0.1, 2), 0.0)
        # The hand's camera sits before the hand, so that it sees what lies further out.
        target[0] -= 0.04
        target[2] = surface_z + rng.uniform(*heights_m)
        if reach_above(rng, stage, target) and not touches(stage, objects):
            return True
    return False


def around_agentview(rng: np.random.Generator, stage: Stage) -> CameraPose:
    """The benchmark's camera, or one that went around the table's middle from there."""
    base = model_camera(stage.model, stage.data, "agentview")
    if rng.random() < _AS_IN_THE_BENCHMARK:
        nudge = rng.normal(0, 0.01, 3)
        return CameraPose(base.position_m + nudge, _wobble(rng, base.rotation), base.fov_y_rad)
    pivot = np.array(stage.arena.center_xyz_m)
    azimuth = math.radians(rng.uniform(-45, 45))
    pitch = math.radians(rng.uniform(-8, 18))
    turn = _about([0.0, 0.0, 1.0], azimuth) @ _about(base.rotation[:, 0], -pitch)
    distance = rng.uniform(0.62, 1.12)
    position = pivot + distance * turn @ (base.position_m - pivot)
    position += rng.uniform(-0.05, 0.05, 3)
    rotation = _wobble(rng, turn @ base.rotation @ _about([0, 0, 1], rng.normal(0, 0.03)))
    fov = base.fov_y_rad + math.radians(rng.uniform(-6, 10))
    return CameraPose(position, rotation, fov)


def _wobble(rng: np.random.Generator, rotation: Floats) -> Floats:
    vector = rng.normal(0, math.radians(0.5), 3)
    angle = float(np.linalg.norm(vector))
    return _about(vector / angle, angle) @ rotation


def _about(axis: Floats | list[float], angle_rad: float) -> Floats:
    """The rotation about an axis through the origin."""
    quaternion, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_axisAngle2Quat(quaternion, np.array(axis, dtype=float), angle_rad)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def vary_light(rng: np.random.Generator, stage: Stage) -> None:
    """Other light and tints in somewhat more than half of the scenes."""
    model = stage.model
    if rng.random() < 0.55:
        strength = rng.uniform(0.6, 1.25)
        warmth = rng.uniform(-0.08, 0.08)
        tone = np.array([1 + warmth, 1.0, 1 - warmth]) * strength
        model.light_diffuse[:] = np.clip(model.light_diffuse * tone, 0, 1)
        model.light_pos[:] += rng.normal(0, 0.5, model.light_pos.shape) * [1, 1, 0.3]
        headlight = model.vis.headlight
        headlight.ambient[:] = np.clip(headlight.ambient * rng.uniform(0.7, 2.2), 0, 1)
        headlight.diffuse[:] = np.clip(headlight.diffuse * rng.uniform(0.6, 1.3), 0, 1)
    if rng.random() < 0.4:
        for index in range(model.nmat):
            if model.material(index).name in _TINTED:
                tint = rng.uniform(0.65, 1.0) * rng.uniform(0.85, 1.0, 3)
                model.mat_rgba[index, :3] *= tint
