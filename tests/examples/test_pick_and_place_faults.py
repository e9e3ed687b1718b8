"""Whatever goes wrong, a task ends with a reason, the arm at rest and the hand open or holding."""

from __future__ import annotations

import pytest

from examples.pick_and_place.client import Client
from examples.pick_and_place.interfaces import Fault, Image, RobotError
from examples.pick_and_place.libero_robot import LiberoRobot
from tests.fake_cell import BRICK, PLATE, FakeCell, FakeEyes

HORIZON = 2000


@pytest.fixture
def cell() -> FakeCell:
    return FakeCell()


def at_rest(cell: FakeCell) -> bool:
    return cell.is_held or cell.hand().opening_m > 0.07


def test_without_a_fault_the_brick_is_on_the_plate(cell: FakeCell) -> None:
    outcome = Client(LiberoRobot(cell, HORIZON), FakeEyes(cell)).carry_out(cell.instruction)
    assert outcome.done, outcome
    assert cell.succeeded()


@pytest.mark.parametrize("text", ["", "sing a song", f"put {BRICK}", f"{BRICK} on {PLATE}"])
def test_an_instruction_that_does_not_split_moves_nothing(cell: FakeCell, text: str) -> None:
    outcome = Client(LiberoRobot(cell, HORIZON), FakeEyes(cell)).carry_out(text)
    assert (outcome.fault, outcome.about) == (Fault.NOT_UNDERSTOOD, text)
    assert cell.steps == 0


def test_an_order_without_a_skill_moves_nothing(cell: FakeCell) -> None:
    outcome = Client(LiberoRobot(cell, HORIZON), FakeEyes(cell)).carry_out("close the drawer")
    assert outcome.fault is Fault.NO_SKILL
    assert cell.steps == 0


@pytest.mark.parametrize("absent", [BRICK, PLATE])
def test_what_is_not_there_is_named_and_nothing_moves(cell: FakeCell, absent: str) -> None:
    eyes = FakeEyes(cell, blind=(absent,))
    outcome = Client(LiberoRobot(cell, HORIZON), eyes).carry_out(cell.instruction)
    assert (outcome.fault, outcome.about) == (Fault.REFUSED, absent)
    assert cell.steps == 0


def test_a_question_without_an_answer_ends_the_task_with_its_reason(cell: FakeCell) -> None:
    eyes = FakeEyes(cell)
    eyes.errors[BRICK] = "/segzero has ended before it was done"
    outcome = Client(LiberoRobot(cell, HORIZON), eyes).carry_out(cell.instruction)
    assert outcome.fault is Fault.FAILED
    assert "has ended" in outcome.about
    assert cell.steps == 0


def test_a_grasp_out_of_reach_is_said_and_nothing_moves(cell: FakeCell) -> None:
    cell.shoulder_m[0] = -2.0
    outcome = Client(LiberoRobot(cell, HORIZON), FakeEyes(cell)).carry_out(cell.instruction)
    assert (outcome.fault, outcome.about) == (Fault.OUT_OF_REACH, BRICK)
    assert cell.brick.height_m == 0.0
    assert at_rest(cell)


def test_a_way_that_is_blocked_is_given_up(cell: FakeCell) -> None:
    cell.wall_x = 0.02
    outcome = Client(LiberoRobot(cell, HORIZON), FakeEyes(cell)).carry_out(cell.instruction)
    assert outcome.fault is Fault.BLOCKED
    assert at_rest(cell)


def test_what_slips_in_mid_air_is_noticed_and_the_hand_opens(cell: FakeCell) -> None:
    cell.slips = True
    outcome = Client(LiberoRobot(cell, HORIZON), FakeEyes(cell)).carry_out(cell.instruction)
    assert outcome.fault is Fault.DROPPED
    assert not cell.is_held
    assert at_rest(cell)


def test_a_task_out_of_time_ends(cell: FakeCell) -> None:
    outcome = Client(LiberoRobot(cell, 10), FakeEyes(cell)).carry_out(cell.instruction)
    assert outcome.fault is Fault.OUT_OF_TIME
    assert cell.steps == 10


class BlindRobot(LiberoRobot):
    """Its camera stops after some images."""

    images = 1

    def look(self) -> Image:
        self.images -= 1
        if self.images < 0:
            raise RobotError("nothing new on /agentview/color/image_raw: the camera stopped")
        return super().look()


@pytest.mark.parametrize("images", [0, 1])
def test_a_camera_that_stops_ends_the_task_with_its_reason(cell: FakeCell, images: int) -> None:
    robot = BlindRobot(cell, HORIZON)
    robot.images = images
    outcome = Client(robot, FakeEyes(cell)).carry_out(cell.instruction)
    assert outcome.fault is Fault.ROBOT
    assert "the camera stopped" in outcome.about
    assert at_rest(cell)
