"""ReasonSeg, the tabletop, and what all sources share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segzero_core.errors import InputError
from tests.training.data.data_folders import (
    SIZE_WH,
    crowd,
    only_bad,
    open_data,
    read_data,
    rectangle,
    references,
    write_reasonseg,
    write_refcoco,
)
from training.data.sources.base import BadSample, Sample
from training.data.sources.rle import Rle, rle_from_segmentation
from worlds.common.scene import VALIDATION_SEEDS_END, Query


def read_reasonseg(root: Path, **choice: Any) -> list[Sample | BadSample]:
    return read_data("reasonseg", root, **choice)


# ReasonSeg


def test_targets_are_united_and_ignored_places_kept_apart(tmp_path: Path):
    shapes = [
        rectangle("target", 10, 20, 49, 59),
        rectangle("target", 40, 20, 59, 59),
        rectangle("ignore", 100, 0, 109, 9),
        rectangle("flag", 0, 0, 159, 119),
    ]
    write_reasonseg(tmp_path / "val", shapes=shapes)
    (sample,) = read_reasonseg(tmp_path, split="val")
    (mask,) = sample.masks
    assert mask.decode()[20:60, 10:60].all()
    assert mask.area == 40 * 50
    assert sample.ignore.decode()[0:10, 100:110].all()
    assert sample.ignore.area == 100
    assert (sample.source_id, sample.kind) == ("reasonseg/val/0001/0", "long")


def test_a_smaller_polygon_lies_on_top_of_a_larger_one(tmp_path: Path):
    hole = rectangle("ignore", 20, 30, 29, 39)
    big = rectangle("target", 10, 20, 49, 59)
    for stem, shapes in (("0001", [hole, big]), ("0002", [big, hole])):
        write_reasonseg(tmp_path / "val", stem, shapes)
    for sample in read_reasonseg(tmp_path, split="val"):
        assert sample.masks[0].area == 40 * 40 - 100
        assert sample.ignore.area == 100


def test_reasonseg_is_found_as_lisa_lays_it_out(tmp_path: Path):
    write_reasonseg(tmp_path / "reason_seg" / "ReasonSeg" / "val", is_sentence=False)
    (sample,) = read_reasonseg(tmp_path, split="val")
    assert sample.kind == "short"
    assert sample.ignore is None


def test_several_instructions_follow_the_sentence_policy(tmp_path: Path):
    write_reasonseg(tmp_path / "train", text=("a seat", "a chair"))
    assert [s.query for s in read_reasonseg(tmp_path, sentences="all")] == ["a seat", "a chair"]
    assert [s.query for s in read_reasonseg(tmp_path)] == ["a seat"]


def test_an_annotation_in_a_windows_code_page_is_read(tmp_path: Path):
    write_reasonseg(tmp_path / "train", text=("the café’s sign",), encoding="cp1252")
    assert read_reasonseg(tmp_path)[0].query == "the café’s sign"


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        pytest.param([rectangle("ignore", 1, 1, 9, 9)], "empty_mask", id="only ignored"),
        pytest.param(
            [rectangle("target", 900, 1, 950, 9)], "outside_picture", id="outside the image"
        ),
        pytest.param(
            [rectangle("target", 5, 5, 9, 9), rectangle("ignore", 5, 5, 9, 9)],
            "empty_mask",
            id="hidden under an ignored place",
        ),
        pytest.param([{"label": "target", "points": []}], "bad_mask", id="no corners"),
        pytest.param([{"label": "target", "points": 7}], "bad_mask", id="no list"),
        pytest.param([{"points": []}], "annotation_damaged", id="no label"),
    ],
)
def test_an_annotation_without_a_target_is_a_bad_sample(tmp_path: Path, shapes, reason: str):
    write_reasonseg(tmp_path / "train", shapes=shapes)
    assert only_bad(read_reasonseg(tmp_path)).reason == reason


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"text": [], "is_sentence": true, "shapes": []}', b"\xff\x81"],
    ids=["empty", "cut off", "list", "no keys", "no text", "binary"],
)
def test_a_damaged_annotation_is_a_bad_sample(tmp_path: Path, content: bytes):
    write_reasonseg(tmp_path / "train")
    (tmp_path / "train" / "0001.json").write_bytes(content)
    assert only_bad(read_reasonseg(tmp_path)).reason == "annotation_damaged"


@pytest.mark.parametrize(
    ("missing", "reason"), [("jpg", "image_missing"), ("json", "annotation_missing")]
)
def test_half_of_a_pair_is_a_bad_sample(tmp_path: Path, missing: str, reason: str):
    for stem in ("0001", "0002"):
        write_reasonseg(tmp_path / "train", stem)
    (tmp_path / "train" / f"0002.{missing}").unlink()
    outcomes = read_reasonseg(tmp_path)
    assert len(outcomes) == 2
    assert only_bad(outcomes).reason == reason


def test_another_number_of_images_than_published_is_refused(tmp_path: Path):
    write_reasonseg(tmp_path / "val")
    with pytest.raises(InputError, match=r"1 images, the published version has 200"):
        open_data("reasonseg", tmp_path, split="val")


@pytest.mark.parametrize("split", ["val", "everything"])
def test_a_split_that_is_not_there_is_one_clear_error(tmp_path: Path, split: str):
    with pytest.raises(InputError, match=split):
        open_data("reasonseg", tmp_path, split=split)


def test_an_empty_folder_is_one_clear_error(tmp_path: Path):
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match="no images"):
        open_data("reasonseg", tmp_path, split="val")


# The tabletop


def test_every_query_of_a_scene_is_a_sample(scenes: Path):
    samples = list(open_data("tabletop", scenes).read())
    assert [sample.kind for sample in samples] == ["name", "none"] * 3
    assert samples[0].masks[0].area == 60 * 60
    assert samples[1].masks == ()
    assert samples[0].image == scenes / "000000" / "color.png"


def test_test_phrasings_appear_in_the_test_split_alone(tmp_path: Path, make_scene):
    make_scene(tmp_path / "000000", VALIDATION_SEEDS_END)
    samples = list(open_data("tabletop", tmp_path, split="test").read())
    assert [(s.kind, len(s.masks)) for s in samples] == [("name", 1), ("many", 2), ("none", 0)]
    with pytest.raises(InputError, match="no sample"):
        open_data("tabletop", tmp_path, split="train")


def test_single_object_training_leaves_out_many(tmp_path: Path, make_scene):
    make_scene(tmp_path / "000000", VALIDATION_SEEDS_END)
    source = open_data("tabletop", tmp_path, split="test", kinds=("name", "none"))
    assert [sample.kind for sample in source.read()] == ["name", "none"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("scene.json", b"{", "annotation_damaged"),
        ("instances.png", b"no image", "image_damaged"),
        ("instances.png", None, "image_missing"),
        ("color.png", None, "image_missing"),
    ],
    ids=["scene", "instances damaged", "instances missing", "color missing"],
)
def test_a_damaged_scene_is_counted_and_the_others_are_read(scenes, name, content, reason):
    path = scenes / "000001" / name
    path.unlink() if content is None else path.write_bytes(content)
    outcomes = list(open_data("tabletop", scenes).read())
    bad = [outcome for outcome in outcomes if isinstance(outcome, BadSample)]
    assert {outcome.reason for outcome in bad} == {reason}
    assert len([outcome for outcome in outcomes if isinstance(outcome, Sample)]) == 4


def test_a_query_about_what_cannot_be_seen_is_a_bad_sample(tmp_path: Path, make_scene):
    make_scene(tmp_path / "000000", queries=(Query("name", "the ghost", (9,)),))
    assert only_bad(list(open_data("tabletop", tmp_path).read())).reason == "empty_mask"


# What all sources share


def test_reading_can_start_in_the_middle(tmp_path: Path):
    source = open_data("refcoco", write_refcoco(tmp_path), allow_partial=True)
    assert list(source.read(2)) == list(source.read())[2:]
    assert len(source) == 3


def test_the_fingerprint_follows_what_the_annotations_say(tmp_path: Path):
    first, again = (write_refcoco(tmp_path / name) for name in ("a", "b"))
    other = write_refcoco(tmp_path / "c", refs=references()[:2])
    prints = [
        open_data("refcoco", r, allow_partial=True).fingerprint for r in (first, again, other)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_a_mask_survives_the_run_length_code():
    mask = np.random.default_rng(1).random((37, 53)) < 0.4
    rle = Rle.from_mask(mask)
    assert (rle.decode() == mask).all()
    assert rle.area == mask.sum()
    assert json.loads(json.dumps(rle.to_coco())) == rle.to_coco()


def test_runs_are_the_same_mask_again():
    rle = rle_from_segmentation(crowd(), SIZE_WH)
    assert rle_from_segmentation(rle.to_coco(), SIZE_WH) == rle
