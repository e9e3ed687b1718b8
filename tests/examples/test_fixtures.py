"""Handles of drawers and the blade of a knob are found in the shape of what they belong to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from examples.pick_and_place.fixtures import (
    Handle,
    approaches,
    find_handles,
    knob_of,
    open_drawer,
    out_of_way,
)
from examples.pick_and_place.interfaces import Moved, StepError
from examples.pick_and_place.measuring import Seen
from tests.examples.test_client import AT_FIRST, ScriptedRobot, image_of
from tests.synthetic_depth import Brick, Floats, see

MASK = np.ones((1, 1), np.bool_)


def seen(*parts: Floats) -> Seen:
    points = np.concatenate(parts)
    return Seen(MASK, points, points.mean(axis=0), float(points[:, 2].min()), 0.0, ())


def filled(low: tuple[float, ...], high: tuple[float, ...], count: int = 1500) -> Floats:
    return np.random.default_rng(0).uniform(low, high, (count, 3))


def turned(points: Floats, degrees: float) -> Floats:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([(cos, sin, 0), (-sin, cos, 0), (0, 0, 1)])


@pytest.mark.parametrize("degrees", [0.0, 35.0, 90.0, 200.0])
def test_handles_are_listed_from_above_with_the_way_in_which_they_open(degrees: float) -> None:
    top = filled((-0.12, -0.1, 0.215), (0.12, 0.1, 0.22))
    front = filled((-0.12, 0.09, 0.0), (0.12, 0.1, 0.22))
    bars = [filled((-0.03, 0.115, z), (0.05, 0.13, z + 0.012)) for z in (0.05, 0.12, 0.19)]
    handles = find_handles(seen(*(turned(part, degrees) for part in (top, front, *bars))))
    assert [handle.position_m[2] for handle in handles] == pytest.approx(
        [0.196, 0.126, 0.056], abs=0.003
    )
    for handle in handles:
        assert handle.outward == pytest.approx(
            turned(np.array([0.0, 1.0, 0.0]), degrees), abs=0.03
        )
        place = turned(np.array([0.01, 0.13, 0.0]), degrees)
        assert handle.position_m[:2] == pytest.approx(place[:2], abs=0.006)
        assert handle.face_m == pytest.approx(0.03, abs=0.004)


class RecordingRobot(ScriptedRobot):
    """Keeps where it went."""

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        moved = super().move_to(position_m, rotation, slow=slow)
        self.poses = [*getattr(self, "poses", []), (position_m, rotation, self._open)]
        return moved


def test_a_handle_near_the_ground_is_hooked_from_above_and_pulled() -> None:
    top = filled((-0.12, -0.1, 0.115), (0.12, 0.1, 0.12))
    front = filled((-0.12, 0.09, 0.0), (0.12, 0.1, 0.12))
    cabinet = seen(top, front, filled((-0.03, 0.115, 0.03), (0.05, 0.13, 0.042)))
    robot, image = RecordingRobot([AT_FIRST]), image_of(AT_FIRST)
    with pytest.raises(StepError, match="the lower drawer: the hand closed on nothing"):
        open_drawer(robot, cabinet, image, "the lower drawer")  # no view shows it open
    hooked = next(i for i, pose in enumerate(robot.poses) if pose[0][2] < 0.05)
    position, rotation, is_open = robot.poses[hooked]
    assert not is_open
    assert 0.1 < position[1] < 0.115  # between front and bar
    assert rotation[:, 2] == pytest.approx([0, -0.643, -0.766], abs=0.02)
    pulled = robot.poses[hooked + 1][0] - position
    assert pulled == pytest.approx([0, 0.165, -0.08], abs=0.005)
    assert (robot.poses[hooked + 2][0] - robot.poses[hooked + 1][0])[2] > 0.05


def test_the_hand_comes_to_a_handle_from_where_nothing_stands() -> None:
    handle = Handle(np.array([0.0, 0.13, 0.12]), np.array([0.0, 1.0, 0.0]), 0.03)
    hand = np.array([-0.3, 0.2, 0.5])
    bottle = filled((-0.12, 0.3, 0.0), (-0.08, 0.34, 0.2))
    table = filled((-0.5, 0.0, -0.01), (0.5, 0.8, 0.0))
    free, beside = approaches(handle, hand, table), approaches(handle, hand, bottle)
    assert free[0] == pytest.approx([0.423, -0.906, 0], abs=1e-3)
    assert beside[0] == pytest.approx([0, -1, 0], abs=1e-3)
    assert sorted(map(tuple, free)) == sorted(map(tuple, beside))


class ShortArm(RecordingRobot):
    """Has to stand straight before what it pulls."""

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        if abs(rotation[0, 2]) > 0.1:
            return Moved.OUT_OF_REACH
        return super().move_to(position_m, rotation, slow=slow)


def test_a_way_to_a_handle_that_is_out_of_reach_is_left_out() -> None:
    top = filled((-0.12, -0.1, 0.215), (0.12, 0.1, 0.22))
    front = filled((-0.12, 0.09, 0.0), (0.12, 0.1, 0.22))
    bar = filled((-0.03, 0.115, 0.15), (0.05, 0.13, 0.162))
    cabinet = replace(seen(top, front, bar), mask=AT_FIRST.mask(1))
    robot = ShortArm([AT_FIRST])
    with pytest.raises(StepError):
        open_drawer(robot, cabinet, image_of(AT_FIRST), "the drawer")  # no view shows it open
    (closed,) = robot.grasps
    assert closed[:2] == pytest.approx([0.01, 0.112], abs=0.006)
    after = next(i for i, pose in enumerate(robot.poses) if np.array_equal(pose[0], closed)) + 1
    assert robot.poses[after][0] - closed == pytest.approx([0, 0.165, 0], abs=0.005)


def test_a_handle_that_is_not_there_moves_nothing() -> None:
    top = filled((-0.12, -0.1, 0.115), (0.12, 0.1, 0.12))
    front = filled((-0.12, 0.09, 0.0), (0.12, 0.1, 0.12))
    cabinet = seen(top, front, filled((-0.03, 0.115, 0.03), (0.05, 0.13, 0.042)))
    robot = ScriptedRobot([AT_FIRST])
    with pytest.raises(StepError, match="the middle drawer: no grasp"):
        open_drawer(robot, cabinet, image_of(AT_FIRST), "the middle drawer")
    assert robot.moves == 0


def test_a_box_has_no_handles() -> None:
    top = filled((-0.12, -0.1, 0.215), (0.12, 0.1, 0.22))
    assert find_handles(seen(top, filled((-0.12, 0.09, 0.0), (0.12, 0.1, 0.22)))) == []


def test_a_knob_is_what_stands_out_of_a_plate_and_a_plate_has_none() -> None:
    plate = filled((-0.1, -0.1, 0.02), (0.1, 0.1, 0.025))
    blade = filled((0.12, -0.01, 0.03), (0.19, 0.01, 0.055), 300)
    rim = filled((-0.12, -0.1, 0.04), (-0.1, 0.05, 0.05), 200)  # of another thing, by a bad mask
    middle, along = knob_of(seen(plate, turned(blade, 20.0), rim), "the stove")
    assert middle == pytest.approx([*turned(np.array([0.155, 0, 0]), 20.0)[:2], 0.055], abs=0.003)
    direction = turned(np.array([1.0, 0, 0]), 20.0)[:2]
    assert abs(along @ direction) == pytest.approx(1, abs=0.01)
    with pytest.raises(StepError, match="the plate: no grasp"):
        knob_of(seen(plate), "the plate")


def test_what_stands_before_a_drawer_waits_where_nothing_stands() -> None:
    handle = Handle(np.array([0.0, -0.2, 0.15]), np.array([0.0, 1.0, 0.0]), 0.03)
    item, post = Brick((0.02, -0.1), (0.06, 0.06, 0.05)), Brick((0.0, 0.15), (0.06, 0.06, 0.05))
    image = image_of(see([item, post], elevation_deg=70.0))
    before = seen(filled((-0.01, -0.13, 0.0), (0.05, -0.07, 0.05)))
    goal = out_of_way(handle, before, image, np.zeros(3))
    assert goal is not None
    assert goal.point_m[1] > 0.075  # beyond the drawer and the room for the hand
    assert np.linalg.norm(goal.point_m[:2] - post.center_m[:2]) > 0.1
    for shift in ((0.0, 0.45, 0.0), (0.4, 0.0, 0.0), (0.0, -0.2, 0.0)):
        elsewhere = seen(before.points_m + shift)
        assert out_of_way(handle, elsewhere, image, np.zeros(3)) is None
