"""The client that users copy: when it moves, when it asks, and in which order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from examples.grasp_client import (
    ABOVE_M,
    LIFT_M,
    Answer,
    Found,
    GraspPose,
    Place,
    Step,
    camera_place,
    decide,
    pick,
    rotation_of,
)

DOWN = np.diag([1.0, -1.0, -1.0])


def grasp_at(x: float, score: float = 0.9) -> GraspPose:
    return GraspPose(np.array([x, 0.0, 0.03]), DOWN, 0.05, score)


class Recorder:
    """A gripper that notes what it is told, and closes on what the test says."""

    def __init__(self, *, holds: list[bool], reaches: list[bool] | None = None) -> None:
        self.done: list[Any] = []
        self._holds, self._reaches = holds, reaches or []

    def move_to(self, position_m: Any, rotation: Any, speed_m_s: float) -> bool:
        self.done.append(("move", *np.round(position_m, 3).tolist()))
        return self._reaches.pop(0) if self._reaches else True

    def open(self, width_m: float) -> None:
        self.done.append(("open", width_m))

    def close(self) -> bool:
        self.done.append(("close",))
        return self._holds.pop(0)


def test_the_gripper_comes_from_above_closes_and_lifts() -> None:
    gripper = Recorder(holds=[True, True])
    assert pick(gripper, [grasp_at(0.1)]) is Step.HELD
    above = ("move", 0.1, 0.0, round(0.03 + ABOVE_M, 3))
    up = ("move", 0.1, 0.0, round(0.03 + LIFT_M, 3))
    down = ("move", 0.1, 0.0, 0.03)
    assert gripper.done == [above, ("open", 0.05), down, ("close",), up, ("close",)]


def test_what_is_lost_on_the_way_up_has_slipped_and_is_not_tried_again() -> None:
    gripper = Recorder(holds=[True, False])
    assert pick(gripper, [grasp_at(0.1), grasp_at(0.2)]) is Step.SLIPPED


@pytest.mark.parametrize(
    ("holds", "reaches"),
    [
        pytest.param([False, True, True], None, id="closed on nothing"),
        pytest.param([True, True], [True, False], id="blocked"),
    ],
)
def test_a_second_grasp_is_tried_where_the_first_cannot_be_had(
    holds: list[bool], reaches: list[bool] | None
) -> None:
    gripper = Recorder(holds=holds, reaches=reaches)
    assert pick(gripper, [grasp_at(0.1), grasp_at(0.2)]) is Step.HELD
    assert gripper.done[-2][1] == 0.2


def test_an_empty_gripper_gives_up_and_says_so() -> None:
    gripper = Recorder(holds=[False, False])
    assert pick(gripper, [grasp_at(0.1), grasp_at(0.2), grasp_at(0.3)]) is Step.EMPTY
    assert gripper.done[-1] == ("move", 0.2, 0.0, round(0.03 + ABOVE_M, 3))


TAKEN = Found(0.9, (grasp_at(0.1),))


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        pytest.param(Answer("error 1: no image", False, (TAKEN,)), Step.FAILED, id="error"),
        pytest.param(Answer("", False, ()), Step.NOTHING, id="nothing matches"),
        pytest.param(Answer("", True, (TAKEN, TAKEN)), Step.ASK, id="ambiguous"),
        pytest.param(Answer("", False, (Found(0.9, ()),)), Step.NO_GRASP, id="too large"),
    ],
)
def test_what_cannot_be_grasped_or_is_not_certain_moves_nothing(
    answer: Answer, step: Step
) -> None:
    decision = decide(answer)
    assert decision.step is step
    assert decision.grasps == ()


def test_an_error_is_reported() -> None:
    assert decide(Answer("error 1: no image", False, ())).detail == "error 1: no image"


def test_of_several_the_surest_that_can_be_grasped_is_taken() -> None:
    objects = (Found(0.5, (grasp_at(0.1),)), Found(0.9, ()), Found(0.7, (grasp_at(0.3),)))
    decision = decide(Answer("", False, objects))
    assert (decision.step, decision.index) == (Step.GRASP, 2)
    assert decision.grasps[0].position_m[0] == 0.3


def test_a_grasp_is_brought_from_the_camera_to_the_base() -> None:
    turn = rotation_of(0.0, 0.0, 1.0, 1.0)  # a quarter turn about z, not normalised
    moved = Place(turn, np.array([1.0, 2.0, 3.0])).of(grasp_at(0.1))
    np.testing.assert_allclose(moved.position_m, [1.0, 2.1, 3.03], atol=1e-12)
    np.testing.assert_allclose(moved.rotation, turn @ DOWN, atol=1e-12)


def test_a_quaternion_of_length_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="length zero"):
        rotation_of(0.0, 0.0, 0.0, 0.0)


def result_in(pose_frame: str) -> Any:
    return SimpleNamespace(
        header=SimpleNamespace(frame_id="camera"),
        pose_header=SimpleNamespace(frame_id=pose_frame),
    )


def test_the_cameras_pose_is_used_for_grasps_in_the_cameras_frame_only() -> None:
    pose = [1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0]
    place = camera_place(result_in("camera"), pose)
    np.testing.assert_allclose(place.position_m, [1.0, 2.0, 3.0])
    with pytest.raises(RuntimeError, match="target_frame 'base_link': --base-frame"):
        camera_place(result_in("base_link"), pose)
