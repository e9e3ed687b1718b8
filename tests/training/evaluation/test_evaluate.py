from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segzero_core.encoders.base import CachingEncoder
from segzero_core.errors import ReasoningError, SegmentationError
from segzero_core.pipeline import SegZero
from segzero_core.segmenter.sam2 import LoadedSegmenter
from segzero_core.testing.fakes import (
    BoxSegmenter,
    FakeEncoder,
    ScriptedReasoner,
    fake_description,
)
from segzero_core.types import ModelIdentity
from tests.tiny_models import save_tiny_model
from training.data.rendered_scenes import open_scenes
from training.evaluation import segmenter
from training.evaluation.batch_inference import load_with_batches
from training.evaluation.cases import CaseSet, open_data
from training.evaluation.evaluate import evaluate, main
from training.evaluation.metrics import LISA
from training.evaluation.predictions import EvaluatedModel, Protocol, Scored
from training.evaluation.predictors import batch_predictor, pipeline_predictor
from training.evaluation.summary import report
from worlds.common.scene import Query

RED = (
    "<think>It is red.</think>"
    '<answer>[{"bbox_2d": [10, 10, 70, 70], "point_2d": [40, 40]}]</answer>'
)
NOTHING = "<think>No banana.</think><answer>[]</answer>"
CUT_OFF = '<think>It is red.</think><answer>[{"bbox'
KEYS = {
    "giou", "ciou", "box_acc_50", "point_in_mask", "unusable", "refusals_correct",
    "refusals_wrong", "n", "ms", "intervals",
}  # fmt: skip


class CountingEncoder(FakeEncoder):
    calls = 0

    def encode(self, image):
        self.calls += 1
        return super().encode(image)


def pipeline(*replies: str | BaseException, encoder: FakeEncoder | None = None) -> SegZero:
    reasoner = ScriptedReasoner(replies, description=fake_description((160, 120)))
    identity = ModelIdentity("scripted", "0" * 16, "fake")
    encoder = CachingEncoder(encoder or FakeEncoder())
    return SegZero(reasoner, encoder, BoxSegmenter(), identity)


def questions(
    data: Path, kind: str | None = None, split: str | None = None, limit: int | None = None
) -> CaseSet:
    return open_data(data, kind, split, limit)


def summary_of(cases: CaseSet, samples: list[Scored]) -> dict[str, Any]:
    return report(samples, Protocol(LISA, cases.averaging), EvaluatedModel("scripted"), cases.data)


def ask(cases: CaseSet, asked: SegZero) -> dict[str, Any]:
    return summary_of(cases, evaluate(cases.images, pipeline_predictor(asked)))


def run_main(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(args)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_query_is_scored_by_kind(scenes: Path):
    summary = ask(questions(scenes, limit=3), pipeline(RED, RED, NOTHING))
    assert summary["n"] == 3
    assert summary["kinds"]["name"]["giou"] == 1.0
    assert summary["kinds"]["many"]["giou"] == pytest.approx(3600 / 4200)
    assert summary["kinds"]["none"]["refusals_correct"] == 1.0
    assert summary["kinds"]["many"]["box_acc_50"] == 0.5
    assert summary["kinds"]["many"]["point_in_mask"] == 1.0
    assert summary["refusals_wrong"] == 0.0


def test_a_refusal_where_something_is_meant_is_counted_as_wrong(scenes: Path):
    summary = ask(questions(scenes), pipeline(NOTHING))
    assert (summary["refusals_correct"], summary["refusals_wrong"]) == (1.0, 1.0)
    assert summary["kinds"]["name"]["refusals_correct"] is None
    assert summary["kinds"]["none"]["refusals_wrong"] is None
    assert summary["point_in_mask"] == 0.0


def test_an_image_is_encoded_once_for_all_its_questions(scenes: Path):
    encoder = CountingEncoder()
    ask(questions(scenes), pipeline(RED, encoder=encoder))
    assert encoder.calls == 3


def test_every_metric_lies_in_its_interval(scenes: Path):
    summary = ask(questions(scenes, kind="name"), pipeline(RED, CUT_OFF, RED))
    low, high = summary["intervals"]["giou"]
    assert summary["giou"] == pytest.approx(2 / 3)
    assert low <= summary["giou"] <= high
    assert summary["kinds"]["name"]["intervals"] == summary["intervals"]


def test_a_single_image_has_no_interval(scenes: Path):
    summary = ask(questions(scenes, limit=3), pipeline(RED))
    assert summary["intervals"]["giou"] is None


def test_unusable_completions_stay_in_the_count_as_0(scenes: Path):
    summary = ask(questions(scenes), pipeline(CUT_OFF))
    assert summary["n"] == 9
    assert summary["giou"] == 0.0
    assert summary["unusable"] == 1.0
    assert summary["refusals_correct"] == 0.0
    assert summary["ciou"] == 0.0


def test_a_failing_pipeline_counts_0_and_is_named(scenes: Path, capsys):
    broken = pipeline(RED, encoder=FakeEncoder(error=SegmentationError("no luck")))
    summary = ask(questions(scenes, kind="name"), broken)
    assert (summary["n"], summary["giou"], summary["unusable"]) == (3, 0.0, 0.0)
    assert "no luck" in capsys.readouterr().err


def test_kind_split_and_limit_choose_the_queries(scenes: Path):
    assert len(questions(scenes).cases) == 9
    assert len(questions(scenes, kind="none").cases) == 3
    assert {case.kind for case in questions(scenes, split="test").cases} == {"many"}
    assert len(questions(scenes, limit=4).cases) == 4


@pytest.mark.parametrize("baseline", ["random", "largest"])
def test_a_baseline_prints_one_object_with_the_agreed_keys(scenes: Path, capsys, baseline: str):
    code, out, _ = run_main(capsys, "--data", str(scenes), "--baseline", baseline, "--json")
    summary = json.loads(out)
    assert code == 0
    assert set(summary) == KEYS | {"kinds", "protocol", "model", "data"}
    assert all(set(row) == KEYS for row in summary["kinds"].values())
    assert summary["kinds"]["none"]["giou"] == 0.0


def test_the_largest_object_is_the_blind_guess(scenes: Path, capsys):
    _, out, _ = run_main(
        capsys, "--data", str(scenes), "--baseline", "largest", "--kind", "name", "--json"
    )
    assert json.loads(out)["giou"] == 1.0


def test_the_random_baseline_is_the_same_every_time(scenes: Path, capsys):
    args = ("--data", str(scenes), "--baseline", "random", "--json")
    first, second = (json.loads(run_main(capsys, *args)[1]) for _ in range(2))
    assert first["giou"] == second["giou"]


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    for row in (summary, *summary["kinds"].values()):
        row.pop("ms")
    return summary


def test_processes_share_the_images_and_agree_with_one(scenes: Path, capsys):
    args = ["--data", str(scenes), "--baseline", "random", "--json"]
    _, one, _ = run_main(capsys, *args)
    code, two, _ = run_main(capsys, *args, "--processes", "2")
    assert code == 0
    assert without_times(json.loads(two)) == without_times(json.loads(one))


def launched(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the evaluation in two processes of accelerate, without a GPU."""
    options = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options.split()]
    command = [*launch, "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "training.evaluation.evaluate", *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_of_accelerate_agree_with_one(scenes: Path, capsys, tmp_path: Path):
    args = ["--data", str(scenes), "--baseline", "random", "--json"]
    _, one, _ = run_main(capsys, *args, "--samples", str(tmp_path / "one.jsonl"))
    done = launched(*args, "--samples", str(tmp_path / "two.jsonl"))
    assert done.returncode == 0, done.stderr
    assert without_times(json.loads(done.stdout)) == without_times(json.loads(one))
    ids = [
        [json.loads(line).get("id") for line in (tmp_path / name).read_text().splitlines()]
        for name in ("one.jsonl", "two.jsonl")
    ]
    assert ids[0] == ids[1]


@pytest.mark.slow
def test_an_error_in_one_process_of_accelerate_ends_both(scenes: Path):
    (scenes / "000001" / "color.png").write_bytes(b"no image")
    done = launched("--data", str(scenes), "--baseline", "random")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("segzero evaluate:")]
    assert len(lines) == 1
    assert "000001 is not a rendered scene" in lines[0]


def test_batches_answer_as_one_by_one(scenes: Path, tmp_path: Path):
    folder = str(save_tiny_model(tmp_path / "model"))
    asked, reasoner = load_with_batches(folder, segmenter=None, device="cpu", template=None)
    cases = questions(scenes, limit=3)
    single = evaluate(cases.images, pipeline_predictor(asked))
    batched = evaluate(cases.images, batch_predictor(asked, reasoner.complete, 2))
    assert [s.completion for s in batched] == [s.completion for s in single]
    assert [s.prompts for s in batched] == [s.prompts for s in single]
    assert [s.outcome.iou for s in batched] == [s.outcome.iou for s in single]
    assert all(s.completion.endswith("</answer>") for s in batched)


def test_a_batch_that_fails_is_asked_one_by_one(scenes: Path):
    def fail(image, queries):
        raise ReasoningError("too many at once")

    cases = questions(scenes, limit=3)
    samples = evaluate(cases.images, batch_predictor(pipeline(RED), fail, 3))
    assert [s.completion for s in samples] == [RED] * 3


def test_without_json_a_table_is_printed(scenes: Path, capsys):
    code, out, _ = run_main(capsys, "--data", str(scenes), "--baseline", "largest")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["name", "many", "none", "all"]
    assert "ignore lisa" in out


def test_true_prompts_measure_the_segmenter_alone(scenes: Path):
    loaded = LoadedSegmenter(FakeEncoder(), BoxSegmenter(), "fake", "0" * 16)
    summary = segmenter.measure(loaded, open_scenes(scenes))
    assert summary["n"] == 9
    assert summary["kinds"]["box"]["giou"] == 1.0
    assert 0.7 < summary["kinds"]["ball"]["giou"] < 0.85
    assert summary["sizes"]["over 48x48, 2 points"]["n"] == 6
    assert "over 48x48, 1 points" in segmenter.as_text(summary)


def test_with_the_grammar_every_completion_can_be_read(scenes: Path, tmp_path: Path, capsys):
    spoken = "<think>on and on, never to an end, <answer> [1,2 {'bbox': [9,9,9,9]} and again"
    folder = save_tiny_model(tmp_path, spoken, max_new_tokens=130)
    args = ("--data", str(scenes), "--model", str(folder), "--device", "cpu", "--json")
    summary = {}
    for name, switch in (("without", ()), ("with", ("--grammar",))):
        code, out, _ = run_main(capsys, *args, *switch)
        assert code == 0
        summary[name] = json.loads(out)
    assert (summary["without"]["unusable"], summary["with"]["unusable"]) == (1.0, 0.0)
    assert [summary[name]["model"]["grammar"] for name in ("without", "with")] == [False, True]


@pytest.mark.parametrize("other", [("--batch", "2"), ("--baseline", "random")], ids=" ".join)
def test_the_grammar_is_refused_where_it_has_no_effect(scenes: Path, capsys, other):
    line = complaint(capsys, "--data", str(scenes), "--grammar", *other)
    assert "--grammar" in line


def complaint(capsys, *args: str) -> str:
    code, out, err = run_main(capsys, *args)
    assert code == 2
    assert out == ""
    (line,) = err.strip().splitlines()[-1:]
    assert "Traceback" not in err
    return line


def test_a_missing_folder_is_one_line_and_code_2(tmp_path: Path, capsys):
    args = ("--data", str(tmp_path / "none"), "--baseline", "random")
    assert "no such folder" in complaint(capsys, *args)


def test_an_empty_folder_is_one_line_and_code_2(tmp_path: Path, capsys):
    assert "no rendered scenes" in complaint(
        capsys, "--data", str(tmp_path), "--baseline", "random"
    )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 1}', '{"format": 99}', "\x00\x01"],
    ids=["empty", "cut off", "list", "no keys", "half", "format 99", "binary"],
)
def test_a_damaged_scene_is_one_line_and_code_2(scenes: Path, capsys, text: str):
    (scenes / "000001" / "scene.json").write_text(text)
    line = complaint(capsys, "--data", str(scenes), "--baseline", "random")
    assert "000001 is not a rendered scene" in line


def test_an_image_that_is_none_is_one_line_and_code_2(scenes: Path, capsys):
    (scenes / "000000" / "color.png").write_bytes(b"no image")
    assert "000000" in complaint(capsys, "--data", str(scenes), "--baseline", "random")


def test_a_query_of_unknown_kind_is_refused(tmp_path: Path, capsys, make_scene):
    make_scene(tmp_path / "000000", queries=(Query("riddle", "what?", (1,)),))
    assert "riddle" in complaint(capsys, "--data", str(tmp_path), "--baseline", "random")


def test_a_query_about_an_object_that_is_not_there_is_refused(tmp_path, capsys, make_scene):
    make_scene(tmp_path / "000000", queries=(Query("name", "the ghost", (9,)),))
    assert "ghost" in complaint(capsys, "--data", str(tmp_path), "--baseline", "random")


def test_a_filter_that_leaves_nothing_is_refused(scenes: Path, capsys):
    args = ("--data", str(scenes), "--baseline", "random", "--kind", "relation")
    assert "no query" in complaint(capsys, *args)


def test_an_unknown_kind_on_the_command_line_is_refused(scenes: Path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--data", str(scenes), "--kind", "riddle"])
    assert stop.value.code == 2


def test_a_missing_model_is_one_line_and_code_2(scenes: Path, capsys, tmp_path: Path):
    args = ("--data", str(scenes), "--model", str(tmp_path / "nowhere"))
    assert "nowhere" in complaint(capsys, *args)


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        pytest.param(("--split", "testA"), "no split 'testA'", id="unknown split"),
        pytest.param(("--samples", "/nowhere/a.jsonl"), "no folder /nowhere", id="no folder"),
        pytest.param(("--report", "/"), "is a folder", id="a folder as a file"),
    ],
)
def test_an_argument_that_cannot_be_is_one_line_and_code_2(
    scenes: Path, capsys, args: tuple[str, ...], complaint: str
):
    code, _, err = run_main(capsys, "--data", str(scenes), "--baseline", "random", *args)
    assert code == 2
    assert complaint in err.strip().splitlines()[-1]
