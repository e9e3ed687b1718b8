"""The rows of training data: boxes, points, images, and SAM's agreement with the masks."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from segzero_core.checkpoints.registry import bundled_folder
from segzero_core.errors import SegmentationError
from segzero_core.segmenter.sam2 import LoadedSegmenter
from segzero_core.testing.fakes import BoxSegmenter, FakeEncoder
from tests.training.data.data_folders import (
    IMAGES,
    SIZE_WH,
    annotation,
    options,
    prepared,
    rectangle,
    reference,
    write_image,
    write_reasonseg,
    write_refcoco,
)
from training.data.mask_prompts import mask_to_prompt
from training.data.prepare import open_source, prepare
from training.data.rows import RowOptions, covers, make_row, seen_prompt
from training.data.sam_filter import check_agreement
from training.data.shards import FEATURES, load_prepared
from training.data.sources.base import BadSample, Sample


def test_a_row_has_everything_that_training_needs(tmp_path: Path):
    write_refcoco(tmp_path / "root")
    first, second, third = prepared(tmp_path)
    assert first["image"].size == SIZE_WH
    assert (first["query"], first["kind"], first["split"]) == ("the square", "single", "train")
    assert first["size_wh"] == list(SIZE_WH)
    assert first["seen_size_wh"] == [840, 840]
    # 20..60 of 160 and 30..70 of 120 pixels, in the image that is seen.
    assert first["boxes_xyxy"] == [[105, 210, 315, 490]]
    assert coco_mask.decode(first["masks"][0]).sum() == 40 * 40
    assert first["ignore"] is None
    assert len(second["points"]) == 1
    assert len(second["points"][0]) == 2
    assert third["boxes_xyxy"] == [[53, 0, 158, 840]]


def test_the_bytes_of_an_image_are_kept_as_they_are(tmp_path: Path):
    write_refcoco(tmp_path / "root")
    prepare(options(tmp_path / "root"), RowOptions(), tmp_path / "out")
    rows = load_prepared(tmp_path / "out", streaming=True)
    raw = next(iter(rows.cast_column("image", datasets.Image(decode=False))))
    name = "COCO_train2014_000000000001.jpg"
    assert raw["image"] == {
        "bytes": (tmp_path / "root" / IMAGES / name).read_bytes(),
        "path": name,
    }


@pytest.mark.parametrize("image", ["png", "jpeg"])
def test_an_image_is_squashed_to_the_seen_size_when_asked(tmp_path: Path, image: str):
    write_refcoco(tmp_path / "root")
    row, *_ = prepared(tmp_path, RowOptions((84, 56), image))
    assert row["image"].size == (84, 56)
    assert row["image"].format.lower() == image
    path = tmp_path / "root" / IMAGES / "COCO_train2014_000000000001.jpg"
    seen = Image.open(path).resize((84, 56), Image.Resampling.BILINEAR)
    difference = np.abs(np.asarray(seen, float) - np.asarray(row["image"], float)).mean()
    assert difference < (0.01 if image == "png" else 5)


def test_the_images_own_size_can_be_the_frame(tmp_path: Path):
    write_refcoco(tmp_path / "root")
    row, *_ = prepared(tmp_path, RowOptions(seen_size_wh=None))
    assert row["seen_size_wh"] == list(SIZE_WH)
    assert row["boxes_xyxy"] == [[20, 30, 60, 70]]


def test_no_target_is_a_row_without_objects(tmp_path: Path):
    refs = [reference(1, [-1], 1, no_target=True), reference(2, [11, 12], 1, no_target=False)]
    write_refcoco(tmp_path / "root", "grefcoco", refs=refs, form="json")
    none, many = prepared(tmp_path, source="grefcoco")
    assert (none["kind"], none["masks"], none["boxes_xyxy"], none["points"]) == (
        "none",
        [],
        [],
        [],
    )
    assert (many["kind"], len(many["masks"]), len(many["boxes_xyxy"])) == ("many", 2, 2)


def test_a_place_to_ignore_may_be_null_in_every_version_of_pyarrow() -> None:
    size = FEATURES.arrow_schema.field("ignore").type.field("size").type
    assert not pa.types.is_fixed_size_list(size)


def test_ignored_places_come_along(tmp_path: Path):
    shapes = [rectangle("target", 10, 20, 49, 59), rectangle("ignore", 100, 0, 109, 9)]
    write_reasonseg(tmp_path / "root" / "train", shapes=shapes)
    (row,) = prepared(tmp_path, source="reasonseg")
    assert coco_mask.decode(row["ignore"]).sum() == 100


def test_tabletop_scenes_are_prepared_too(tmp_path: Path, scenes: Path):
    name, none, *_ = prepared(tmp_path, RowOptions((336, 336)), root=scenes, source="tabletop")
    assert name["boxes_xyxy"] == [[21, 28, 147, 196]]
    assert none["points"] == []


def test_the_first_point_is_repeated_where_there_is_no_second_circle():
    mask = np.zeros((120, 160), bool)
    mask[60, 80] = True
    prompt = seen_prompt(mask, mask_to_prompt(mask), (840, 840))
    assert len(prompt.points) == 2
    assert prompt.points[0] == prompt.points[1]


def test_a_box_never_loses_its_area():
    mask = np.zeros((1000, 2000), bool)
    mask[500, 1000] = True
    left, top, right, bottom = seen_prompt(mask, mask_to_prompt(mask), (84, 84)).box_xyxy
    assert left < right
    assert top < bottom


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 1),
    st.sampled_from([(840, 840), (30, 20), (7, 50)]),
    st.sampled_from(["circles", "reference"]),
)
def test_both_points_lie_on_the_mask_whatever_its_shape(seed, share, seen_wh, policy):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 60, 2))
    mask = rng.random((height, width)) < share
    mask[rng.integers(height), rng.integers(width)] = True
    prompt = seen_prompt(mask, mask_to_prompt(mask, policy=policy), seen_wh)
    scale = seen_wh[0] / width, seen_wh[1] / height
    assert all(covers(mask, point, scale) for point in prompt.points)
    x_min, y_min, x_max, y_max = prompt.box_xyxy
    assert 0 <= x_min < x_max <= seen_wh[0]
    assert 0 <= y_min < y_max <= seen_wh[1]


def test_a_sample_without_an_image_in_memory_is_read_from_its_file(tmp_path: Path):
    write_image(tmp_path / "a.png")
    content = BytesIO((tmp_path / "a.png").read_bytes())
    common = {"query": "q", "kind": "none", "masks": (), "ignore": None, "split": "train"}
    for image in (tmp_path / "a.png", content.getvalue()):
        row = make_row(Sample("a/1", image, SIZE_WH, **common), RowOptions())
        assert row["image"]["bytes"] == content.getvalue()


# SAM's agreement


def test_a_sample_that_sam_sees_otherwise_is_rejected(tmp_path: Path):
    circle = [
        [80 + 40 * float(np.cos(a)), 60 + 40 * float(np.sin(a))] for a in np.linspace(0, 6.2, 40)
    ]
    ring = [x for corner in circle for x in corner]
    sliver = [10, 10, 150, 110, 150, 112, 10, 12]
    anns = [annotation(11, 1, [ring]), annotation(12, 1, [sliver])]
    root = write_refcoco(tmp_path, refs=[reference(1, 11, 1), reference(2, 12, 1)], anns=anns)
    sam = LoadedSegmenter(FakeEncoder(), BoxSegmenter(), "fake", "fake")
    good, bad = (make_row(s, RowOptions(), sam) for s in open_source(options(root)).read())
    assert good["query"] == "the square"
    assert isinstance(bad, BadSample)
    assert bad.reason == "sam_disagrees"


def test_sam_is_not_asked_where_nothing_is_meant():
    encoder = FakeEncoder(error=SegmentationError("no"))
    broken = LoadedSegmenter(encoder, BoxSegmenter(), "fake", "fake")
    assert check_agreement(broken, np.zeros((4, 4, 3), np.uint8), [], []) is None


def test_the_bundled_segmenter_filters_rendered_shapes(tmp_path: Path, scenes: Path):
    sam = str(bundled_folder("tabletop") / "segmenter")
    rows = RowOptions((336, 336), sam=sam)
    manifest = prepare(options(scenes, source="tabletop"), rows, tmp_path / "out")
    assert manifest.samples + manifest.rejects.get("sam_disagrees", 0) == manifest.records == 6
    assert manifest.kinds["none"] == 3
    assert len(manifest.arguments["sam"]) == 16
