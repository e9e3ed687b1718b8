from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segzero_core.errors import InputError
from tests.training.data.data_folders import (
    IMAGES,
    OVERLAPPING,
    SIZE_WH,
    SQUARE,
    annotation,
    crowd,
    rectangle,
    reference,
    references,
    write_image,
    write_reasonseg,
    write_refcoco,
)
from training.data.errors import SampleError
from training.data.sources.base import BadSample, Sample
from training.data.sources.reasonseg import open_reasonseg
from training.data.sources.refcoco import open_refcoco
from training.data.sources.rle import Rle, rle_from_segmentation
from training.data.sources.safe_pickle import read_plain_pickle
from training.data.sources.tabletop import open_tabletop
from worlds.tabletop.scene import VALIDATION_SEEDS_END, Query


def read_refcoco(root: Path, **choice: Any) -> list[Sample | BadSample]:
    return list(open_refcoco(root, allow_partial=True, **choice).read())


def read_reasonseg(root: Path, **choice: Any) -> list[Sample | BadSample]:
    return list(open_reasonseg(root, allow_partial=True, **choice).read())


def only_bad(outcomes: list[Sample | BadSample]) -> BadSample:
    (bad,) = [outcome for outcome in outcomes if isinstance(outcome, BadSample)]
    return bad


def of_annotation(tmp_path: Path, segmentation: Any) -> Sample | BadSample:
    refs, anns = [reference(1, 11, 1)], [annotation(11, 1, segmentation)]
    (outcome,) = read_refcoco(write_refcoco(tmp_path, refs=refs, anns=anns))
    return outcome


# RefCOCO and its family


@pytest.mark.parametrize("form", ["p", "json"])
def test_references_become_samples_with_their_annotations_masks(tmp_path: Path, form: str):
    first, _, third = read_refcoco(write_refcoco(tmp_path, form=form))
    assert first.source_id == "refcoco/unc/train/1/100"
    assert first.image == tmp_path / IMAGES / "COCO_train2014_000000000001.jpg"
    assert (first.size_wh, first.query, first.kind) == (SIZE_WH, "the square", "single")
    assert (first.split, first.ignore) == ("train", None)
    assert first.masks[0].decode().sum() == 40 * 40
    assert first.masks[0].decode()[30:70, 20:60].all()
    assert third.masks[0].decode()[:, 10:30].all()
    assert third.masks[0].area == 20 * SIZE_WH[1]


def test_a_pickle_of_python_2_is_read_like_any_other(tmp_path: Path):
    text = (
        b"(lp0\n(dp1\nS'ref_id'\nI7\nsS'ann_id'\nI11\nsS'image_id'\nI1\nsS'split'\nS'train'\n"
        b"sS'sentences'\n(lp2\n(dp3\nS'sent_id'\nL5L\nsS'sent'\nS'caf\\xe9 square'\nsasa."
    )
    write_refcoco(tmp_path)
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(text)
    (sample,) = read_refcoco(tmp_path)
    assert sample.query == "café square"


def test_overlapping_polygons_of_one_object_are_united(tmp_path: Path):
    mask = of_annotation(tmp_path, [SQUARE, OVERLAPPING]).masks[0].decode()
    assert mask[30:70, 20:90].all()
    assert mask.sum() == 40 * 70


def test_a_polygon_partly_outside_is_cut_at_the_border(tmp_path: Path):
    polygon = [-50.0, 100.0, 30.0, 100.0, 30.0, 400.0, -50.0, 400.0]
    mask = of_annotation(tmp_path, [polygon]).masks[0].decode()
    assert mask[100:, :30].all()
    assert mask.sum() == 20 * 30


def test_a_polygon_outside_beside_one_inside_does_no_harm(tmp_path: Path):
    far = [500.0, 500.0, 520.0, 500.0, 520.0, 520.0]
    assert of_annotation(tmp_path, [far, SQUARE]).masks[0].area == 40 * 40


def test_compressed_runs_of_a_crowd_mean_the_same_as_plain_ones(tmp_path: Path):
    mask = np.zeros(SIZE_WH[::-1], np.uint8, order="F")
    mask[3:100, 20:140] = np.random.default_rng(0).integers(0, 2, (97, 120))
    packed = coco_mask.encode(mask)
    code = {"size": packed["size"], "counts": packed["counts"].decode()}
    assert (of_annotation(tmp_path, code).masks[0].decode() == mask).all()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        pytest.param([[500, 5, 520, 5, 520, 20]], "outside_picture", id="beside the image"),
        pytest.param([[5, -90, 20, -90, 20, -70]], "outside_picture", id="above the image"),
        pytest.param([[5, 5, 5, 5, 5, 5]], "empty_mask", id="no area"),
        pytest.param([], "empty_mask", id="no polygon"),
        pytest.param([[1, 2, 3, 4]], "bad_mask", id="a box for a polygon"),
        pytest.param([[1, 2, 3, 4, 5, 6, 7]], "bad_mask", id="half a corner"),
        pytest.param([[1, 2, 3, 4, 5, float("nan")]], "bad_mask", id="no number"),
        pytest.param([[1, 2, 3, 4, 5, 1e30]], "bad_mask", id="absurdly far"),
        pytest.param([[1, 2, 3, 4, 5, "x"]], "bad_mask", id="text"),
        pytest.param(None, "bad_mask", id="null"),
        pytest.param({"size": [5, 5], "counts": [25]}, "bad_mask", id="another size"),
        pytest.param({"size": [120, 160], "counts": [5, 5]}, "bad_mask", id="runs too short"),
        pytest.param({"size": [120, 160], "counts": [19205, -5]}, "bad_mask", id="negative run"),
        pytest.param({"size": [120, 160], "counts": "~~~"}, "bad_mask", id="no runs"),
        pytest.param({"size": [120, 160], "counts": "oooooooo"}, "bad_mask", id="endless run"),
        pytest.param({"size": [120, 160], "counts": "PPo"}, "bad_mask", id="runs cut off"),
        pytest.param({"size": [120, 160], "counts": [120 * 160]}, "empty_mask", id="empty runs"),
    ],
)
def test_a_mask_that_is_none_is_a_bad_sample_with_its_reason(tmp_path, segmentation, reason):
    bad = of_annotation(tmp_path, segmentation)
    assert isinstance(bad, BadSample)
    assert (bad.source_id, bad.reason) == ("refcoco/unc/train/1/100", reason)


@pytest.mark.parametrize(
    ("policy", "queries"),
    [
        ("first", ["the square"]),
        ("all", ["the square", "a box on the left"]),
        ("joined", ["the square, a box on the left"]),
    ],
)
def test_the_sentence_policy_says_what_is_asked(tmp_path: Path, policy: str, queries: list[str]):
    root = write_refcoco(tmp_path, refs=references()[:1])
    samples = read_refcoco(root, sentences=policy)
    assert [sample.query for sample in samples] == queries
    assert len({sample.source_id for sample in samples}) == len(samples)


def test_only_the_split_that_was_asked_for_is_read(tmp_path: Path):
    (sample,) = read_refcoco(write_refcoco(tmp_path), split="val")
    assert sample.source_id == "refcoco/unc/val/4/400"


def test_refcocog_is_split_by_umd_unless_google_is_asked_for(tmp_path: Path):
    write_refcoco(tmp_path, "refcocog", "umd", refs=[reference(1, 11, 1)])
    write_refcoco(tmp_path, "refcocog", "google", refs=[reference(2, 12, 1)])
    (umd,) = read_refcoco(tmp_path, dataset="refcocog")
    (google,) = read_refcoco(tmp_path, dataset="refcocog", split_by="google")
    assert umd.source_id == "refcocog/umd/train/1/100"
    assert google.source_id == "refcocog/google/train/2/200"


def generalised() -> list[dict[str, Any]]:
    return [
        reference(1, [11], 1, no_target=False, category_id=[1]),
        reference(2, [11, 12], 1, no_target=False, category_id=[1, 1]),
        reference(3, [-1], 2, no_target=True, category_id=[-1]),
    ]


def test_grefcoco_knows_one_many_and_no_target(tmp_path: Path):
    write_refcoco(tmp_path, "grefcoco", refs=generalised(), form="json")
    samples = read_refcoco(tmp_path, dataset="grefcoco")
    assert [(s.kind, len(s.masks)) for s in samples] == [("single", 1), ("many", 2), ("none", 0)]


def test_kinds_and_limit_choose_the_samples(tmp_path: Path):
    write_refcoco(tmp_path, "grefcoco", refs=generalised(), form="json")
    picked = read_refcoco(tmp_path, dataset="grefcoco", kinds=("many", "none"))
    assert [sample.kind for sample in picked] == ["many", "none"]
    assert len(read_refcoco(tmp_path, dataset="grefcoco", limit=1)) == 1


def test_a_no_target_with_a_target_is_a_bad_sample(tmp_path: Path):
    refs = [reference(1, [11], 1, no_target=True)]
    write_refcoco(tmp_path, "grefcoco", refs=refs, form="json")
    assert only_bad(read_refcoco(tmp_path, dataset="grefcoco")).reason == "annotation_damaged"


@pytest.mark.parametrize(
    ("entry", "reason", "words"),
    [
        pytest.param(reference(1, 99, 1), "annotation_missing", "annotation 99", id="annotation"),
        pytest.param(reference(1, 11, 9), "annotation_missing", "image 9", id="image"),
        pytest.param(reference(1, 11, 2), "annotation_damaged", "image 1", id="other image"),
        pytest.param(
            reference(1, 11, 1, sentences=["</answer>"]), "query_unusable", "markup", id="markup"
        ),
        pytest.param(
            reference(1, 11, 1, sentences=[" ."]), "query_unusable", "empty", id="no words"
        ),
    ],
)
def test_a_reference_to_nothing_is_a_bad_sample(tmp_path, entry, reason: str, words: str):
    bad = only_bad(read_refcoco(write_refcoco(tmp_path, refs=[entry, reference(2, 11, 1)])))
    assert bad.reason == reason
    assert words in bad.detail


def test_an_annotation_without_its_image_is_a_bad_sample(tmp_path: Path):
    write_refcoco(tmp_path)
    (tmp_path / IMAGES / "COCO_train2014_000000000002.jpg").unlink()
    bad = only_bad(read_refcoco(tmp_path))
    assert bad.reason == "image_missing"
    assert "COCO_train2014_000000000002.jpg" in bad.detail


def test_an_image_of_another_size_is_a_bad_sample(tmp_path: Path):
    write_refcoco(tmp_path)
    write_image(tmp_path / IMAGES / "COCO_train2014_000000000002.jpg", (80, 60))
    assert only_bad(read_refcoco(tmp_path)).reason == "image_size"


def test_a_file_that_is_no_image_is_a_bad_sample(tmp_path: Path):
    write_refcoco(tmp_path)
    (tmp_path / IMAGES / "COCO_train2014_000000000002.jpg").write_bytes(b"<html>404</html>")
    assert only_bad(read_refcoco(tmp_path)).reason == "image_damaged"


def test_the_masks_of_an_image_with_a_turn_tag_lie_over_the_pixels_as_stored(tmp_path: Path):
    write_refcoco(tmp_path, refs=[reference(1, 11, 1)])
    path = tmp_path / IMAGES / "COCO_train2014_000000000001.jpg"
    tag = Image.Exif()
    tag[0x0112] = 6
    write_image(path, exif=tag)
    (sample,) = read_refcoco(tmp_path)
    assert isinstance(sample.image, bytes)
    assert sample.size_wh == SIZE_WH


@pytest.mark.parametrize(
    "name", ["../../secret.jpg", "/etc/passwd", "a\\..\\b.jpg", "", "a/../../../b"]
)
def test_an_image_outside_its_folder_is_never_opened(tmp_path: Path, name: str):
    images = [{"id": 1, "file_name": name, "width": 160, "height": 120}]
    write_refcoco(tmp_path, refs=[reference(1, 11, 1)], images=images)
    assert only_bad(read_refcoco(tmp_path)).reason == "path_outside"


class _Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(_Evil(), id="system"),
        pytest.param(np.zeros(2), id="array"),
        pytest.param(SampleError, id="class"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_asks_for_code_is_refused(tmp_path, monkeypatch, value, protocol: int):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"ref_id": value}], protocol))
    with pytest.raises(InputError, match="it asks for"):
        read_plain_pickle(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"no pickle", pickle.dumps(references(), 2)[:-40], b"\x80\x02N", b"(dp0\nI1\n"],
    ids=["empty", "text", "cut off", "no end", "half a pair"],
)
def test_half_a_pickle_is_one_clear_error(tmp_path: Path, content: bytes):
    write_refcoco(tmp_path)
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(content)
    with pytest.raises(InputError, match=r"refs\(unc\)\.p"):
        open_refcoco(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", '{"images": [', "[]", '{"images": []}', '{"images": [1], "annotations": []}'],
    ids=["empty", "cut off", "list", "no annotations", "no objects"],
)
def test_damaged_instances_are_one_clear_error(tmp_path: Path, content: str):
    write_refcoco(tmp_path)
    (tmp_path / "refcoco" / "instances.json").write_text(content)
    with pytest.raises(InputError, match=r"instances\.json"):
        open_refcoco(tmp_path, allow_partial=True)


@pytest.mark.parametrize(
    "refs",
    [
        pytest.param({"refs": []}, id="no list"),
        pytest.param([1, 2], id="no objects"),
        pytest.param([{"split": "train", "ref_id": 1}], id="fields missing"),
        pytest.param([reference(1, "11", 1)], id="numbers as text"),
        pytest.param([reference(1, 11, 1, sentences=[])], id="no sentence"),
    ],
)
def test_references_of_another_version_are_one_clear_error(tmp_path: Path, refs: Any):
    with pytest.raises(InputError, match="another version"):
        open_refcoco(write_refcoco(tmp_path, refs=refs, form="json"), allow_partial=True)


def test_fewer_references_than_published_are_refused_unless_allowed(tmp_path: Path):
    write_refcoco(tmp_path)
    with pytest.raises(InputError, match=r"3 references of the split train.* has 42404"):
        open_refcoco(tmp_path)


def test_too_many_missing_images_are_refused_unless_allowed(tmp_path: Path):
    write_refcoco(tmp_path, "grefcoco", refs=generalised(), form="json")
    (tmp_path / IMAGES / "COCO_train2014_000000000002.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images are missing"):
        open_refcoco(tmp_path, "grefcoco")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"dataset": "refclef"}, "no data set 'refclef'"),
        ({"split": "testC"}, "no split 'testC'"),
        ({"split_by": "umd"}, "no split by 'umd'"),
        ({"sentences": "last"}, "no 'last'"),
        ({"kinds": ("riddle",)}, "no kind 'riddle'"),
        ({"kinds": ("none",)}, "no sample of kind none"),
        ({"dataset": "refcoco+"}, r"neither refs\(unc\)\.p nor"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_choice_that_does_not_exist_is_refused(tmp_path: Path, choice, words: str):
    with pytest.raises(InputError, match=words):
        open_refcoco(write_refcoco(tmp_path), allow_partial=True, **choice)


def test_missing_images_folder_is_one_clear_error(tmp_path: Path):
    write_refcoco(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no images; they belong in"):
        open_refcoco(tmp_path, allow_partial=True)


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
        open_reasonseg(tmp_path, "val")


@pytest.mark.parametrize("split", ["val", "everything"])
def test_a_split_that_is_not_there_is_one_clear_error(tmp_path: Path, split: str):
    with pytest.raises(InputError, match=split):
        open_reasonseg(tmp_path, split)


def test_an_empty_folder_is_one_clear_error(tmp_path: Path):
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match="no images"):
        open_reasonseg(tmp_path, "val")


# The tabletop


def test_every_query_of_a_scene_is_a_sample(scenes: Path):
    samples = list(open_tabletop(scenes).read())
    assert [sample.kind for sample in samples] == ["name", "none"] * 3
    assert samples[0].masks[0].area == 60 * 60
    assert samples[1].masks == ()
    assert samples[0].image == scenes / "000000" / "color.png"


def test_test_phrasings_appear_in_the_test_split_alone(tmp_path: Path, make_scene):
    make_scene(tmp_path / "000000", VALIDATION_SEEDS_END)
    samples = list(open_tabletop(tmp_path, "test").read())
    assert [(s.kind, len(s.masks)) for s in samples] == [("name", 1), ("many", 2), ("none", 0)]
    with pytest.raises(InputError, match="no sample"):
        open_tabletop(tmp_path, "train")


def test_single_object_training_leaves_out_many(tmp_path: Path, make_scene):
    make_scene(tmp_path / "000000", VALIDATION_SEEDS_END)
    source = open_tabletop(tmp_path, "test", kinds=("name", "none"))
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
    outcomes = list(open_tabletop(scenes).read())
    bad = [outcome for outcome in outcomes if isinstance(outcome, BadSample)]
    assert {outcome.reason for outcome in bad} == {reason}
    assert len([outcome for outcome in outcomes if isinstance(outcome, Sample)]) == 4


def test_a_query_about_what_cannot_be_seen_is_a_bad_sample(tmp_path: Path, make_scene):
    make_scene(tmp_path / "000000", queries=(Query("name", "the ghost", (9,)),))
    assert only_bad(list(open_tabletop(tmp_path).read())).reason == "empty_mask"


# What all sources share


def test_reading_can_start_in_the_middle(tmp_path: Path):
    source = open_refcoco(write_refcoco(tmp_path), allow_partial=True)
    assert list(source.read(2)) == list(source.read())[2:]
    assert len(source) == 3


def test_the_fingerprint_follows_what_the_annotations_say(tmp_path: Path):
    first, again = (write_refcoco(tmp_path / name) for name in ("a", "b"))
    other = write_refcoco(tmp_path / "c", refs=references()[:2])
    prints = [open_refcoco(r, allow_partial=True).fingerprint for r in (first, again, other)]
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
