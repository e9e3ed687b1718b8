"""The figures of benchmarks/depth.py, on the six scenes of the demo's clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.depth import CONVEX, Shot, main, measure_scene, summary
from segzero_cli.demo.clip import read_clip
from segzero_core.config import GraspConfig
from worlds.common.scene import save_scene

CLIP = Path(__file__).parents[2] / "demo" / "clip.mcap"


@pytest.fixture(scope="module")
def scenes() -> list[Shot]:
    return [(shot.scene, shot.depth_mm, shot.instances) for shot in read_clip(CLIP)]


def test_places_and_sizes_are_true_at_the_median(scenes: list[Shot]) -> None:
    rows = [row for shot in scenes for row in measure_scene(shot, 1, GraspConfig())]
    figures = summary(rows, len(scenes))
    assert figures["not_measured"] == 0
    assert figures["convex"] >= 8
    assert figures["centre_mm"] < 5.0
    assert max(figures["axes_percent"]) < 5.0
    assert set(figures["kinds"]) & set(CONVEX)


def test_grasps_are_no_wider_than_the_gripper_and_above_the_table(scenes: list[Shot]) -> None:
    rows = [row for shot in scenes for row in measure_scene(shot, 1, GraspConfig())]
    wide = [
        row
        for shot in scenes
        for row in measure_scene(shot, 1, GraspConfig(gripper_opening_m=0.3))
    ]
    taken, taken_wide = (sum(row["grasps"] > 0 for row in each) for each in (rows, wide))
    assert taken_wide >= taken > 0


@pytest.mark.filterwarnings("ignore::tqdm.TqdmWarning")
def test_the_figures_are_printed_and_written(
    scenes: list[Shot], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, depth_mm, instances = scenes[0]
    color = np.zeros((*depth_mm.shape, 3), np.uint8)
    save_scene(tmp_path / "data" / "0", scene, color, depth_mm, instances)
    written = tmp_path / "depth.json"
    options = ["--data", str(tmp_path / "data"), "--scenes", "1", "--repeats", "1"]
    assert main([*options, "--json", str(written)]) == 0
    figures = json.loads(written.read_text())
    assert figures["scenes"] == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{figures['convex']} convex objects of 1 scenes, medians: centre ")


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--data", str(tmp_path)])
