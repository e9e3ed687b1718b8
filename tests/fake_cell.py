"""A robot cell without a simulator: a hand that goes where it is told, a brick and a plate."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from examples.pick_and_place.interfaces import Image, Sight
from examples.pick_and_place.libero_robot import TIP_M, intrinsic_matrix
from segzero_core.depth import CameraModel
from tests.synthetic_depth import Brick, Floats, View, look_down, see
from worlds.common.camera_pose import IMAGE_SIZE_WH, CameraPose
from worlds.libero.benchmark.suites import BenchmarkError
from worlds.libero.robot.cell import CLOSED, STEP_M, STEP_RAD, CameraView, Hand

WIDE_M, FINGER_STEP_M = 0.08, 0.02
DOWN = np.diag([1.0, -1.0, -1.0])
BRICK, PLATE = "the brick", "the plate"
FOV_RAD = np.radians(45)
ELEVATION_DEG, DISTANCE_M = 45.0, 0.8


@dataclass(frozen=True)
class Lifted(Brick):
    """A brick that may be in the air."""

    height_m: float = 0.0

    @property
    def center_m(self) -> Floats:
        x, y, z = super().center_m
        return np.array([x, y, z + self.height_m])


class FakeCell:
    """See `worlds.libero.robot.cell.Cell`; the order is to put the brick on the plate.

    Attributes:
        slips: The brick falls out of the hand when it was carried a little.
        wall_x: Nothing gets beyond it.
        gate: Steps are done while it is set.
        begun: In a step.
    """

    instruction = f"put {BRICK} on {PLATE}"

    def __init__(self) -> None:
        self.shoulder_m = np.array([-0.4, 0.0, 0.333])
        self.slips, self.wall_x = False, np.inf
        self.gate, self.stepping = threading.Event(), threading.Event()
        self.gate.set()
        self.on_step: Callable[[], object] = lambda: None
        self.begin(0)

    def begin(self, state: int) -> None:
        self.steps = 0
        self.brick = Lifted((0.08, 0.02), (0.04, 0.06, 0.05))
        self.plate = Brick((-0.10, 0.0), (0.12, 0.12, 0.02))
        self._tip, self._rotation = np.array([0.0, -0.10, 0.25]), DOWN.copy()
        self._opening_m, self._carried_m = WIDE_M, 0.0
        self.is_held = False

    def camera_pose(self, _: str) -> CameraPose:
        rotation = look_down(ELEVATION_DEG)
        return CameraPose(-DISTANCE_M * rotation[:, 2], rotation, FOV_RAD)

    def view(self) -> View:
        unmoved = CameraPose(np.zeros(3), np.eye(3), FOV_RAD)
        camera = CameraModel(intrinsic_matrix(unmoved), (), IMAGE_SIZE_WH)
        objects = [self.brick, self.plate]
        return see(objects, elevation_deg=ELEVATION_DEG, distance_m=DISTANCE_M, camera=camera)

    def look(self, camera: str) -> CameraView:
        depth_mm = np.nan_to_num(self.view().depth_m * 1000).round().astype(np.uint16)
        color = np.full((*depth_mm.shape, 3), 90, np.uint8)
        return CameraView(color, depth_mm, self.camera_pose(camera))

    def hand(self) -> Hand:
        position = self._tip - TIP_M * self._rotation[:, 2]
        return Hand(position, self._rotation.copy(), self._opening_m)

    def act(self, move: Floats, turn: Floats, grip: float) -> None:
        self.stepping.set()
        assert self.gate.wait(30.0)
        before = self._tip
        self._tip = before + STEP_M / 2 * move  # as a controller, it stays behind its target
        self._tip[0] = min(self._tip[0], self.wall_x)
        self._rotation = cv2.Rodrigues(STEP_RAD * turn)[0] @ self._rotation
        self._carry(self._tip - before)
        self._grip(grip == CLOSED)
        self.steps += 1
        self.on_step()

    def _grip(self, closing: bool) -> None:
        away = self._tip - self.brick.center_m
        between = np.abs(away[:2]).max() < 0.02 and abs(away[2]) < 0.03
        least = self.brick.size_m[0] if between else 0.0
        change = -FINGER_STEP_M if closing else FINGER_STEP_M
        self._opening_m = float(np.clip(self._opening_m + change, least, WIDE_M))
        was_held, self.is_held = self.is_held, closing and between and self._opening_m == least
        if was_held and not self.is_held:
            self._drop()

    def _carry(self, by: Floats) -> None:
        if not self.is_held:
            return
        x, y = self.brick.place_xy
        height_m = max(0.0, self.brick.height_m + by[2])
        self.brick = replace(self.brick, place_xy=(x + by[0], y + by[1]), height_m=height_m)
        self._carried_m += float(np.linalg.norm(by[:2]))
        if self.slips and self._carried_m > 0.04:
            self.is_held = False
            self._drop()

    def _drop(self) -> None:
        height_m = self.plate.size_m[2] if self.succeeded() else 0.0
        self.brick = replace(self.brick, height_m=height_m)

    def succeeded(self) -> bool:
        away = np.array(self.brick.place_xy) - self.plate.place_xy
        return bool(np.abs(away).max() < 0.05) and not self.is_held


class FakeEyes:
    """Knows where brick and plate are; what is named in `blind` is not found.

    Attributes:
        errors: By noun phrase, why a question fails.
    """

    def __init__(self, cell: FakeCell, blind: tuple[str, ...] = ()) -> None:
        self._cell, self._blind = cell, blind
        self.errors: dict[str, str] = {}

    def find(self, text: str, image: Image) -> Sight:
        ids = [i for i, name in enumerate((BRICK, PLATE), 1) if name == text]
        found = [self._cell.view().mask(i) for i in ids if text not in self._blind]
        masks: Any = np.array(found) if found else np.zeros((0, *image.depth_m.shape), bool)
        return Sight(masks, error=self.errors.get(text, ""))


class FakeCells:
    """Has one task, of the suite "fake"; see `examples.pick_and_place.ros.panda_node.Cells`."""

    def __init__(self, cell: FakeCell) -> None:
        self.cell, self.is_closed = cell, False

    def __call__(self, suite: str, task: int, state: int) -> FakeCell:
        if suite != "fake":
            raise BenchmarkError(f"unknown suite {suite!r}")
        self.cell.begin(state)
        return self.cell

    def close(self) -> None:
        self.is_closed = True
