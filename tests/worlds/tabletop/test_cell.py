"""The gripper's cell: what is lifted is lifted by friction, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.grasp import answer_of, camera_of, questions, singles, true_masks, try_out
from examples.grasp_client import Place, Step, decide, pick
from segzero_core.depth import MAX_BORDER_PX, border_pixels
from worlds.common.scene import Query
from worlds.common.simulator import mujoco
from worlds.tabletop.camera import Camera, sample_camera
from worlds.tabletop.cell import HELD_S, LIFTED_M, Cell, MotionError
from worlds.tabletop.hand import FRICTION, GRASP_SETTINGS, OPENING_M
from worlds.tabletop.render import stage_scene, stage_single
from worlds.tabletop.world import ObjectSpec, World, build_world

DOWN = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
UP_M = np.array([0.0, 0.0, 0.2])


@pytest.fixture(scope="module")
def camera() -> Iterator[Camera]:
    with Camera() as camera:
        yield camera


def world_of(*objects: ObjectSpec, seed: int = 0) -> World:
    world = build_world(np.random.default_rng(seed), objects)
    assert world is not None
    return world


def place_of(cell: Cell, index: int = 0) -> np.ndarray:
    return cell.world.data.xpos[cell.world.bodies[index]].copy()


def lift(cell: Cell, position_m: np.ndarray) -> None:
    cell.move_to(position_m + UP_M, DOWN)
    cell.move_to(position_m, DOWN)
    cell.close()
    cell.move_to(position_m + UP_M, DOWN)


@pytest.mark.parametrize("kind", ["box", "ball"])
def test_an_object_is_lifted_by_the_grasp_of_its_true_mask(camera: Camera, kind: str) -> None:
    world = world_of(ObjectSpec(kind, "red", 1.0))
    pose = sample_camera(np.random.default_rng(1), world.data.xpos[world.bodies[0]])
    cell = Cell(world)
    image = cell.shoot(camera, pose)
    stage = stage_single(camera, 0)  # for the calibration, which all tables share
    found = true_masks(image, Query("name", kind, (1,)))
    decision = decide(answer_of(found, image, camera_of(stage.scene)))
    assert decision.step is Step.GRASP
    place = Place(pose.rotation, pose.position_m)
    assert pick(cell, [place.of(grasp) for grasp in decision.grasps]) is Step.HELD
    lifted = cell.hold()
    assert (lifted.lifted, lifted.disturbed) == ((0,), ())


def test_what_is_lifted_touches_nothing_but_the_hand_and_is_joined_to_nothing() -> None:
    cell = Cell(world_of(ObjectSpec("ball", "red", 1.0)))
    model = cell.world.model
    kinds = {int(kind) for kind in model.eq_type}
    assert kinds == {int(mujoco.mjtEq.mjEQ_JOINT)}  # both fingers by one mechanism
    assert model.geom_friction[:, 0].max() <= 1.0
    assert FRICTION[0] <= 1.0
    assert not model.geom_gap.any()
    assert set(model.body_parentid[list(cell.world.bodies)]) == {0}
    assert model.nmocap == 0


def test_an_object_beside_the_fingers_is_not_lifted() -> None:
    cell = Cell(world_of(ObjectSpec("box", "red", 1.0)))
    beside = place_of(cell) + np.array([0.25, 0.0, 0.0])
    lift(cell, beside)
    assert cell.hold().lifted == ()


def test_an_object_that_is_not_squeezed_stays_on_the_table() -> None:
    cell = Cell(world_of(ObjectSpec("ball", "red", 0.9)))
    where = place_of(cell)
    cell.move_to(where + UP_M, DOWN)
    cell.move_to(where, DOWN)
    cell.open(OPENING_M)
    cell.move_to(where + UP_M, DOWN)
    assert cell.hold().lifted == ()
    assert place_of(cell)[2] == pytest.approx(where[2], abs=0.01)


def test_without_friction_a_box_slips_out_of_the_fingers() -> None:
    cell = Cell(world_of(ObjectSpec("ball", "red", 1.0)))
    cell.world.model.geom_friction[:, :] = 1e-3
    lift(cell, place_of(cell))
    assert cell.hold().lifted == ()


def test_closing_on_nothing_is_reported() -> None:
    cell = Cell(world_of(ObjectSpec("ball", "red", 1.0)))
    cell.move_to(place_of(cell) + UP_M, DOWN)
    assert not cell.close()
    assert cell.opening_m == pytest.approx(0.0, abs=1e-3)


def test_another_object_that_rises_is_reported() -> None:
    cell = Cell(world_of(ObjectSpec("ball", "red", 1.0), ObjectSpec("ball", "blue", 1.0)))
    lift(cell, place_of(cell))
    joint = cell.world.model.body_jntadr[cell.world.bodies[1]]
    start = cell.world.model.jnt_qposadr[joint]
    cell.world.data.qpos[start + 2] += 0.6 * LIFTED_M + 9.81 * HELD_S**2 / 2  # thrown up
    assert cell.hold().disturbed == (1,)


def test_a_way_that_is_blocked_is_reported() -> None:
    cell = Cell(world_of(ObjectSpec("box", "red", 1.0)))
    where = place_of(cell)
    cell.open(0.03)
    cell.move_to(where + UP_M, DOWN)
    assert not cell.move_to(where, DOWN)


def test_a_grasp_from_the_side_is_refused() -> None:
    cell = Cell(world_of(ObjectSpec("box", "red", 1.0)))
    sideways = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    with pytest.raises(MotionError, match="from above"):
        cell.move_to(UP_M, sideways)
    with pytest.raises(MotionError, match=r"0\.300"):
        cell.open(0.3)


def test_the_cell_leaves_its_world_as_it_is(camera: Camera) -> None:
    stage = stage_scene(camera, 1_600_001)
    before = stage.world.data.qpos.copy()
    cell = Cell(stage.world)
    start = np.array([place_of(cell, i) for i in range(len(cell.world.bodies))])
    there = stage.world.data.xpos[list(stage.world.bodies)]
    np.testing.assert_allclose(start, there, atol=0.004)
    lift(cell, start[0])
    np.testing.assert_array_equal(stage.world.data.qpos, before)


def test_the_cells_image_is_that_of_its_scene(camera: Camera) -> None:
    stage = stage_scene(camera, 1_600_001)
    image = Cell(stage.world).shoot(camera, stage.pose)
    assert (image.instances == stage.image.instances).mean() > 0.99
    apart = np.abs(image.color.astype(int) - stage.image.color).mean()
    assert apart < 1.5  # the hand is out of sight, and so is its shadow


def test_the_settings_are_those_of_the_hand() -> None:
    assert GRASP_SETTINGS["gripper_opening_m"] == OPENING_M


def test_a_true_mask_of_the_benchmark_is_lifted_and_none_does_not_move(camera: Camera) -> None:
    stage, query = next(singles(camera, 1_700_001, 1))
    row = try_out(stage, query, camera, true_masks)
    assert (row["cause"], row["step"]) == ("", "HELD")
    nothing = try_out(stage, Query("none", "the elephant", ()), camera, true_masks)
    assert (nothing["cause"], nothing["step"]) == ("", "NOTHING")


def test_the_benchmark_asks_the_kinds_in_turn(camera: Camera) -> None:
    asked = list(questions(camera, 1_600_000, 3))
    assert [query.kind for _, query in asked] == ["name", "attribute", "relation"]
    for stage, query in asked:  # what the border cuts has no pose, and is not asked for
        for each in query.ids:
            assert border_pixels(stage.image.instances == each) <= MAX_BORDER_PX
