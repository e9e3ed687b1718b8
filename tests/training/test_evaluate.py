from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segzero_core.errors import SegmentationError
from segzero_core.pipeline import SegZero
from segzero_core.segmenter import LoadedSegmenter
from segzero_core.testing import BoxSegmenter, FakeEncoder, ScriptedReasoner, fake_description
from segzero_core.types import ModelIdentity
from tabletop.scene import Query
from training import evaluate_segmenter
from training.evaluate import ask_pipeline, evaluate, main, report
from training.evaluation_data import Question, open_scenes, select_questions

RED = (
    "<think>It is red.</think>"
    '<answer>[{"bbox_2d": [10, 10, 70, 70], "point_2d": [40, 40]}]</answer>'
)
NOTHING = "<think>No banana.</think><answer>[]</answer>"
CUT_OFF = '<think>It is red.</think><answer>[{"bbox'


def pipeline(*replies: str | BaseException, encoder: FakeEncoder | None = None) -> SegZero:
    reasoner = ScriptedReasoner(replies, description=fake_description((160, 120)))
    identity = ModelIdentity("scripted", "0" * 16, "fake")
    return SegZero(reasoner, encoder or FakeEncoder(), BoxSegmenter(), identity)


def questions(data: Path, **choice: Any) -> list[Question]:
    return select_questions(open_scenes(data), **choice)


def run_main(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(args)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_query_is_scored_by_kind(scenes: Path):
    outcomes = evaluate(questions(scenes, limit=3), ask_pipeline(pipeline(RED, RED, NOTHING)))
    figures = report(outcomes)
    assert figures["n"] == 3
    assert figures["kinds"]["name"]["giou"] == 1.0
    assert figures["kinds"]["many"]["giou"] == pytest.approx(3600 / 4200)
    assert figures["kinds"]["none"]["refusals_correct"] == 1.0
    assert figures["kinds"]["many"]["box_acc_50"] == 0.5


def test_unusable_replies_stay_in_the_count_as_0(scenes: Path):
    outcomes = evaluate(questions(scenes), ask_pipeline(pipeline(CUT_OFF)))
    figures = report(outcomes)
    assert figures["n"] == 9
    assert figures["giou"] == 0.0
    assert figures["unusable"] == 1.0
    assert figures["refusals_correct"] == 0.0
    assert figures["ciou"] == 0.0


def test_a_failing_pipeline_counts_0_and_is_named(scenes: Path, capsys):
    broken = pipeline(RED, encoder=FakeEncoder(error=SegmentationError("no luck")))
    figures = report(evaluate(questions(scenes, kind="name"), ask_pipeline(broken)))
    assert (figures["n"], figures["giou"], figures["unusable"]) == (3, 0.0, 0.0)
    assert "no luck" in capsys.readouterr().err


def test_kind_split_and_limit_choose_the_queries(scenes: Path):
    assert len(questions(scenes)) == 9
    assert len(questions(scenes, kind="none")) == 3
    assert {query.kind for _, query in questions(scenes, split="test")} == {"many"}
    assert len(questions(scenes, limit=4)) == 4


@pytest.mark.parametrize("baseline", ["random", "largest"])
def test_a_baseline_prints_one_object_with_the_agreed_keys(scenes: Path, capsys, baseline: str):
    code, out, _ = run_main(capsys, "--data", str(scenes), "--baseline", baseline, "--json")
    figures = json.loads(out)
    keys = {"giou", "ciou", "box_acc_50", "unusable", "refusals_correct", "n", "ms"}
    assert code == 0
    assert set(figures) == keys | {"kinds"}
    assert all(set(row) == keys for row in figures["kinds"].values())
    assert figures["kinds"]["none"]["giou"] == 0.0


def test_the_largest_object_is_the_blind_guess(scenes: Path, capsys):
    _, out, _ = run_main(
        capsys, "--data", str(scenes), "--baseline", "largest", "--kind", "name", "--json"
    )
    assert json.loads(out)["giou"] == 1.0


def test_the_random_baseline_is_the_same_every_time(scenes: Path, capsys):
    args = ("--data", str(scenes), "--baseline", "random", "--json")
    first, second = (json.loads(run_main(capsys, *args)[1]) for _ in range(2))
    assert first["giou"] == second["giou"]


def test_processes_share_the_questions_and_agree_with_one(scenes: Path, capsys):
    args = ["--data", str(scenes), "--baseline", "largest", "--json"]
    _, one, _ = run_main(capsys, *args)
    code, two, _ = run_main(capsys, *args, "--processes", "2")
    alone, shared = json.loads(one), json.loads(two)
    assert code == 0
    for figures in (alone, shared, *alone["kinds"].values(), *shared["kinds"].values()):
        figures.pop("ms")
    assert shared == alone


def test_without_json_a_table_is_printed(scenes: Path, capsys):
    code, out, _ = run_main(capsys, "--data", str(scenes), "--baseline", "largest")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["name", "many", "none", "all"]


def test_true_prompts_measure_the_segmenter_alone(scenes: Path):
    loaded = LoadedSegmenter(FakeEncoder(), BoxSegmenter(), "fake", "0" * 16)
    figures = evaluate_segmenter.measure(loaded, open_scenes(scenes))
    assert figures["n"] == 9
    assert figures["kinds"]["box"]["giou"] == 1.0
    assert 0.7 < figures["kinds"]["ball"]["giou"] < 0.85
    assert figures["sizes"]["over 48x48, 2 points"]["n"] == 6
    assert "over 48x48, 1 points" in evaluate_segmenter.as_text(figures)


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


def test_a_picture_that_is_none_is_one_line_and_code_2(scenes: Path, capsys):
    (scenes / "000000" / "color.png").write_bytes(b"no picture")
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
