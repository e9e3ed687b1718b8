"""Rendered folders: the same for the same seed, and true to what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from worlds.tabletop import Scene, load_scene
from worlds.tabletop.object_classes import TEST_ONLY_PAIRS
from worlds.tabletop.render import MIN_VISIBLE_FRACTION, main

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    assert main(["--seed", "1000000", "--count", str(COUNT), "--out", str(out)]) == 0
    return out


def test_each_scene_has_its_four_files(folder: Path) -> None:
    names = sorted(p.name for p in folder.iterdir())
    assert names == [f"{i:06d}" for i in range(COUNT)]
    for name in names:
        files = sorted(p.name for p in (folder / name).iterdir())
        assert files == ["color.png", "depth.png", "instances.png", "scene.json"]


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert main(["--seed", "1000002", "--count", "1", "--out", str(tmp_path)]) == 0
    for name in ("color.png", "depth.png", "instances.png", "scene.json"):
        again = (tmp_path / "000000" / name).read_bytes()
        assert again == (folder / "000002" / name).read_bytes(), name


def test_boxes_and_areas_are_those_of_the_instances_image(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        scene, color, depth, instances = load_scene(path)
        assert color.shape == (480, 640, 3)
        assert depth.shape == instances.shape == (480, 640)
        assert set(np.unique(instances)) - {0} == {o.id for o in scene.objects}
        for item in scene.objects:
            rows, columns = np.nonzero(instances == item.id)
            assert len(rows) == item.area_px
            x0, y0, x1, y1 = item.box_xyxy
            assert (columns.min(), rows.min()) == (x0, y0)
            assert (columns.max() + 1, rows.max() + 1) == (x1, y1)
            assert MIN_VISIBLE_FRACTION <= item.visible_fraction <= 1


def test_depth_and_pose_agree_with_the_objects_place(folder: Path) -> None:
    """The middle of an object, brought into the image, lies near its box at about its depth."""
    for path in sorted(folder.iterdir()):
        scene, _, depth, instances = load_scene(path)
        x, y, z, w = scene.camera_quaternion_xyzw
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        for item in scene.objects:
            offset = np.array(item.position_m) - np.array(scene.camera_position_m)
            right, down, forward = rotation.T @ offset
            u = scene.intrinsics["fx"] * right / forward + scene.intrinsics["cx"]
            v = scene.intrinsics["fy"] * down / forward + scene.intrinsics["cy"]
            x0, y0, x1, y1 = item.box_xyxy
            slack = 0.5 * max(x1 - x0, y1 - y0) + 10
            assert x0 - slack <= u <= x1 + slack
            assert y0 - slack <= v <= y1 + slack
            seen_m = np.median(depth[instances == item.id]) / 1000
            assert abs(seen_m - forward) < 0.15


def test_scenes_hold_four_to_eight_objects_and_a_question_of_most_kinds(folder: Path) -> None:
    kinds = set()
    for path in sorted(folder.iterdir()):
        scene = Scene.from_json((path / "scene.json").read_text())
        assert 4 <= len(scene.objects) <= 8
        kinds |= {q.kind for q in scene.queries}
        for query in scene.queries:
            assert set(query.ids) <= {o.id for o in scene.objects}
    assert kinds == {"name", "attribute", "relation", "function", "many", "none"}


def test_training_scenes_never_show_a_test_only_pair(tmp_path: Path) -> None:
    assert main(["--seed", "0", "--count", "4", "--out", str(tmp_path)]) == 0
    for path in tmp_path.iterdir():
        scene = Scene.from_json((path / "scene.json").read_text())
        assert not {(o.kind, o.color) for o in scene.objects} & TEST_ONLY_PAIRS
        assert {q.split for q in scene.queries} == {"train"}


def test_a_started_folder_is_gone_on_with(folder: Path, tmp_path: Path) -> None:
    assert main(["--seed", "1000000", "--count", "1", "--out", str(tmp_path)]) == 0
    marker = tmp_path / "000000" / "color.png"
    marker.write_bytes(b"kept")
    assert main(["--seed", "1000000", "--count", "2", "--out", str(tmp_path)]) == 0
    assert marker.read_bytes() == b"kept"
    assert (tmp_path / "000001" / "scene.json").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 99}', '{"format": 1}'], ids=lambda t: t or "empty"
)
def test_a_damaged_scene_file_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"scene|Expecting"):
        Scene.from_json(text)


def test_bad_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--seed", "-1", "--count", "1", "--out", str(tmp_path)])
    assert caught.value.code == 2
    assert "--seed" in capsys.readouterr().err


def test_an_unwritable_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert main(["--seed", "0", "--count", "1", "--out", str(blocked)]) == 2
    assert "worlds.tabletop.render: error" in capsys.readouterr().err


def test_scene_json_says_its_split(folder: Path) -> None:
    record = json.loads((folder / "000000" / "scene.json").read_text())
    assert record["split"] == "test"


def test_torchvision_can_be_loaded_after_the_renderer() -> None:
    """Two copies of LLVM in one process; without care the second one crashes it."""
    code = "import worlds.tabletop.camera, torch, torchvision; print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.stdout == "alive\n", done.stderr[-500:]
