"""One task of the benchmark as a robot cell: cameras, a hand, actions, and a judge.

What a robot would know comes out of `Cell`: images with depth, the cameras' poses, the hand's pose
and opening. Two methods tell more: `succeeded` counts, and `true_mask` stands in for perception
where a benchmark measures the rest alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worlds.common.camera_pose import CameraPose
from worlds.libero.benchmark.rendering import SETTLE_STEPS, STAY, arena_of, build_world
from worlds.libero.benchmark.suites import Task
from worlds.libero.simulation.drawing import Drawing, model_camera
from worlds.libero.simulation.stage import stage_of_world

CAMERAS: Final = {"agentview": "agentview", "hand": "robot0_eye_in_hand"}
"""By our names, the benchmark's."""
STEP_M, STEP_RAD = 0.05, 0.5
"""What an action of 1 moves and turns the controller's target by."""
OPEN, CLOSED = -1.0, 1.0
_SHOULDER_M: Final = 0.333
"""Panda's shoulder is so high over its base."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CameraView:
    """What a camera sees."""

    color: NDArray[np.uint8]  # uint8 [H, W, 3] RGB
    depth_mm: NDArray[np.uint16]  # uint16 [H, W]; 0 is unknown
    pose: CameraPose  # in the world frame


@dataclass(frozen=True, eq=False)
class Hand:
    """The gripper: its frame is between the fingertips, z the approach, x the closing axis."""

    position_m: Floats  # float64 [3], in the world frame
    rotation: Floats  # float64 [3, 3]; the columns are its axes in the world frame
    opening_m: float  # distance of the fingers


class Cell:
    """A task's robot cell. It owns a simulation and a renderer: close it.

    Attributes:
        task: What is to be done.
        steps: Of the controller, since the episode began.
        shoulder_m: float64 [3], where the arm begins, in the world frame.
        on_step: Called after every step of the controller; what it raises ends the motion.
    """

    def __init__(self, task: Task) -> None:
        """Build the simulation, which takes seconds.

        Raises:
            BenchmarkError: The task's file names something that the package lacks.
            RuntimeError: There is no renderer.
        """
        self.task = task
        self._world = build_world(task)
        self._world.env.hard_reset = False  # an episode uses this simulation again
        self._data = self._world.sim.data._data
        self._stage = stage_of_world(self._world.env, arena_of(self._world), self._data)
        self._drawing = Drawing(self._stage)
        robot = self._world.env.robots[0]
        self._site = robot.eef_site_id
        self._fingers = np.array(robot._ref_gripper_joint_pos_indexes)
        self.steps = 0
        self.shoulder_m = np.array([0.0, 0.0, _SHOULDER_M]) + robot.base_pos
        self.on_step: Callable[[], object] = lambda: None

    def close(self) -> None:
        """Give simulation and renderer back."""
        self._drawing.close()
        self._world.close()

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def instruction(self) -> str:
        """What the task's file says."""
        return self.task.instruction

    def begin(self, state: int) -> None:
        """Begin an episode at one of the task's initial states, and let it settle."""
        self._world.reset()
        self._world.set_init_state(self.task.states[state])
        for _ in range(SETTLE_STEPS):
            self._world.step(list(STAY))
        self.steps = 0

    def look(self, camera: str) -> CameraView:
        """What one of `CAMERAS` sees now."""
        pose = self.camera_pose(camera)
        return CameraView(*self._drawing.color_and_depth(pose), pose)

    def camera_pose(self, camera: str) -> CameraPose:
        """Where one of `CAMERAS` is now, in the world frame."""
        return model_camera(self._stage.model, self._data, CAMERAS[camera])

    def hand(self) -> Hand:
        """Where the hand is now."""
        position = np.array(self._data.site_xpos[self._site])
        rotation = np.array(self._data.site_xmat[self._site]).reshape(3, 3)
        opening = float(np.abs(self._data.qpos[self._fingers]).sum())
        return Hand(position, rotation, opening)

    def act(self, move: Floats, turn: Floats, grip: float) -> None:
        """Do one step of the controller, a twentieth of a second.

        Args:
            move: [3], -1 to 1: how far to move the hand, in units of `STEP_M`, world frame.
            turn: [3], -1 to 1: how far to turn it, in units of `STEP_RAD`, about these axes.
            grip: `OPEN` or `CLOSED`.
        """
        self._world.step([*np.clip(move, -1, 1), *np.clip(turn, -1, 1), grip])
        self.steps += 1
        self.on_step()

    def succeeded(self) -> bool:
        """Whether the task's goal holds; for the judge, not for the client."""
        return bool(self._world.check_success())

    @property
    def object_names(self) -> tuple[str, ...]:
        """Of all objects and fixtures; for `--truth` alone."""
        return tuple(obj.name for obj in self._stage.objects)

    def true_mask(self, name: str, camera: str) -> NDArray[np.bool_]:
        """The visible pixels of an object or a fixture, bool [H, W]; for `--truth` alone."""
        objects = self._stage.objects
        seen = self._drawing.instances(self.camera_pose(camera), [obj.geoms for obj in objects])
        own = [i + 1 for i, obj in enumerate(objects) if f"{name}_".startswith(f"{obj.name}_")]
        return np.isin(seen, own)
