"""Sizes and grasps of seven objects that a RealSense camera saw; skipped without the images.

`SEGZERO_REAL_RGBD` names their folder, by default one beside the checkout. Each object has a
folder with `depth.png` (16UC1), `mask.png` and `scene.json` (K). They are from the demo data of
github.com/NVlabs/6dof-graspnet.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from segzero_core.config import GraspConfig
from segzero_core.depth import CameraModel, depth_in_meters, measure_object
from segzero_core.depth.measurement import Measurement

BESIDE = Path(__file__).parents[4] / "shared" / "data" / "real-rgbd"
FOLDER = Path(os.environ.get("SEGZERO_REAL_RGBD") or BESIDE)
OBJECTS = ("blue_mug", "cheezit", "cylinder", "pepper", "sugar", "white_bowl", "white_mug")
SIZES_M = {"cheezit": (0.158, 0.060, 0.210), "sugar": (0.089, 0.038, 0.175)}
"""Longer side, shorter side and height, from the makers."""
PANDA = GraspConfig(
    gripper_opening_m=0.080,
    finger_width_m=0.021,
    finger_thickness_m=0.014,
    finger_length_m=0.040,
)

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no real depth images at {FOLDER}; set SEGZERO_REAL_RGBD"
)


def measured(name: str) -> Measurement:
    k = json.loads((FOLDER / name / "scene.json").read_text())["K"]
    depth = cv2.imread(str(FOLDER / name / "depth.png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(FOLDER / name / "mask.png"), cv2.IMREAD_GRAYSCALE)
    assert depth is not None
    assert mask is not None
    camera = CameraModel(k, (), (depth.shape[1], depth.shape[0]))
    return measure_object(mask > 0, depth_in_meters(depth, "16UC1"), camera, grasping=PANDA)


@pytest.mark.parametrize("name", sorted(SIZES_M))
def test_each_side_of_a_real_box_is_true_within_15_percent(name: str) -> None:
    assert measured(name).box.size_m == pytest.approx(SIZES_M[name], rel=0.15)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_real_object_has_grasps_from_above_that_fit_it(name: str) -> None:
    found = measured(name)
    assert found.support is not None
    assert found.grasps
    seen = found.cloud.points_m @ found.box.rotation
    for grasp in found.grasps:
        place = grasp.position_m @ found.box.rotation
        assert (place > seen.min(axis=0)).all()
        assert (place < seen.max(axis=0)).all()
        assert 0.005 < grasp.width_m <= PANDA.gripper_opening_m
        assert grasp.rotation[:, 2] @ found.support.normal == pytest.approx(-1)
        assert grasp.position_m @ found.support.normal > found.support.offset_m


@pytest.mark.parametrize("name", OBJECTS)
def test_the_box_of_a_real_object_rests_on_its_support_plane(name: str) -> None:
    found = measured(name)
    assert found.support is not None
    heights = found.box.corners_m() @ found.support.normal - found.support.offset_m
    assert heights.min() == pytest.approx(0, abs=1e-6)
    assert np.sort(heights)[3] == pytest.approx(0, abs=1e-6)
