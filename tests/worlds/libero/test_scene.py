"""The folder's truth: written and read, beside what every world writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from worlds.common.scene import Query, Scene
from worlds.libero.scene import read_scene, write_scene


def test_scene_and_truth_come_back_as_they_were(dinner, tmp_path: Path) -> None:
    scene, truth = dinner.build()
    scene = replace(scene, queries=(Query("name", "the milk", (8,), candidates=(8,)),))

    write_scene(tmp_path / "scene.json", scene, truth)

    assert read_scene(tmp_path / "scene.json") == (scene, truth)


def test_every_reader_of_scenes_reads_it_too(dinner, tmp_path: Path) -> None:
    scene, truth = dinner.build()
    write_scene(tmp_path / "scene.json", scene, truth)

    assert Scene.from_json((tmp_path / "scene.json").read_text()) == scene


def test_a_scene_of_another_world_is_refused(dinner, tmp_path: Path) -> None:
    scene, _ = dinner.build()
    (tmp_path / "scene.json").write_text(scene.to_json())

    with pytest.raises(ValueError, match="another world"):
        read_scene(tmp_path / "scene.json")


def test_a_truth_of_another_format_is_refused(dinner, tmp_path: Path) -> None:
    path = tmp_path / "scene.json"
    write_scene(path, *dinner.build())
    record = json.loads(path.read_text())
    record["libero"]["format"] = 99
    path.write_text(json.dumps(record))

    with pytest.raises(ValueError, match="truth format 99"):
        read_scene(path)
