"""Grasps of objects that are seen from one oblique view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segzero_core.config import GraspConfig
from segzero_core.depth import Grasp, grasp_candidates, measure_object, object_cloud
from segzero_core.errors import ConfigError
from tests.synthetic_depth import Ball, Brick, View, see

CLEARANCE_M = GraspConfig().grasp_clearance_m


def grasps_of(view: View, number: int = 1, **settings: Any) -> tuple[Grasp, ...]:
    config = GraspConfig(**settings)
    found = measure_object(view.mask(number), view.depth_m, view.camera, grasping=config)
    return found.grasps


@pytest.mark.parametrize("elevation_deg", [35.0, 50.0, 70.0])
@pytest.mark.parametrize("yaw", [0.0, 0.5, 1.3])
def test_a_brick_is_taken_across_its_shorter_side(elevation_deg: float, yaw: float) -> None:
    brick = Brick((0.0, 0.0), (0.14, 0.05, 0.06), yaw)
    view = see([brick], elevation_deg=elevation_deg)
    best = grasps_of(view)[0]
    closing, _, approach = (view.rotation @ best.rotation).T
    assert approach == pytest.approx([0, 0, -1], abs=0.02)
    assert abs(closing[:2] @ [-np.sin(yaw), np.cos(yaw)]) > 0.99
    assert best.width_m == pytest.approx(0.05 + 2 * CLEARANCE_M, abs=0.006)
    place = view.to_world(best.position_m)
    assert place[:2] == pytest.approx([0, 0], abs=0.015)
    assert 0.003 < place[2] < 0.04
    assert np.linalg.det(best.rotation) == pytest.approx(1)


def test_a_ball_is_taken_through_its_middle_and_below_it() -> None:
    ball = Ball((0.02, 0.01), 0.03)
    view = see([ball])
    best = grasps_of(view)[0]
    place = view.to_world(best.position_m)
    assert place[:2] == pytest.approx(ball.center_m[:2], abs=0.006)
    assert place[2] < ball.radius_m
    assert best.width_m == pytest.approx(0.06 + 2 * CLEARANCE_M, abs=0.006)


def test_the_scores_fall_and_the_list_is_as_long_as_asked_for() -> None:
    view = see([Brick((0.0, 0.0), (0.14, 0.05, 0.06))])
    scores = [grasp.score for grasp in grasps_of(view, max_grasps=5)]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    assert len(scores) == 5
    assert grasps_of(view, max_grasps=0) == ()


def test_what_does_not_fit_between_the_fingers_has_no_grasp() -> None:
    view = see([Brick((0.0, 0.0), (0.14, 0.1, 0.06), 0.3)])
    assert grasps_of(view) == ()
    wide = grasps_of(view, gripper_opening_m=0.14)
    assert wide
    assert 0.1 < wide[0].width_m <= 0.14


def test_a_large_flat_object_is_not_taken_in_its_middle() -> None:
    assert grasps_of(see([Brick((0.0, 0.0), (0.3, 0.2, 0.02))])) == ()


def test_fingers_keep_clear_of_neighboring_objects() -> None:
    brick = Brick((0.0, 0.0), (0.05, 0.05, 0.05))
    alone = see([brick])
    # Walls along two sides leave no room for fingers across them.
    beside = see([brick, Brick((0.038, 0.0), (0.02, 0.1, 0.05))])
    closing = (beside.rotation @ grasps_of(beside)[0].rotation)[:, 0]
    assert abs(closing[1]) > 0.9
    assert len(grasps_of(beside)) < len(grasps_of(alone))


def test_a_named_gripper_has_its_measures_unless_others_are_given() -> None:
    panda, own = GraspConfig(gripper="panda"), GraspConfig(gripper="panda", finger_width_m=0.03)
    assert (panda.finger_width_m, panda.palm_width_m) == (0.021, 0.204)
    assert (own.finger_width_m, own.palm_width_m) == (0.03, 0.204)
    with pytest.raises(ConfigError, match="'generic', 'panda'"):
        GraspConfig(gripper="claw")


def test_the_palm_keeps_clear_of_a_tall_neighbor_that_the_fingers_miss() -> None:
    low, tower = Brick((0.0, 0.0), (0.06, 0.03, 0.03)), Brick((0.0, 0.08), (0.05, 0.05, 0.12))
    view = see([low, tower], elevation_deg=60.0)
    palm = {"palm_width_m": 0.2, "palm_thickness_m": 0.06}

    def closes_towards_the_tower(**settings: float) -> bool:
        closing = (view.rotation @ grasps_of(view, **settings)[0].rotation)[:, 0]
        return abs(closing[1]) > 0.9

    assert closes_towards_the_tower()
    assert not closes_towards_the_tower(**palm)


def test_a_wall_that_stands_alone_is_taken_like_a_rim() -> None:
    ring = [
        Brick((0.07 * np.cos(a), 0.07 * np.sin(a)), (0.005, 0.03, 0.05), a)
        for a in np.arange(16) * np.pi / 8
    ]
    view = see(ring, elevation_deg=55.0)
    mask = view.ids > 0
    config = GraspConfig()
    found = measure_object(mask, view.depth_m, view.camera, grasping=config)
    best = found.grasps[0]
    place = view.to_world(best.position_m)
    closing = (view.rotation @ best.rotation)[:, 0]
    assert np.hypot(*place[:2]) == pytest.approx(0.07, abs=0.012)
    assert abs(closing[:2] @ place[:2]) / np.hypot(*place[:2]) > 0.9
    assert best.width_m < 0.03


def test_without_a_support_plane_the_gripper_comes_from_the_camera() -> None:
    view = see([Brick((0.0, 0.0), (0.14, 0.05, 0.06))])
    cloud = object_cloud(view.mask(), view.depth_m, view.camera)
    best = grasp_candidates(cloud)[0]
    towards = cloud.points_m.mean(axis=0)
    assert best.rotation[:, 2] @ towards / np.linalg.norm(towards) > 0.99
    down = grasp_candidates(cloud, up=view.up)[0]
    assert view.rotation @ down.rotation[:, 2] == pytest.approx([0, 0, -1], abs=1e-6)


@pytest.mark.parametrize(
    "settings", [{"gripper_opening_m": 0.0}, {"max_grasps": -1}, {"finger_width_m": 9.0}]
)
def test_an_impossible_gripper_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        GraspConfig(**settings)
