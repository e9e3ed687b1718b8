"""The client looks again after every motion, tries other grasps, and says how a task ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from examples.pick_and_place import client as client_module
from examples.pick_and_place.client import TRIES, Client
from examples.pick_and_place.fixtures import Handle
from examples.pick_and_place.interfaces import Fault, Image, Moved, Sight
from examples.pick_and_place.placing import Goal
from tests.synthetic_depth import Brick, Floats, View, see

DOWN = np.stack(([0, 1.0, 0], [1.0, 0, 0], [0, 0, -1.0]), axis=1)
PLATE = Brick((-0.12, 0.0), (0.14, 0.14, 0.01))
AT_FIRST = see([Brick((0.1, 0.0), (0.08, 0.04, 0.05)), PLATE], elevation_deg=60.0)
GONE = see([PLATE], elevation_deg=60.0)
HIDDEN = replace(GONE, ids=2 * GONE.ids)
PLACED = see([Brick((-0.12, 0.0), (0.08, 0.04, 0.06)), PLATE], elevation_deg=60.0)
NUMBERS = {"the brick": 1, "the plate": 2}
ORDER = "put the brick on the plate"


def image_of(view: View) -> Image:
    color = np.zeros((*view.depth_m.shape, 3), np.uint8)
    return Image(color, view.depth_m, view.camera, view.rotation, view.position_m)


class ScriptedRobot:
    """Goes everywhere; each look shows the next view, and the last one for good."""

    def __init__(self, views: Sequence[View], opening_m: float = 0.04) -> None:
        self.views, self._held_m = list(views), opening_m
        self._at, self._turn, self._open = np.array([0.0, 0.0, 0.6]), DOWN, True
        self.grasps: list[Floats] = []
        self.moves = 0

    def look(self) -> Image:
        self.view = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        return image_of(self.view)

    def position_m(self) -> Floats:
        return self._at

    def rotation(self) -> Floats:
        return self._turn

    def opening_m(self) -> float:
        return 0.08 if self._open else self._held_m

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        self._at, self._turn = position_m, rotation
        self.moves += 1
        return Moved.REACHED

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        self._open = False
        self.grasps.append(self._at)

    def out_of_time(self) -> bool:
        return False


class ScriptedEyes:
    """Knows the objects of the view that was shown last."""

    def __init__(self, robot: ScriptedRobot, *, ambiguous: bool = False) -> None:
        self._robot, self._ambiguous = robot, ambiguous
        self.asked: list[str] = []

    def find(self, text: str, image: Image) -> Sight:
        self.asked.append(text)
        mask = self._robot.view.ids == NUMBERS[text]
        return Sight(mask[None][: int(mask.any())], ambiguous=self._ambiguous)


def test_an_object_that_stands_where_it_was_put_is_not_asked_for_again() -> None:
    robot = ScriptedRobot([AT_FIRST, GONE, PLACED])
    eyes = ScriptedEyes(robot)
    assert Client(robot, eyes).carry_out(ORDER).done
    assert sorted(eyes.asked) == ["the brick", "the plate"]
    assert len(robot.grasps) == 1
    assert robot.opening_m() == 0.08


def test_what_is_not_where_it_should_be_is_tried_again_and_then_given_up() -> None:
    robot = ScriptedRobot([AT_FIRST, GONE, AT_FIRST] * TRIES)
    outcome = Client(robot, ScriptedEyes(robot)).carry_out(ORDER)
    assert (outcome.fault, outcome.about) == (Fault.MISPLACED, "the brick")
    assert len(robot.grasps) == TRIES
    robot = ScriptedRobot([AT_FIRST, GONE, AT_FIRST, AT_FIRST, GONE, PLACED])
    assert Client(robot, ScriptedEyes(robot)).carry_out(ORDER).done


def test_what_is_not_seen_any_more_is_in_the_container_and_not_on_the_place() -> None:
    for relation, fault in (("into", Fault.NONE), ("onto", Fault.MISPLACED)):
        robot = ScriptedRobot([AT_FIRST, GONE, HIDDEN])
        outcome = Client(robot, ScriptedEyes(robot)).carry_out(
            f"put the brick {relation} the plate"
        )
        assert outcome.fault is fault


def test_a_hand_that_closed_on_nothing_takes_another_grasp_each_time() -> None:
    robot = ScriptedRobot([AT_FIRST], opening_m=0.0)
    outcome = Client(robot, ScriptedEyes(robot)).carry_out(ORDER)
    assert (outcome.fault, outcome.about) == (Fault.MISSED, "the brick")
    assert len({tuple(np.round(grasp, 3)) for grasp in robot.grasps}) == TRIES
    assert robot.opening_m() == 0.08


def test_an_object_that_stayed_was_not_taken_although_the_fingers_are_apart() -> None:
    robot = ScriptedRobot([AT_FIRST])
    outcome = Client(robot, ScriptedEyes(robot)).carry_out("take the brick")
    assert outcome.fault is Fault.MISSED
    robot = ScriptedRobot([AT_FIRST, GONE])
    assert Client(robot, ScriptedEyes(robot)).carry_out("take the brick").done


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        (ORDER, Fault.AMBIGUOUS),
        ("sing a song", Fault.NOT_UNDERSTOOD),
        ("close the plate", Fault.NO_SKILL),
        ("put the brick under the plate", Fault.NO_SKILL),
        ("put the brick between the plates", Fault.NO_SKILL),
    ],
)
def test_what_is_not_clear_moves_nothing(order: str, fault: Fault) -> None:
    robot = ScriptedRobot([AT_FIRST])
    outcome = Client(robot, ScriptedEyes(robot, ambiguous=True)).carry_out(order)
    assert outcome.fault is fault
    assert robot.moves == 0


def test_what_goes_into_a_drawer_is_put_out_of_its_way_before_it_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    robot, done = ScriptedRobot([AT_FIRST, GONE, AT_FIRST, GONE, PLACED]), []
    handle = Handle(np.array([0.0, -0.2, 0.15]), np.array([0.0, 1.0, 0.0]), 0.03)
    aside, inside = (Goal(np.array([x, 0.0, 0.0]), 0.05, 0.0) for x in (0.3, -0.12))

    def opened(*_: object) -> Goal:
        done.append(len(robot.grasps))
        return inside

    monkeypatch.setattr(client_module, "handle_of", lambda *_: handle)
    monkeypatch.setattr(client_module, "out_of_way", lambda *_: aside)
    monkeypatch.setattr(client_module, "open_drawer", opened)
    order = "open the plate and put the brick inside"
    assert Client(robot, ScriptedEyes(robot)).carry_out(order).done
    assert (done, len(robot.grasps)) == ([1], 2)
