"""The benchmark of whole tasks: who is asked, and how episodes are counted."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.libero import Episode, ModelEyes, read_log, summary
from examples.pick_and_place.interfaces import Image
from segzero_cli.demo.clip import read_clip
from segzero_core import SegZero
from segzero_core.depth import CameraModel, depth_in_meters
from segzero_core.geometry import mask_iou

CLIP = Path(__file__).parents[2] / "demo" / "libero.mcap"
DONE = Episode("libero_spatial", 0, 0, succeeded=True, cause="", about="", steps=200, seconds=3.0)


@pytest.fixture(scope="module")
def model() -> SegZero:
    return SegZero.load("libero", device="cpu")


@pytest.mark.parametrize("kind", ["target", "none"])
def test_a_models_masks_are_those_of_what_is_asked_for(model: SegZero, kind: str) -> None:
    shot = next(shot for shot in read_clip(CLIP) if shot.question.kind == kind)
    k = shot.scene.intrinsics
    matrix = np.array([[k["fx"], 0, k["cx"]], [0, k["fy"], k["cy"]], [0, 0, 1]])
    camera = CameraModel(matrix, (0.0,) * 5, shot.scene.image_size_wh)
    depth_m = depth_in_meters(shot.depth_mm, "16UC1")
    image = Image(shot.color, depth_m, camera, np.eye(3), np.zeros(3))
    sight = ModelEyes(model).find(shot.question.text, image)
    assert not sight.error
    assert sight.thinking
    assert len(sight.masks) == len(shot.question.ids)
    if kind == "target":
        assert mask_iou(sight.masks[0], shot.truth()) >= 0.5


def test_a_line_that_a_kill_cut_off_is_no_episode(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    line = json.dumps(asdict(DONE))
    log.write_text(f"{line}\n{line[:40]}")
    assert read_log(log) == [DONE]
    assert read_log(tmp_path / "none.jsonl") == []


def test_failures_are_counted_by_cause_and_long_episodes_apart() -> None:
    late = replace(DONE, state=1, steps=400)
    failed = replace(DONE, task=1, succeeded=False, cause="no grasp")
    figures = summary([DONE, late, failed, replace(failed, state=1)], "libero_spatial_swap")
    assert (figures["succeeded"], figures["share"]) == (2, 0.5)
    assert figures["within_policy_horizon"] == 0.25
    assert figures["tasks"] == {"0": 1.0, "1": 0.0}
    assert figures["causes"] == {"no grasp": 2}
    low, high = figures["interval"]
    assert 0 < low < 0.5 < high < 1
