"""Carries out an instruction: asks, looks, picks, looks again, puts, and looks a last time.

    outcome = Client(robot, eyes).carry_out("put the bowl on the plate")

Robot and eyes are two protocols, so that the same client drives a simulated arm in one process,
or a real one over ROS. It knows images with depth, the cameras' poses, and the hand's pose and
opening; nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from examples.pick_and_place.fixtures import handle_of, open_drawer, out_of_way, turn_knob
from examples.pick_and_place.interfaces import (
    Eyes,
    Fault,
    Image,
    Outcome,
    Robot,
    RobotError,
    StepError,
)
from examples.pick_and_place.measuring import PANDA, Seen, measured, surface, without_hand
from examples.pick_and_place.orders import Step, parse_order, places_of
from examples.pick_and_place.picking import Pose, pick, put, release_nothing, travel
from examples.pick_and_place.placing import RELATIONS, Goal, goal_of, stands_at
from segzero_core.config import GraspConfig
from segzero_core.errors import InputError

TRIES: Final = 3
"""How often it looks and asks at most before it gives up."""
FIXTURES: Final = ("open", "turn on", "turn off")
_AGAIN: Final = (
    Fault.BAD_MASK,
    Fault.NO_GRASP,
    Fault.OUT_OF_REACH,
    Fault.BLOCKED,
    Fault.MISSED,
    Fault.DROPPED,
    Fault.MISPLACED,
)
"""After these the scene may be another one, and it is worth to look again."""


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
        if not steps:
            return Outcome(Fault.NOT_UNDERSTOOD, instruction)
        if not all(map(_has_skill, steps)):
            return Outcome(Fault.NO_SKILL, instruction)
        self._opened: dict[str, Goal] = {}  # drawers, by noun phrase: where something goes in them
        self._waiting = {step.place: step.item for step in steps if step.relation == "in"}
        try:
            return self._carry_out(steps)
        except RobotError as error:
            return Outcome(Fault.ROBOT, str(error))

    def _carry_out(self, steps: Sequence[Step]) -> Outcome:
        self._home: Pose = (self._robot.position_m(), self._robot.rotation())
        try:
            for step in steps:
                self._do(step)
        except StepError as failed:
            release_nothing(self._robot)
            return failed.outcome
        return Outcome(Fault.NONE)

    def _do(self, step: Step) -> None:
        """Pick, and put if there is a place; a first try and others as long as they may help."""
        first: StepError | None = None
        tried: list[Pose] = []
        for _ in range(TRIES):
            try:
                self._try(step, tried)
                return
            except StepError as failed:
                if self._robot.out_of_time():
                    raise
                # What does not fit any more, after it was touched, is no fault of the question.
                first = first or failed
                if failed.outcome.fault not in _AGAIN:
                    raise first from failed
            self._go_home()
        raise first or AssertionError("there is at least one try")

    def _try(self, step: Step, tried: list[Pose]) -> None:
        image = self._look()
        if step.skill in FIXTURES:
            self._work(step, self._find(step.item, image, whole=True), image)
            return
        item = self._find(step.item, image)
        goal = self._goal(step, item, image) if step.place else None
        held = pick(self._robot, item, image, tried, step.item)
        if goal is None:
            return
        tried.clear()  # it lies elsewhere from now on
        arrived = put(self._robot, held, goal, image, step.item)
        self._go_home()
        after = self._look()
        stands = stands_at(goal, item.half_m, item.height_m, image, after)
        if not (stands or self._is_at(goal, step, after)):
            raise StepError(Fault.MISPLACED if arrived else Fault.BLOCKED, step.item)

    def _work(self, step: Step, item: Seen, image: Image) -> None:
        if step.skill == "open":
            if step.item in self._waiting:
                self._clear(self._waiting[step.item], item, step.item, image)
            self._opened[step.item] = open_drawer(self._robot, item, image, step.item)
        else:
            turn_knob(self._robot, item, step.item, on=step.skill == "turn on")
        self._go_home()

    def _clear(self, text: str, cabinet: Seen, drawer: str, image: Image) -> None:
        """Put what goes into a drawer where it can be taken from when the drawer is open."""
        item = self._find(text, image)
        goal = out_of_way(handle_of(cabinet, drawer), item, image, self._home[0])
        if goal is not None:
            put(self._robot, pick(self._robot, item, image, [], text), goal, image, text)

    def _is_at(self, goal: Goal, step: Step, image: Image) -> bool:
        """Ask where the object is, where the depth does not tell; in a container it is hidden."""
        try:
            return goal.holds(self._find(step.item, image).center_m)
        except StepError as unseen:
            return step.relation in ("in", "to") and unseen.outcome.fault is Fault.REFUSED

    def _goal(self, step: Step, item: Seen, image: Image) -> Goal:
        if step.place in self._opened and step.relation == "in":
            return self._opened[step.place]
        places = [self._find(text, image) for text in places_of(step)]
        return goal_of(places, step.relation, image, item.half_m)

    def _find(self, text: str, image: Image, *, whole: bool = False) -> Seen:
        """Ask for an object or a place, and measure it; of a place its visible surface will do.

        A fixture's mask is taken as a whole: a knob may stand apart from the stove's plate.

        Raises:
            StepError: There is no answer, none fits, several do, or it has no depth.
        """
        sight = self._eyes.find(text, image)
        if sight.error:
            raise StepError(Fault.FAILED, f"{text}: {sight.error}")
        if not len(sight.masks):
            raise StepError(Fault.REFUSED, text)
        if sight.ambiguous:
            raise StepError(Fault.AMBIGUOUS, text)
        measures = (surface,) if whole else (partial(measured, gripper=self._gripper), surface)
        for measure in measures:
            try:
                return measure(sight.masks[0], image)
            except InputError:
                continue
        raise StepError(Fault.BAD_MASK, text)

    def _look(self) -> Image:
        """An image without the hand, which would be in its own way."""
        robot = self._robot
        return without_hand(robot.look(), robot.position_m(), robot.rotation())

    def _go_home(self) -> None:
        """Go where the hand was at first, which is out of the camera's sight."""
        travel(self._robot, *self._home)


def _has_skill(step: Step) -> bool:
    move = step.skill == "move" and step.relation in RELATIONS and bool(places_of(step))
    return move or step.skill in ("pick", *FIXTURES)
