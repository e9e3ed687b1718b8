"""What is carried goes over what is on its way; the palm has room where an object is put."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from examples.pick_and_place.interfaces import Moved, StepError
from examples.pick_and_place.measuring import surface, without_hand
from examples.pick_and_place.picking import Held, pick, put, roomy_turn
from examples.pick_and_place.placing import Goal, goal_of
from tests.examples.test_client import AT_FIRST, DOWN, ScriptedRobot, image_of
from tests.fake_cell import Lifted
from tests.synthetic_depth import Brick, Floats, see

NOTHING = see([], elevation_deg=60.0)
EMPTY = image_of(NOTHING)
BRICK = Held(np.zeros(2), 0.02, slender=False, taken_m=np.zeros(3))


class RecordingRobot(ScriptedRobot):
    """Keeps where it went; nothing gets beyond x = 0 below `wall_m`, or above `reach_m`."""

    def __init__(self, wall_m: float = 0.0, reach_m: float = np.inf) -> None:
        super().__init__([AT_FIRST])
        self._wall_m, self._reach_m = wall_m, reach_m
        self.way: list[Floats] = []
        self.move_to(np.array([-0.25, 0.0, 0.1]), DOWN)
        self.close()

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        if position_m[2] > self._reach_m:
            return Moved.OUT_OF_REACH
        if self._at[0] < 0 < position_m[0] and position_m[2] < self._wall_m:
            return Moved.BLOCKED
        self.way.append(position_m)
        return super().move_to(position_m, rotation, slow=slow)


def carried(robot: RecordingRobot, tower_m: float) -> float:
    """The height at which a brick is carried over a tower."""
    image = image_of(see([Brick((0.0, 0.0), (0.05, 0.05, tower_m))], distance_m=1.2))
    put(robot, BRICK, Goal(np.array([0.25, 0.0, 0.0]), 0.03, 0.0), image, "the brick")
    return float(next(at[2] for at in robot.way if at[0] > 0))


def test_what_is_carried_goes_over_a_tower_that_is_higher_than_where_it_was() -> None:
    assert carried(RecordingRobot(), 0.3) > 0.35
    assert carried(RecordingRobot(reach_m=0.3), 0.3) < 0.3


def test_a_blocked_way_is_tried_once_more_higher() -> None:
    assert carried(RecordingRobot(wall_m=0.2), 0.05) > 0.2


class ShortArm(RecordingRobot):
    """Gets nowhere beyond some x."""

    def __init__(self, far_m: float = 0.2) -> None:
        self._far_m = far_m
        super().__init__()

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        if position_m[0] > self._far_m:
            return Moved.OUT_OF_REACH
        return super().move_to(position_m, rotation, slow=slow)


def test_where_the_middle_is_out_of_reach_it_is_put_as_near_to_it_as_can_be() -> None:
    robot = ShortArm()
    put(robot, BRICK, Goal(np.array([0.25, 0.0, 0.0]), 0.08, 0.0), EMPTY, "the brick")
    assert robot.position_m()[0] == pytest.approx(0.25 - 0.8 * 0.08)


class LowArm(RecordingRobot):
    """Reaches as far as 0.3 m near to the ground, and less far the higher it is."""

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        if position_m[0] + position_m[2] > 0.42:
            return Moved.OUT_OF_REACH
        return super().move_to(position_m, rotation, slow=slow)


def test_a_far_place_is_come_to_from_above_as_high_as_the_arm_reaches() -> None:
    robot = LowArm()
    robot.move_to(np.array([-0.25, 0.0, 0.4]), DOWN)  # it was taken from something high
    put(robot, BRICK, Goal(np.array([0.25, 0.0, 0.0]), 0.03, 0.0), EMPTY, "the brick")
    above, there, _ = (at for at in robot.way if at[0] == 0.25)
    assert 0.05 < above[2] < 0.17
    assert there[2] == pytest.approx(0.032)


def test_what_can_go_nowhere_goes_back_to_where_it_was() -> None:
    robot = ShortArm()
    taken = replace(BRICK, taken_m=np.array([-0.3, 0.1, 0.02]))
    with pytest.raises(StepError, match="the brick: out of reach"):
        put(robot, taken, Goal(np.array([0.25, 0.0, 0.0]), 0.03, 0.0), EMPTY, "the brick")
    assert robot.way[-2] == pytest.approx([-0.3, 0.1, 0.032])
    assert robot.opening_m() == 0.08


def test_what_swings_down_in_the_fingers_is_held_as_it_hangs() -> None:
    lying, up = Brick((0.1, 0.0), (0.14, 0.14, 0.02)), Lifted((0.1, 0.0), (0.02, 0.14, 0.14), 0.02)
    before = see([lying], elevation_deg=60.0)
    item = replace(
        surface(before.mask(1), image_of(before)),
        grasps=((np.array([0.1, 0.06, 0.01]), DOWN),),
        bottom_m=0.0,
    )
    swung, bowl = see([up], elevation_deg=60.0), replace(item, height_m=0.08)
    for taken, after, height_m in (
        (item, swung, 0.15),
        (item, NOTHING, 0.01),
        (bowl, swung, 0.01),
    ):
        robot = ScriptedRobot([after])
        held = pick(robot, taken, image_of(before), [], "the plate")
        assert held.height_m == pytest.approx(height_m, abs=0.025)
        assert held.offset_xy_m == pytest.approx([0, -0.06], abs=0.02)


PLATE = replace(BRICK, height_m=0.15, lying_m=np.array([-0.06, 0.0, 0.01]))


def test_what_hangs_is_laid_down_about_its_lower_edge() -> None:
    robot = RecordingRobot()
    put(robot, PLATE, Goal(np.array([0.25, 0.0, 0.0]), 0.03, 0.0), EMPTY, "the plate")
    standing, lying = np.array([0.31, 0.0, 0.15]), np.array([0.19, 0.0, 0.022])
    first = next(i for i, at in enumerate(robot.way) if np.allclose(at, standing))
    *arc, _ = robot.way[first:]
    assert arc[-1] == pytest.approx(lying)
    edge = np.array([0.31, 0.0, 0.0])
    assert all(0.11 < np.linalg.norm(at - edge) <= 0.16 for at in arc)
    assert all(np.diff([at[2] for at in arc][1:]) < 0)


def test_where_it_cannot_be_laid_down_it_is_let_go_as_it_hangs() -> None:
    robot = ShortArm(far_m=0.28)
    put(robot, PLATE, Goal(np.array([0.25, 0.0, 0.0]), 0.03, 0.0), EMPTY, "the plate")
    assert robot.way[-2] == pytest.approx([0.25, 0.0, 0.162])


@pytest.mark.parametrize(("start_x_m", "out_m"), [(0.4, 0.15), (0.2, 0.0)])
def test_a_folded_arm_lifts_outwards_and_another_straight_up(
    start_x_m: float, out_m: float
) -> None:
    robot = RecordingRobot()
    robot.views = [see([], elevation_deg=60.0)]
    robot.open()
    robot.move_to(np.array([start_x_m, 0.0, 0.6]), DOWN)
    item = surface(AT_FIRST.mask(1), image_of(AT_FIRST))
    grasp = np.array([0.1, 0.0, 0.02])
    pick(robot, replace(item, grasps=((grasp, DOWN),)), image_of(AT_FIRST), [], "the brick")
    taken = next(i for i, at in enumerate(robot.way) if np.allclose(at, grasp))
    first, last = robot.way[taken + 1], robot.way[-1]
    assert first[:2] == pytest.approx(grasp[:2])
    assert last == pytest.approx(grasp + np.array([out_m, 0.0, 0.16]))


def test_the_palm_is_turned_along_a_wall_beside_the_place() -> None:
    wall = Brick((0.0, 0.09), (0.4, 0.02, 0.2))
    offset = np.array([0.0, 0.0, 0.02])
    walled, free = (image_of(see(each, elevation_deg=60.0)) for each in ([wall], []))
    assert np.array_equal(roomy_turn(free, np.zeros(3), offset, DOWN), np.eye(3))
    closing = (roomy_turn(walled, np.zeros(3), offset, DOWN) @ DOWN)[:, 0]
    assert abs(closing[1]) == pytest.approx(0.0, abs=0.01)  # it was 1


def test_the_arm_is_no_obstacle_and_what_stands_beside_it_is() -> None:
    arm, tower = Lifted((0.1, 0.0), (0.4, 0.06, 0.1), height_m=0.3), Brick((-0.3, 0), (0.05,) * 3)
    view = see([arm, tower], distance_m=1.2)
    image = without_hand(image_of(view), np.array([0.0, 0.0, 0.2]), DOWN)
    known = np.isfinite(image.depth_m)
    assert known[view.mask(2)].all()
    assert known[view.mask(0)].all()
    assert known[view.mask(1)].mean() < 0.1


def test_on_a_large_place_an_object_goes_beside_what_overhangs_it() -> None:
    place, post = Brick((0.0, 0.0), (0.2, 0.2, 0.02)), Brick((0.06, 0.0), (0.03, 0.03, 0.2))
    for others, x in (([], 0.0), ([post], -0.03)):
        view = see([place, *others], elevation_deg=75.0, distance_m=0.8)
        image = image_of(view)
        goal = goal_of([surface(view.mask(1), image)], "on", image, 0.06)
        assert goal.point_m == pytest.approx([x, 0.0, 0.02], abs=0.015)
