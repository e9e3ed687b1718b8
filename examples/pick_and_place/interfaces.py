"""What the client needs of a robot and of who answers, and what it says at the end.

Poses of the hand are those of the middle between its fingertips, in the robot's base frame, z up:
the hand's z is the approach, its x the closing axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from segzero_core.depth import CameraModel

Floats = NDArray[np.float64]
SLOW: Final = 0.4
"""The share of the full speed that a slow motion has."""


class Fault(Enum):
    """Why a task ended."""

    NONE = "done"
    NOT_UNDERSTOOD = "the instruction has no known form"
    NO_SKILL = "no skill for it"
    FAILED = "the question failed"
    REFUSED = "nothing matches"
    AMBIGUOUS = "several objects fit: which one is meant?"
    BAD_MASK = "the mask gives no object in the depth image"
    NO_GRASP = "no grasp"
    OUT_OF_REACH = "out of reach"
    BLOCKED = "the way is blocked"
    MISSED = "the hand closed on nothing"
    DROPPED = "it slipped out"
    MISPLACED = "it is not where it should be"
    OUT_OF_TIME = "out of time"
    ROBOT = "the robot cannot go on"


class Moved(Enum):
    """How a motion ended; but for REACHED the hand rests where it is."""

    REACHED = "reached"
    BLOCKED = "blocked"
    OUT_OF_REACH = "out of reach"
    """Nothing was moved."""
    STOPPED = "stopped"
    """Cancelled, or out of time."""


class RobotError(Exception):
    """The robot cannot go on: no image, no transform, no answer. The arm is at rest."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended; `about` is the noun phrase that it failed on."""

    fault: Fault
    about: str = ""

    @property
    def done(self) -> bool:
        """Whether the client believes that the task is done."""
        return self.fault is Fault.NONE


class StepError(Exception):
    """A step cannot go on; the arm is at rest."""

    def __init__(self, fault: Fault, about: str) -> None:
        super().__init__(f"{about}: {fault.value}")
        self.outcome = Outcome(fault, about)


@dataclass(frozen=True, eq=False)
class Image:
    """An RGB-D image with its camera."""

    color: NDArray[np.uint8]  # uint8 [H, W, 3] RGB
    depth_m: NDArray[np.float32]  # float32 [H, W], NaN where unknown
    camera: CameraModel  # its intrinsics
    rotation: Floats  # float64 [3, 3], from the optical frame to the base frame
    position_m: Floats  # float64 [3], the camera in the base frame

    @cached_property
    def points_m(self) -> Floats:
        """What each pixel shows, float64 [H, W, 3] in the base frame; NaN where unknown."""
        height, width = self.depth_m.shape
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        rays = self.camera.rays(np.stack((columns, rows), axis=-1).reshape(-1, 2))
        depth = self.depth_m.reshape(-1, 1).astype(np.float64)
        points = np.concatenate((rays * depth, depth), axis=1)
        return self.in_base(points).reshape(height, width, 3)

    def in_base(self, points_m: Floats) -> Floats:
        """Points [N, 3] of the camera's frame in the base frame."""
        return np.asarray(points_m, np.float64) @ self.rotation.T + self.position_m


@dataclass(frozen=True, eq=False)
class Sight:
    """What is said about an image."""

    masks: NDArray[np.bool_]  # bool [N, H, W], best first
    error: str = ""  # why there is no answer; empty if there is one
    ambiguous: bool = False  # several near-equal objects were found where one was asked for
    thinking: str = ""  # the trace


class Eyes(Protocol):
    """Who is asked about images: the node, or the library in this process."""

    def find(self, text: str, image: Image) -> Sight:
        """Find what a noun phrase means."""
        ...


class Robot(Protocol):
    """An arm with a parallel gripper; every call returns when the motion has ended.

    Every call may raise a RobotError.
    """

    def look(self) -> Image:
        """What the camera before the robot sees now."""
        ...

    def position_m(self) -> Floats:
        """Where the hand is, [3]."""
        ...

    def rotation(self) -> Floats:
        """How the hand is turned, [3, 3]."""
        ...

    def opening_m(self) -> float:
        """How far the fingers are apart."""
        ...

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        """Move in a straight line."""
        ...

    def open(self) -> None:
        """Open the fingers."""
        ...

    def close(self) -> None:
        """Close the fingers with the gripper's force."""
        ...

    def out_of_time(self) -> bool:
        """Whether the task must end now."""
        ...
