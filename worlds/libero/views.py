"""Cameras and light: around the benchmark's fixed camera, and in a hand that looks down."""

from __future__ import annotations

import math

import numpy as np

from tabletop.simulator import mujoco
from worlds.libero.drawing import CameraPose, model_camera
from worlds.libero.robot import reach_above, rest_near_home, touches
from worlds.libero.stage import Floats, Piece, Stage

HAND_CHANCE = 0.25
_AS_IN_THE_BENCHMARK = 0.35  # of the fixed cameras
_MOVED_ARM = 0.45  # of the images by the fixed camera
_ARM_TRIES = 6
_TINTED = ("table_texture", "living_room_table", "desk", "floorplane", "walls_mat")


def sample_view(rng: np.random.Generator, stage: Stage, pieces: list[Piece]) -> CameraPose | None:
    """Pose the robot and choose a camera; None where the robot found no free place.

    Args:
        rng: Where chance comes from.
        stage: With a settled scene; its robot is moved.
        pieces: What stands there.
    """
    if rng.random() < HAND_CHANCE:
        if not _arm_above(rng, stage, pieces, (0.24, 0.5)):
            return None
        return model_camera(stage.model, stage.data, "robot0_eye_in_hand")
    if rng.random() < _MOVED_ARM:
        if not _arm_above(rng, stage, pieces, (0.2, 0.55)):
            return None
    else:
        rest_near_home(rng, stage)
        if touches(stage, pieces):
            return None
    return around_agentview(rng, stage)


def _arm_above(
    rng: np.random.Generator, stage: Stage, pieces: list[Piece], heights_m: tuple[float, float]
) -> bool:
    movables = [stage.data.xpos[piece.body] for piece in pieces if not piece.fixed]
    middle = np.mean(movables, axis=0)
    surface_z = stage.arena.center_xyz_m[2]
    for _ in range(_ARM_TRIES):
        target = middle + [*rng.normal(0, 0.1, 2), 0]
        # The hand's camera sits before the hand, so that it sees what lies further out.
        target[0] -= 0.04
        target[2] = surface_z + rng.uniform(*heights_m)
        if reach_above(rng, stage, target) and not touches(stage, pieces):
            return True
    return False


def around_agentview(rng: np.random.Generator, stage: Stage) -> CameraPose:
    """The benchmark's camera, or one on a sphere about the table's middle."""
    base = model_camera(stage.model, stage.data, "agentview")
    if rng.random() < _AS_IN_THE_BENCHMARK:
        nudge = rng.normal(0, 0.01, 3)
        return CameraPose(base.position_m + nudge, _wobble(rng, base.rotation), base.fov_y_rad)
    center = _looked_at(base, stage.arena.center_xyz_m[2])
    away = base.position_m - center
    distance = float(np.linalg.norm(away)) * rng.uniform(0.62, 1.12)
    azimuth = math.atan2(away[1], away[0]) + math.radians(rng.uniform(-45, 45))
    elevation = math.asin(away[2] / np.linalg.norm(away)) + math.radians(rng.uniform(-10, 20))
    elevation = min(elevation, math.radians(80))
    direction = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    target = center + rng.uniform(-0.06, 0.06, 3) * [1, 1, 0.2]
    rotation = look_at(-direction, math.radians(rng.normal(0, 2)))
    fov = base.fov_y_rad + math.radians(rng.uniform(-6, 10))
    return CameraPose(target + distance * direction, rotation, fov)


def _looked_at(pose: CameraPose, height_m: float) -> Floats:
    """Where the camera's axis meets the table, or nearly: the middle of what it shows."""
    forward = pose.rotation[:, 2]
    reach = (height_m - pose.position_m[2]) / min(forward[2], -0.2)
    return pose.position_m + reach * forward


def _wobble(rng: np.random.Generator, rotation: Floats) -> Floats:
    quaternion, matrix = np.zeros(4), np.zeros(9)
    vector = rng.normal(0, math.radians(0.5), 3)
    angle = float(np.linalg.norm(vector))
    mujoco.mju_axisAngle2Quat(quaternion, vector / angle, angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3) @ rotation


def look_at(forward: Floats, roll_rad: float = 0.0) -> Floats:
    """Rotation whose columns are the optical axes (right, down, forward) in the world."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = math.cos(roll_rad), math.sin(roll_rad)
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward], axis=1)


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
