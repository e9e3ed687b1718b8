"""Carries out an instruction: looks, picks, looks whether the object left its place, puts it.

    outcome = Client(robot, eyes).carry_out("put the bowl on the plate")

Robot and eyes are two protocols, so that the same client drives a simulated arm in one process,
or a real one over ROS. It knows images with depth, the cameras' poses, and the hand's pose and
opening; nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from examples.pick_and_place.interfaces import (
    Eyes,
    Fault,
    Floats,
    Image,
    Moved,
    Outcome,
    Robot,
    RobotError,
)
from examples.pick_and_place.measuring import (
    PANDA,
    Seen,
    changed_share,
    measured,
    place_point_m,
    surface,
)
from examples.pick_and_place.orders import Step, parse_order
from segzero_core.config import GraspConfig
from segzero_core.errors import InputError

TRIES: Final = 3
SKILLS: Final = ("move", "pick")
_PUT_RELATIONS: Final = ("on", "in", "front", "behind", "left", "right")
ABOVE_M, LIFT_M, CLEAR_M = 0.10, 0.16, 0.12
"""Where the way down begins; how high an object is lifted; how far the hand withdraws."""
_DROP_M: Final = 0.012
"""Height over the place from which an object is let go."""
_HELD_M: Final = 0.0015
"""Fingers that hold something stay further apart."""
_NEAR_M: Final = 0.02
"""A hand that was stopped so near to a grasp closes there."""
_GONE_M, _GONE_SHARE = 0.01, 0.3
"""An object left its place where the depth of so much of it changed by so much."""
_RETREAT_M: Final = np.array([-0.10, 0.0, LIFT_M])
"""How the hand moves out of the camera's sight."""


@dataclass(frozen=True, eq=False)
class Held:
    """What is in the hand."""

    offset_xy_m: Floats  # the object's middle minus the hand's, at the grasp
    height_m: float  # the hand's height over the object's lowest point


class Client:
    """Carries out instructions.

    Args:
        robot: The arm and its camera.
        eyes: Who is asked.
        gripper: The hand that grasps are looked for.
    """

    def __init__(self, robot: Robot, eyes: Eyes, gripper: GraspConfig = PANDA) -> None:
        self._robot, self._eyes, self._gripper = robot, eyes, gripper

    def carry_out(self, instruction: str) -> Outcome:
        """Do everything that an instruction asks for; it ends at the first fault."""
        steps = parse_order(instruction)
        if not steps or not all(map(_has_skill, steps)):
            return Outcome(Fault.NO_SKILL, instruction)
        try:
            for step in steps:
                outcome = self._do(step)
                if not outcome.done:
                    return outcome
        except RobotError as error:
            return Outcome(Fault.ROBOT, str(error))
        return Outcome(Fault.NONE)

    def _do(self, step: Step) -> Outcome:
        image = self._robot.look()
        place = self._find_place(step.place, image) if step.place else None
        if isinstance(place, Outcome):
            return place
        outcome = Outcome(Fault.NO_GRASP, step.item)
        for _ in range(TRIES):
            item = self._find(step.item, image)
            if isinstance(item, Outcome):
                return item
            held = self._pick(item, image, step.item)
            if isinstance(held, Held):
                return self._place(held, place, step) if place else Outcome(Fault.NONE)
            outcome = held
            if outcome.fault is Fault.OUT_OF_TIME:
                break
            self._retreat()
            image = self._robot.look()  # what was touched may lie elsewhere now
        return outcome

    def _find(self, text: str, image: Image) -> Seen | Outcome:
        """Ask for an object, and measure it."""
        sight = self._eyes.find(text, image)
        if sight.error:
            return Outcome(Fault.FAILED, f"{text}: {sight.error}")
        if not len(sight.masks):
            return Outcome(Fault.REFUSED, text)
        if sight.ambiguous:
            return Outcome(Fault.AMBIGUOUS, text)
        try:
            return measured(sight.masks[0], image, self._gripper)
        except InputError:
            return replace(_NOTHING, mask=sight.masks[0])

    def _find_place(self, text: str, image: Image) -> Seen | Outcome:
        """Ask for a place; its visible surface will do."""
        place = self._find(text, image)
        if isinstance(place, Outcome) or len(place.points_m):
            return place
        try:
            return surface(place.mask, image)
        except InputError:
            return Outcome(Fault.BAD_MASK, text)

    def _pick(self, item: Seen, before: Image, text: str) -> Held | Outcome:
        """Try the best grasps, as long as nothing was touched."""
        if not len(item.points_m):
            return Outcome(Fault.BAD_MASK, text)
        robot, fault = self._robot, Fault.NO_GRASP
        for position, rotation in item.grasps[:TRIES]:
            turned = nearer_turn(rotation, robot.rotation())
            above = position - ABOVE_M * turned[:, 2]
            robot.open()
            self._travel(above, turned)
            moved = robot.move_to(position, turned, slow=True)
            at = robot.position_m()
            if robot.out_of_time():
                return Outcome(Fault.OUT_OF_TIME, text)
            if np.linalg.norm(at - position) > _NEAR_M:
                fault = Fault.OUT_OF_REACH if moved is Moved.OUT_OF_REACH else Fault.BLOCKED
                robot.move_to(above, turned)
                continue
            robot.close()
            robot.move_to(_over(at, LIFT_M), turned, slow=True)
            if robot.opening_m() > _HELD_M and self._is_gone(item, before):
                return Held(item.center_m[:2] - at[:2], float(at[2] - item.bottom_m))
            robot.open()
            return Outcome(Fault.MISSED, text)
        return Outcome(fault, text)

    def _is_gone(self, item: Seen, before: Image) -> bool:
        """Whether an object left the place where it was seen."""
        return changed_share(item.mask, before, self._robot.look(), _GONE_M) > _GONE_SHARE

    def _place(self, held: Held, place: Seen, step: Step) -> Outcome:
        robot = self._robot
        target = place_point_m(place, step.relation)
        rotation, before = robot.rotation(), robot.position_m()
        xy = target[:2] - held.offset_xy_m
        z = target[2] + held.height_m + _DROP_M
        high = max(z + _DROP_M, before[2])
        robot.move_to(np.array([*before[:2], high]), rotation)
        if robot.move_to(np.array([*xy, high]), rotation) is Moved.OUT_OF_REACH:
            return Outcome(Fault.OUT_OF_REACH, step.place)
        if robot.opening_m() <= _HELD_M:
            return Outcome(Fault.DROPPED, step.item)
        robot.move_to(np.array([*xy, z]), rotation, slow=True)
        arrived = np.linalg.norm(robot.position_m()[:2] - xy) < 2 * _NEAR_M
        robot.open()
        robot.move_to(_over(robot.position_m(), CLEAR_M), rotation)
        if robot.out_of_time():
            return Outcome(Fault.OUT_OF_TIME, step.item)
        return Outcome(Fault.NONE if arrived else Fault.MISPLACED, step.item)

    def _travel(self, position_m: Floats, rotation: Floats) -> None:
        """Go over everything: up, across, down."""
        robot, at = self._robot, self._robot.position_m()
        high = max(at[2], position_m[2])
        robot.move_to(np.array([*at[:2], high]), robot.rotation())
        robot.move_to(np.array([*position_m[:2], high]), rotation)
        robot.move_to(position_m, rotation)

    def _retreat(self) -> None:
        """Raise the hand out of the camera's sight."""
        self._robot.move_to(self._robot.position_m() + _RETREAT_M, self._robot.rotation())


_NOTHING: Final = Seen(np.zeros((0, 0), bool), np.zeros((0, 3)), np.zeros(3), 0.0, ())


def _has_skill(step: Step) -> bool:
    return step.skill in SKILLS and (not step.place or step.relation in _PUT_RELATIONS)


def _over(position_m: Floats, height_m: float) -> Floats:
    return position_m + np.array([0.0, 0.0, height_m])


def nearer_turn(rotation: Floats, now: Floats) -> Floats:
    """A grasp, or the same one turned by half: the one that is nearer to how the hand is now."""
    return rotation if rotation[:, 0] @ now[:, 0] >= 0 else rotation * [-1, -1, 1]
