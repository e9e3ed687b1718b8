from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segzero_core.errors import InputError
from segzero_core.geometry import box_from_mask
from segzero_core.types import Box, ObjectPrompt, Point
from tests.training.data.data_folders import (
    rectangle,
    reference,
    write_reasonseg,
    write_refcoco,
)
from training.data.prepare import prepare
from training.data.rows import RowOptions
from training.data.sources.base import SourceOptions
from training.evaluation.cases import Case, TrueAnswer, open_benchmark, open_data
from training.evaluation.evaluate import evaluate, main, score
from training.evaluation.metrics import LISA, OVER_KINDS, OVER_QUERIES, REFERENCE
from training.evaluation.predictors import Prediction


def options(source: str, root: Path, split: str, **more) -> SourceOptions:
    return SourceOptions(source, root, split, allow_partial=True, **more)


def perfect(image, view):
    """Answer with the true mask."""
    replies = []
    for truth in view.truths:
        prompts = tuple(ObjectPrompt(box, ()) for box in truth.boxes)
        masks = np.repeat(truth.mask[None], len(prompts), axis=0)
        replies.append(Prediction("", prompts, masks, 1.0))
    return replies


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    refs = [
        reference(1, 11, 1, split="testA"),
        reference(2, 21, 2, split="testA", sentences=["the crowd"]),
        reference(3, 12, 1, split="testA", sentences=["both squares"]),
    ]
    return write_refcoco(tmp_path / "coco", refs=refs)


@pytest.mark.parametrize(
    ("policy", "queries"),
    [
        ("first", ["the square", "both squares", "the crowd"]),
        ("all", ["the square", "a box on the left", "both squares", "the crowd"]),
        ("joined", ["the square, a box on the left", "both squares", "the crowd"]),
    ],
)
def test_the_sentence_policy_decides_what_is_asked(coco: Path, policy: str, queries: list[str]):
    cases = open_benchmark(options("refcoco", coco, "testA", sentences=policy))
    assert [case.query for case in cases.cases] == queries
    assert (cases.data.name, cases.data.split) == ("refcoco/unc", "testA")
    assert cases.data.sentences == policy


def test_what_is_asked_about_one_image_comes_together(coco: Path):
    cases = open_benchmark(options("refcoco", coco, "testA"))
    assert [len(entry.cases) for entry in cases.images] == [2, 1]
    assert cases.images[0].cases[0].image == "train2014/COCO_train2014_000000000001.jpg"


def test_the_true_mask_of_a_benchmark_scores_1(coco: Path):
    cases = open_benchmark(options("refcoco", coco, "testA"))
    samples = evaluate(cases.images, perfect, quiet=True)
    assert [sample.outcome.iou for sample in samples] == [1.0, 1.0, 1.0]
    assert [sample.outcome.box_hits for sample in samples] == [1.0, 1.0, 1.0]
    assert cases.averaging == OVER_QUERIES


def test_a_bad_annotation_is_refused_unless_a_part_is_allowed(tmp_path: Path):
    refs = [reference(1, 11, 1, split="val"), reference(2, 99, 1, split="val")]
    root = write_refcoco(tmp_path, dataset="grefcoco", refs=refs, form="json")
    strict = SourceOptions("grefcoco", root, "val")
    with pytest.raises(InputError, match="1 of 2 annotations cannot be used, the first is"):
        open_benchmark(strict)
    cases = open_benchmark(options("grefcoco", root, "val"))
    assert (len(cases.cases), cases.data.rejected) == (1, 1)


def reasonseg(root: Path) -> Path:
    shapes = [rectangle("target", 10, 20, 29, 39), rectangle("ignore", 40, 20, 59, 39)]
    write_reasonseg(root / "val", shapes=shapes)
    return root


def test_ignored_regions_are_left_out_or_meant(tmp_path: Path):
    cases = open_benchmark(options("reasonseg", reasonseg(tmp_path), "val"))
    (truth,) = cases.images[0].read().truths
    assert truth.under(LISA) is truth
    assert (int(truth.mask.sum()), int(truth.ignore.sum())) == (400, 400)
    assert truth.boxes == (Box(10, 20, 30, 40),)
    meant = truth.under(REFERENCE)
    assert (int(meant.mask.sum()), meant.ignore, meant.boxes) == (
        800,
        None,
        (Box(10, 20, 60, 40),),
    )


@pytest.mark.parametrize(
    ("policy", "intersection", "union", "points"),
    [
        # Answer: columns 0 to 2. Truth: 0 and 1. Ignored: 2 and 3.
        pytest.param(LISA, 8, 8, 1.0, id="lisa: excluded from both"),
        pytest.param(REFERENCE, 12, 16, 1.0, id="reference: meant"),
    ],
)
def test_the_ignore_policies_on_four_by_four_pixels(
    policy: str, intersection: int, union: int, points: float
):
    truth, ignore, found = (np.zeros((4, 4), bool) for _ in range(3))
    truth[:, :2] = ignore[:, 2:] = found[:, :3] = True
    box = box_from_mask(found)
    reply = Prediction(
        "", (ObjectPrompt(box, (Point(0.5, 0.5), Point(2.5, 0.5))),), found[None], 1.0
    )
    case = Case("reasonseg/val/0/0", "val/0.jpg", "what?", "long", "val")
    got = score(case, TrueAnswer(truth, (Box(0, 0, 2, 4),), ignore).under(policy), reply).outcome
    assert (got.intersection, got.union, got.point_hits) == (intersection, union, points)
    assert got.iou == intersection / union


def prepared(root: Path, out: Path, source: str, split: str) -> Path:
    prepare(options(source, root, split), RowOptions(seen_size_wh=(84, 84)), out)
    return out


def test_prepared_data_asks_the_same_as_its_source(coco: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = prepared(coco, tmp_path / "out", "refcoco", "testA")
    cases = open_data(folder, None, None, None)
    source = open_benchmark(options("refcoco", coco, "testA"))
    assert [c.id for c in cases.cases] == [c.id for c in source.cases]
    assert [len(p.cases) for p in cases.images] == [2, 1]
    for ours, theirs in zip(cases.images, source.images, strict=True):
        assert np.array_equal(ours.read().image, theirs.read().image)
        for a, b in zip(ours.read().truths, theirs.read().truths, strict=True):
            assert np.array_equal(a.mask, b.mask)
            assert a.boxes == b.boxes
    assert (cases.averaging, cases.data.name) == (OVER_QUERIES, "prepared refcoco")
    with pytest.raises(InputError, match="it holds the split testA, not val"):
        open_data(folder, None, "val", None)
    with pytest.raises(InputError, match="no sample of kind none"):
        open_data(folder, "none", None, None)


def test_ignored_regions_survive_the_preparation(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = prepared(reasonseg(tmp_path / "lisa"), tmp_path / "out", "reasonseg", "val")
    (truth,) = open_data(folder, None, None, None).images[0].read().truths
    assert int(truth.ignore.sum()) == 400


def test_rendered_scenes_weigh_kinds_and_have_one_hash_whatever_is_asked(scenes: Path):
    everything = open_data(scenes, None, None, None)
    some = open_data(scenes, "name", None, 1)
    assert everything.averaging == OVER_KINDS
    assert everything.data.hash == some.data.hash
    assert some.cases[0] in everything.cases


def test_a_changed_scene_changes_the_hash(scenes: Path):
    before = open_data(scenes, None, None, None).data.hash
    file = scenes / "000002" / "scene.json"
    file.write_text(file.read_text().replace("the red box", "the red cube"))
    assert open_data(scenes, None, None, None).data.hash != before


def test_shares_are_disjoint_and_whole(scenes: Path):
    cases = open_data(scenes, None, None, None)
    shares = [cases.share(rank, 2) for rank in range(2)]
    assert sorted(map(id, shares[0] + shares[1])) == sorted(map(id, cases.images))


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        pytest.param((), "needs the folder it lies in", id="no root"),
        pytest.param(("--root", "{root}/none"), "no such folder", id="missing root"),
        pytest.param(("--root", "{root}", "--split", "test"), "no split 'test'", id="split"),
        pytest.param(("--root", "{root}", "--split", "testA"), "half a download", id="half"),
        pytest.param(
            ("--root", "{root}", "--split", "testA", "--allow-partial", "--baseline", "random"),
            "needs rendered scenes",
            id="baseline",
        ),
    ],
)
def test_a_benchmark_that_cannot_be_asked_is_one_line_and_code_2(
    coco: Path, capsys, args: tuple[str, ...], complaint: str
):
    code = main(["--benchmark", "refcoco", *(arg.format(root=coco) for arg in args)])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert complaint in captured.err.strip().splitlines()[-1]


def test_unfinished_prepared_data_is_refused(tmp_path: Path):
    (tmp_path / "unfinished.json").write_text(json.dumps({"arguments": {}}))
    with pytest.raises(InputError, match="is unfinished"):
        open_data(tmp_path, None, None, None)
