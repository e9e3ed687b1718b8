"""RefCOCO and its family: what becomes a sample, and what is refused with which reason."""

from __future__ import annotations

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
    only_bad,
    open_data,
    read_data,
    reference,
    references,
    write_image,
    write_refcoco,
)
from training.data.errors import SampleError
from training.data.sources.base import BadSample, Sample
from training.data.sources.safe_pickle import read_plain_pickle


def read_refcoco(root: Path, **choice: Any) -> list[Sample | BadSample]:
    return read_data("refcoco", root, **choice)


def of_annotation(tmp_path: Path, segmentation: Any) -> Sample | BadSample:
    refs, anns = [reference(1, 11, 1)], [annotation(11, 1, segmentation)]
    (outcome,) = read_refcoco(write_refcoco(tmp_path, refs=refs, anns=anns))
    return outcome


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
    (umd,) = read_refcoco(tmp_path, source="refcocog")
    (google,) = read_refcoco(tmp_path, source="refcocog", split_by="google")
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
    samples = read_refcoco(tmp_path, source="grefcoco")
    assert [(s.kind, len(s.masks)) for s in samples] == [("single", 1), ("many", 2), ("none", 0)]


def test_kinds_and_limit_choose_the_samples(tmp_path: Path):
    write_refcoco(tmp_path, "grefcoco", refs=generalised(), form="json")
    picked = read_refcoco(tmp_path, source="grefcoco", kinds=("many", "none"))
    assert [sample.kind for sample in picked] == ["many", "none"]
    assert len(read_refcoco(tmp_path, source="grefcoco", limit=1)) == 1


def test_a_no_target_with_a_target_is_a_bad_sample(tmp_path: Path):
    refs = [reference(1, [11], 1, no_target=True)]
    write_refcoco(tmp_path, "grefcoco", refs=refs, form="json")
    assert only_bad(read_refcoco(tmp_path, source="grefcoco")).reason == "annotation_damaged"


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
        open_data("refcoco", tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", '{"images": [', "[]", '{"images": []}', '{"images": [1], "annotations": []}'],
    ids=["empty", "cut off", "list", "no annotations", "no objects"],
)
def test_damaged_instances_are_one_clear_error(tmp_path: Path, content: str):
    write_refcoco(tmp_path)
    (tmp_path / "refcoco" / "instances.json").write_text(content)
    with pytest.raises(InputError, match=r"instances\.json"):
        open_data("refcoco", tmp_path, allow_partial=True)


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
        open_data("refcoco", write_refcoco(tmp_path, refs=refs, form="json"), allow_partial=True)


def test_fewer_references_than_published_are_refused_unless_allowed(tmp_path: Path):
    write_refcoco(tmp_path)
    with pytest.raises(InputError, match=r"3 references of the split train.* has 42404"):
        open_data("refcoco", tmp_path)


def test_too_many_missing_images_are_refused_unless_allowed(tmp_path: Path):
    write_refcoco(tmp_path, "grefcoco", refs=generalised(), form="json")
    (tmp_path / IMAGES / "COCO_train2014_000000000002.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images are missing"):
        open_data("refcoco", tmp_path, source="grefcoco")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"source": "refclef"}, "no data set 'refclef'"),
        ({"split": "testC"}, "no split 'testC'"),
        ({"split_by": "umd"}, "no split by 'umd'"),
        ({"sentences": "last"}, "no 'last'"),
        ({"kinds": ("riddle",)}, "no kind 'riddle'"),
        ({"kinds": ("none",)}, "no sample of kind none"),
        ({"source": "refcoco+"}, r"neither refs\(unc\)\.p nor"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_choice_that_does_not_exist_is_refused(tmp_path: Path, choice, words: str):
    with pytest.raises(InputError, match=words):
        open_data("refcoco", write_refcoco(tmp_path), allow_partial=True, **choice)


def test_missing_images_folder_is_one_clear_error(tmp_path: Path):
    write_refcoco(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no images; they belong in"):
        open_data("refcoco", tmp_path, allow_partial=True)
