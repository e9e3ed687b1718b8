"""The client of pick and place: measuring, and a whole task on LIBERO's robot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from examples.pick_and_place.client import Client
from examples.pick_and_place.interfaces import Fault, Image, Moved, Sight
from examples.pick_and_place.libero_robot import LiberoRobot
from examples.pick_and_place.measuring import PANDA, Seen, corrected, measured
from examples.pick_and_place.picking import CLEAR_M, Held, leaning, nearer_turn, pick, put
from examples.pick_and_place.placing import Goal, goal_of, stands_at
from segzero_core.depth import CameraModel, measure_object
from segzero_core.geometry import mask_iou
from tests.examples.test_client import AT_FIRST, GONE, ScriptedRobot
from tests.synthetic_depth import Ball, Brick, Floats, View, see
from worlds.libero.package import COMMAND, missing_modules

needs_libero = pytest.mark.skipif(
    bool(missing_modules()), reason=f"the extra libero is not installed: {COMMAND}"
)


NOWHERE = Image(
    np.zeros((4, 4, 3), np.uint8),
    np.full((4, 4), np.nan, np.float32),
    CameraModel(np.array([[9.0, 0, 2], [0, 9, 2], [0, 0, 1]]), (), (4, 4)),
    np.eye(3),
    np.zeros(3),
)


def box_of_points(low: tuple[float, ...], high: tuple[float, ...]) -> Seen:
    rng = np.random.default_rng(0)
    points = rng.uniform(low, high, (4000, 3))
    points[:2000, 2] = high[2]  # the top is seen well
    middle = (np.array(low) + high) / 2
    return Seen(np.ones((1, 1), bool), points, middle, low[2], high[2] - low[2], ())


def image_of(view: View) -> Image:
    color = np.zeros((*view.depth_m.shape, 3), np.uint8)
    return Image(color, view.depth_m, view.camera, view.rotation, view.position_m)


def test_an_object_is_put_on_the_middle_of_a_tall_places_top() -> None:
    place = box_of_points((0.2, -0.1, 0.0), (0.4, 0.1, 0.3))
    goal = goal_of([place], "on", NOWHERE, 0.03)
    assert goal.point_m == pytest.approx([0.3, 0.0, 0.3], abs=0.01)
    assert goal.holds(np.add(goal.point_m, (0.04, 0.04, 0.02)))
    assert not goal.holds(np.add(goal.point_m, (0.15, 0.0, 0.02)))
    assert not goal.holds(np.add(goal.point_m, (0.0, 0.0, -0.2)))


def test_on_a_slanting_place_it_is_the_middle_of_its_board() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-0.1, 0.1, (2, 6000))
    board = np.stack((x, y, 0.2 + 0.4 * y), axis=1)
    post = rng.uniform((-0.1, 0.09, 0.0), (0.1, 0.1, 0.3), (2000, 3))
    points = np.concatenate((board, post))
    place = Seen(np.ones((1, 1), bool), points, points.mean(axis=0), 0.0, 0.3, ())
    goal = goal_of([place], "on", NOWHERE, 0.03)
    assert goal.point_m == pytest.approx([0, 0, 0.2], abs=0.02)
    assert goal.slope == pytest.approx([0, 0.4], abs=0.05)
    assert not goal_of(
        [box_of_points((0, 0, 0), (0.2, 0.2, 0.3))], "on", NOWHERE, 0.03
    ).slope.any()


def test_a_slender_object_leans_uphill_with_its_foot_where_it_goes() -> None:
    slope = np.array([0.0, 0.5])
    assert leaning(slope) @ [0, 0, 1] == pytest.approx([0, 0.574, 0.819], abs=1e-3)
    assert np.array_equal(leaning(np.zeros(2)), np.eye(3))
    for slender, grip in ((True, [0.1, 0.057, 0.082]), (False, [0.1, 0.0, 0.1])):
        robot = ScriptedRobot([AT_FIRST])
        robot.close()
        goal = Goal(np.array([0.1, 0.0, 0.0]), 0.03, 0.0, slope)
        put(robot, Held(np.zeros(2), 0.1, slender, np.zeros(3)), goal, NOWHERE, "the bottle")
        let_go = robot.position_m() + CLEAR_M * robot.rotation()[:, 2]
        assert let_go == pytest.approx(np.add(grip, (0, 0, 0.012)), abs=2e-3)


def test_of_two_rims_the_one_nearer_to_the_hand_is_taken() -> None:
    view = see([Brick((0.0, 0.0), (0.05, 0.05, 0.05))], elevation_deg=60.0)
    for side in (-1.0, 1.0):
        robot = ScriptedRobot([view, GONE])
        robot.move_to(np.array([-0.4 * side, 0.0, 0.5]), robot.rotation())
        rims = [(np.array([x, 0.0, 0.02]), robot.rotation()) for x in (0.06, -0.06)]
        seen = measured(view.mask(1), image_of(view), PANDA)
        pick(robot, replace(seen, grasps=tuple(rims)), robot.look(), [], "the plate")
        assert robot.grasps[0][0] == -0.06 * side


class Stiff(ScriptedRobot):
    """Does not get to the far side."""

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        if position_m[0] > 0.03:
            return Moved.BLOCKED
        return super().move_to(position_m, rotation, slow=slow)


def test_a_grasp_whose_way_down_is_not_reached_is_left_out() -> None:
    view = see([Brick((0.0, 0.0), (0.05, 0.05, 0.05))], elevation_deg=60.0)
    robot = Stiff([view, GONE])
    places = [(np.array([x, 0.0, 0.02]), robot.rotation()) for x in (0.06, 0.0)]
    seen = measured(view.mask(1), image_of(view), PANDA)
    pick(robot, replace(seen, grasps=tuple(places)), robot.look(), [], "the brick")
    assert [grasp[0] for grasp in robot.grasps] == [0.0]


def test_beside_is_beside_the_edge_and_stands_on_the_table() -> None:
    place = box_of_points((0.2, -0.1, 0.05), (0.4, 0.1, 0.3))
    x, y, z = goal_of([place], "front", NOWHERE, 0.03).point_m
    assert (x, z) == (pytest.approx(0.48, abs=0.01), 0.05)
    assert y == pytest.approx(0.0, abs=0.01)
    assert goal_of([place], "left", NOWHERE, 0.03).point_m[1] < -0.1


def test_next_to_a_place_is_where_nothing_stands() -> None:
    middle = Brick((0.0, 0.0), (0.06, 0.06, 0.06))
    others = [Brick((x, y), (0.05, 0.05, 0.06)) for x, y in ((0.11, 0), (-0.11, 0), (0, 0.11))]
    view = see([middle, *others], elevation_deg=70.0)
    image = image_of(view)
    goal = goal_of([measured(view.mask(1), image, PANDA)], "beside", image, 0.03)
    assert goal.point_m == pytest.approx([0.0, -0.11, 0.0], abs=0.01)


def test_between_is_the_middle_of_two_places() -> None:
    one = box_of_points((0.2, -0.1, 0.0), (0.3, 0.0, 0.3))
    other = box_of_points((0.2, 0.3, 0.0), (0.3, 0.4, 0.1))
    goal = goal_of([one, other], "between", NOWHERE, 0.03)
    assert goal.point_m == pytest.approx([0.25, 0.15, 0.0])


def test_nothing_is_put_under_a_place() -> None:
    with pytest.raises(ValueError, match="under"):
        goal_of([box_of_points((0, 0, 0), (1, 1, 1))], "under", NOWHERE, 0.03)


def test_what_stands_at_its_goal_is_seen_and_what_lies_beside_is_not() -> None:
    goal = Goal(np.array([0.0, 0.0, 0.0]), 0.03, 0.0)
    before = image_of(see([Brick((0.1, 0.1), (0.04, 0.04, 0.04))], elevation_deg=60.0))
    there = image_of(see([Brick((0.01, 0.0), (0.04, 0.04, 0.04))], elevation_deg=60.0))
    beside = image_of(see([Brick((0.06, 0.0), (0.04, 0.04, 0.04))], elevation_deg=60.0))
    assert stands_at(goal, 0.04, 0.04, before, there)
    assert not stands_at(goal, 0.04, 0.04, before, beside)
    assert not stands_at(goal, 0.04, 0.04, before, before)


@pytest.mark.parametrize(("half", "stray"), [(False, True), (True, False), (True, True)])
def test_a_bad_mask_gives_the_object_that_the_depth_shows(half: bool, stray: bool) -> None:
    box, tower = Brick((0.0, 0.0), (0.12, 0.06, 0.04)), Brick((0.12, 0.0), (0.05, 0.05, 0.12))
    view = see([box, tower], elevation_deg=55.0)
    image, mask = image_of(view), view.mask(1).copy()
    if half:
        mask[:, : int(np.argwhere(mask)[:, 1].mean())] = False
    if stray:
        rows = np.argwhere(view.mask(2))[:, 0]
        mask |= view.mask(2) & (np.arange(len(mask))[:, None] < np.percentile(rows, 30))
    assert mask_iou(corrected(mask, image)[-1], view.mask(1)) > 0.75
    found = measured(mask, image, PANDA)
    assert found.height_m == pytest.approx(0.04, abs=0.004)
    assert np.abs(found.grasps[0][0]) == pytest.approx([0.0, 0.0, 0.02], abs=0.035)


def test_where_the_palm_has_no_room_the_fingers_must_do() -> None:
    low = Brick((0.0, 0.0), (0.04, 0.04, 0.03))
    walls = [Brick((x, y), (0.03, 0.03, 0.14)) for x, y in ((0.07, 0), (-0.07, 0), (0, 0.07))]
    view = see([low, *walls], elevation_deg=70.0)
    image = image_of(view)
    up = image.rotation.T[:, 2]
    strict = measure_object(view.mask(1), view.depth_m, view.camera, up=up, grasping=PANDA)
    assert strict.grasps == ()
    assert measured(view.mask(1), image, PANDA).grasps


def test_a_true_mask_stays_as_it_is() -> None:
    view = see([Ball((0.0, 0.0), 0.04), Brick((0.1, 0.0), (0.06, 0.06, 0.06))])
    for number in (1, 2):
        cleaned = corrected(view.mask(number), image_of(view))[0]
        assert mask_iou(cleaned, view.mask(number)) > 0.95


def test_of_two_equal_turns_the_nearer_is_taken() -> None:
    now = np.diag([1.0, -1.0, -1.0])
    turned = now * [-1, -1, 1]
    assert np.array_equal(nearer_turn(turned, now), now)
    assert np.array_equal(nearer_turn(now, now), now)
    level = np.stack(([0, 0, -1.0], [1.0, 0, 0], [0, -1.0, 0]), axis=1)  # closes up and down
    home = np.stack(([0, 1.0, 0], [1.0, 0, 0], [0, 0, -1.0]), axis=1)
    assert np.array_equal(nearer_turn(level * [-1, -1, 1], home), level)


class NamedEyes:
    """Answers with the true mask of an object of the cell, by the noun phrase."""

    def __init__(self, cell, names: dict[str, str]) -> None:
        self._cell, self._names = cell, names

    def find(self, text: str, image: Image) -> Sight:
        if text not in self._names:
            return Sight(np.zeros((0, *image.depth_m.shape), bool))
        return Sight(self._cell.true_mask(self._names[text], "agentview")[None])


@pytest.mark.libero
@pytest.mark.slow
@needs_libero
def test_a_bottle_is_put_in_the_basket_and_what_is_not_there_moves_nothing() -> None:
    from worlds.libero.benchmark.suites import open_suite
    from worlds.libero.robot.cell import Cell

    task = next(t for t in open_suite("libero_object", 1)[0] if "salad" in t.instruction)
    names = {"the salad dressing": task.of_interest[0], "the basket": task.of_interest[1]}
    with Cell(task) as cell:
        cell.begin(0)
        client = Client(LiberoRobot(cell, 600), NamedEyes(cell, names))
        assert client.carry_out("put the teapot in the basket").fault is Fault.REFUSED
        assert client.carry_out("close the basket").fault is Fault.NO_SKILL
        assert cell.steps == 0
        assert client.carry_out("pick the salad dressing and place it in the basket").done
        assert cell.succeeded()
        assert LiberoRobot(cell, 600).opening_m() > 0.06
        assert LiberoRobot(cell, cell.steps).out_of_time()


@pytest.mark.libero
@pytest.mark.slow
@needs_libero
def test_a_pose_out_of_reach_moves_nothing_and_says_so() -> None:
    from worlds.libero.benchmark.suites import open_suite
    from worlds.libero.robot.cell import Cell

    with Cell(open_suite("libero_object", 1)[0][0]) as cell:
        cell.begin(0)
        robot = LiberoRobot(cell, 600)
        far = robot.position_m() + np.array([0.6, 0.0, 0.0])
        assert robot.move_to(far, robot.rotation()) is Moved.OUT_OF_REACH
        assert cell.steps == 0
        near = robot.position_m() + np.array([0.05, 0.0, 0.0])
        assert robot.move_to(near, robot.rotation()) is Moved.REACHED
        assert robot.position_m() == pytest.approx(near, abs=0.005)
