"""Kinds outside the vocabulary, and the labels of rendered tables as COCO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from worlds.tabletop import load_scene
from worlds.tabletop.coco import coco_labels, main
from worlds.tabletop.extra_classes import EXTRA_MODELS
from worlds.tabletop.object_classes import MODELS
from worlds.tabletop.render import main as render
from worlds.tabletop.vocabulary import NAMES

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ducks")
    arguments = ["--seed", "700000", "--count", str(COUNT), "--out", str(out)]
    assert render([*arguments, "--extra-kind", "duck"]) == 0
    return out


def test_no_extra_kind_is_in_the_vocabulary() -> None:
    assert not set(EXTRA_MODELS) & {*MODELS, *NAMES}


def test_an_extra_kind_stands_on_some_tables_and_nobody_asks_for_it(folder: Path) -> None:
    scenes = [load_scene(path)[0] for path in sorted(folder.iterdir())]
    shown = [any(item.kind == "duck" for item in scene.objects) for scene in scenes]
    assert 0 < sum(shown) < COUNT
    assert all(scene.queries == () for scene in scenes)


def test_a_folder_without_the_extra_kind_is_not_taken_for_one_with_it(tmp_path: Path) -> None:
    plain = ["--seed", "700000", "--count", "1", "--out", str(tmp_path)]
    assert render(plain) == 0
    before = load_scene(tmp_path / "000000")[0]
    assert render([*plain, "--extra-kind", "duck"]) == 0
    assert load_scene(tmp_path / "000000")[0].queries == ()
    assert render(plain) == 0
    assert load_scene(tmp_path / "000000")[0] == before


def test_the_labels_decode_to_the_instances_of_the_image(folder: Path) -> None:
    labels = coco_labels(folder)
    names = {category["id"]: category["name"] for category in labels["categories"]}
    files = {image["id"]: image["file_name"] for image in labels["images"]}
    found = 0
    for image_id, name in files.items():
        scene, _, _, instances = load_scene((folder / name).parent)
        entries = [entry for entry in labels["annotations"] if entry["image_id"] == image_id]
        for item, entry in zip(scene.objects, entries, strict=True):
            code = entry["segmentation"]
            mask = coco_mask.decode(coco_mask.frPyObjects(code, *code["size"]))
            assert np.array_equal(mask.astype(bool), instances == item.id)
            assert names[entry["category_id"]] == item.kind
            found += 1
    assert found == len(labels["annotations"])


def test_only_the_kinds_that_are_asked_for_are_labelled(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.json"
    assert main(["--scenes", str(folder), "--out", str(out), "--kinds", "duck"]) == 0
    labels = json.loads(out.read_text())
    assert [category["name"] for category in labels["categories"]] == ["duck"]
    assert len(labels["images"]) == COUNT
    assert {entry["category_id"] for entry in labels["annotations"]} == {1}


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        pytest.param("empty", "holds no rendered scenes", id="no scenes"),
        pytest.param("kind", "no scene shows a candle", id="kind that is not there"),
        pytest.param("scene", "000000", id="damaged scene"),
    ],
)
def test_what_cannot_be_labelled_is_reported_in_one_line(
    damage: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if damage != "empty":
        assert render(["--seed", "700000", "--count", "1", "--out", str(data)]) == 0
    if damage == "scene":
        (data / "000000" / "scene.json").write_text("{")
    arguments = ["--scenes", str(data), "--out", str(tmp_path / "labels.json")]
    capsys.readouterr()
    assert main([*arguments, "--kinds", "candle"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert complaint in error[0]
    assert not (tmp_path / "labels.json").exists()
