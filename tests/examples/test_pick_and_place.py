"""The client of pick and place: measuring, and a whole task on LIBERO's robot."""

from __future__ import annotations

import numpy as np
import pytest

from examples.pick_and_place.client import Client, nearer_turn
from examples.pick_and_place.interfaces import Fault, Image, Moved, Sight
from examples.pick_and_place.libero_robot import LiberoRobot
from examples.pick_and_place.measuring import Seen, place_point_m
from worlds.libero.package import COMMAND, missing_modules

needs_libero = pytest.mark.skipif(
    bool(missing_modules()), reason=f"the extra libero is not installed: {COMMAND}"
)


def box_of_points(low: tuple[float, ...], high: tuple[float, ...]) -> Seen:
    rng = np.random.default_rng(0)
    points = rng.uniform(low, high, (4000, 3))
    points[:1000, 2] = high[2]  # the top is seen well
    middle = (np.array(low) + high) / 2
    return Seen(np.ones((1, 1), bool), points, middle, low[2], ())


def test_an_object_is_put_on_the_middle_of_a_tall_places_top() -> None:
    place = box_of_points((0.2, -0.1, 0.0), (0.4, 0.1, 0.3))
    assert place_point_m(place, "on") == pytest.approx([0.3, 0.0, 0.3], abs=0.01)


def test_beside_is_beside_the_edge_and_stands_on_the_table() -> None:
    place = box_of_points((0.2, -0.1, 0.05), (0.4, 0.1, 0.3))
    x, y, z = place_point_m(place, "front")
    assert (x, z) == (pytest.approx(0.48, abs=0.01), 0.05)
    assert y == pytest.approx(0.0, abs=0.01)
    assert place_point_m(place, "left")[1] < -0.1


def test_nothing_is_put_under_a_place() -> None:
    with pytest.raises(ValueError, match="under"):
        place_point_m(box_of_points((0, 0, 0), (1, 1, 1)), "under")


def test_of_two_equal_turns_the_nearer_is_taken() -> None:
    now = np.diag([1.0, -1.0, -1.0])
    turned = now * [-1, -1, 1]
    assert np.array_equal(nearer_turn(turned, now), now)
    assert np.array_equal(nearer_turn(now, now), now)


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
        assert client.carry_out("open the basket").fault is Fault.NO_SKILL
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
