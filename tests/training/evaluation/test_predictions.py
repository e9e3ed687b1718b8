from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from segzero_core.errors import InputError
from segzero_core.pipeline import SegZero
from segzero_core.testing.fakes import (
    BoxSegmenter,
    FakeEncoder,
    ScriptedReasoner,
    fake_description,
)
from segzero_core.types import ModelIdentity
from training.evaluation.cases import open_data
from training.evaluation.compare import compare
from training.evaluation.evaluate import evaluate, main
from training.evaluation.html_report import build_report
from training.evaluation.metrics import LISA
from training.evaluation.predictions import (
    EvaluatedModel,
    Protocol,
    read_predictions,
    write_predictions,
)
from training.evaluation.predictors import pipeline_predictor
from training.evaluation.summary import report
from worlds.common.scene import Query

BOX = '<answer>[{"bbox_2d": [10, 10, 70, 70], "point_2d": [40, 40]}]</answer>'
RED = f"<think>It is red.</think>{BOX}"
NOTHING = "<think>No.</think><answer>[]</answer>"


def scored(data: Path, *replies: str):
    reasoner = ScriptedReasoner(replies, description=fake_description((160, 120)))
    identity = ModelIdentity("scripted", "0" * 16, "fake")
    pipeline = SegZero(reasoner, FakeEncoder(), BoxSegmenter(), identity)
    cases = open_data(data, None, None, None)
    return cases, evaluate(cases.images, pipeline_predictor(pipeline), quiet=True)


def written(path: Path, data: Path, *replies: str, ignore: str = LISA) -> Path:
    cases, samples = scored(data, *replies)
    protocol = Protocol(ignore, cases.averaging)
    write_predictions(path, samples, protocol, EvaluatedModel(path.stem, "f" * 16), cases.data)
    return path


@pytest.fixture
def files(scenes: Path, tmp_path: Path) -> tuple[Path, Path]:
    right = written(tmp_path / "right.jsonl", scenes, RED, RED, NOTHING)
    wrong = written(tmp_path / "wrong.jsonl", scenes, NOTHING)
    return wrong, right


def test_what_is_written_is_read_again(files: tuple[Path, Path], scenes: Path):
    cases, samples = scored(scenes, NOTHING)
    file = read_predictions(files[0])
    assert list(file.rows) == [case.id for case in cases.cases]
    assert [row["iou"] for row in file.rows.values()] == [s.outcome.iou for s in samples]
    row = file.rows["000000/0"]
    assert (row["query"], row["kind"], row["completion"]) == ("the red box", "name", NOTHING)
    assert row["refused"]
    assert file.data["hash"] == cases.data.hash
    assert file.model["name"] == "wrong"
    assert not list(files[0].parent.glob("*.tmp"))


def test_boxes_and_points_are_in_pixels_of_the_image(files: tuple[Path, Path]):
    row = read_predictions(files[1]).rows["000000/0"]
    assert row["boxes"] == [[10.0, 10.0, 70.0, 70.0]]
    assert row["points"] == [[[40.0, 40.0]]]
    assert (row["box_hits"], row["point_hits"]) == (1.0, 1.0)


def test_a_comparison_gives_the_difference_for_all_and_for_each_kind(files: tuple[Path, Path]):
    values = compare(*files).to_values()
    many = 3600 / 4200
    # The script goes on with a refusal after the first scene.
    assert values["kinds"]["name"]["difference"] == pytest.approx(1 / 3)
    assert values["kinds"]["many"]["difference"] == pytest.approx(many / 3)
    assert values["giou"]["difference"] == pytest.approx((1 + many) / 9)
    assert 0 < values["giou"]["p_value"] <= 1
    assert values["giou"]["pictures"] == 3
    assert values["first"]["name"] == "wrong"


def test_the_command_compares_and_prints_one_object(files: tuple[Path, Path], capsys):
    assert main(["--compare", *map(str, files), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["giou"]["n"] == 9
    assert main(["--compare", *map(str, files)]) == 0
    assert "first:  wrong" in capsys.readouterr().out


def edit(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(lambda lines: lines.pop(), "lacks 1 cases of .*: 000002/2", id="a case less"),
        pytest.param(
            lambda lines: lines[0]["data"].update(hash="other"),
            "their data differs, hash is",
            id="other data",
        ),
        pytest.param(
            lambda lines: lines[0]["protocol"].update(ignore="reference"),
            "their protocol differs, ignore is 'lisa' and 'reference'",
            id="another protocol",
        ),
    ],
)
def test_files_that_are_not_about_the_same_are_refused(files, change, complaint: str):
    edit(files[1], change)
    with pytest.raises(InputError, match=complaint):
        compare(*files)


def test_a_case_too_many_is_named_too(files: tuple[Path, Path]):
    edit(files[0], lambda lines: lines.pop())
    with pytest.raises(InputError, match=r"wrong.jsonl lacks 1 cases of .*right.jsonl"):
        compare(*files)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("", "not the header", id="empty"),
        pytest.param("{}\n", "not the header", id="no header"),
        pytest.param("{HEADER\n", "line 1: damaged", id="cut header"),
        pytest.param("HEAD\n", "no case in it", id="no case"),
        pytest.param('HEAD\n{"id": "a"', "line 2: damaged", id="cut row"),
        pytest.param("HEAD\n[]", "line 2: damaged", id="list"),
        pytest.param('HEAD\n{"id": "a"}', "has no picture", id="half a row"),
        pytest.param("HEAD\nROW\nROW", "there twice", id="twice"),
        pytest.param("HEAD\nNAN", "iou is nan", id="nan"),
    ],
)
def test_a_damaged_file_is_one_line_and_code_2(tmp_path: Path, capsys, text: str, complaint: str):
    header = {"segzero_samples": 1, "protocol": {}, "model": {}, "data": {}}
    row = {"id": "a", "picture": "p", "kind": "k", "iou": 1, "intersection": 1, "union": 1}
    text = text.replace("HEAD\n", json.dumps(header) + "\n").replace("ROW", json.dumps(row))
    text = text.replace("NAN", json.dumps(row | {"iou": float("nan")}))
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    assert main(["--compare", str(path), str(path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line


def test_a_missing_file_is_one_line_and_code_2(tmp_path: Path, capsys):
    assert main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "no such file" in capsys.readouterr().err


class Page(HTMLParser):
    """Reads a page strictly: every tag that is opened is closed, in order."""

    VOID = ("meta", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = f'<think><script>alert("x")</script> & "quotes"</think>{BOX}'


@pytest.fixture
def page(tmp_path: Path, make_scene) -> str:
    data = tmp_path / "data"
    query = Query("name", 'the <b>"red"</b> box', (1,))
    for index in range(20):
        make_scene(data / f"{index:06d}", index, queries=(query,))
    cases, samples = scored(data, HOSTILE, *[NOTHING] * 10, RED)
    protocol = Protocol(LISA, cases.averaging)
    figures = report(samples, protocol, EvaluatedModel("<i>model</i>"), cases.data)
    return build_report(figures, samples, cases, LISA)


def test_a_report_is_whole_and_loads_nothing_from_elsewhere(page: str):
    reader = Page()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert reader.seen.count("img") == 20
    assert all(source.startswith("data:image/jpeg;base64,") for source in reader.sources)
    assert "http" not in page


def test_a_report_shows_texts_as_texts(page: str):
    reader = Page()
    reader.feed(page)
    assert HOSTILE in reader.text
    assert 'the <b>"red"</b> box' in reader.text
    assert not {"script", "think", "i"} & set(reader.seen)


def test_a_report_shows_the_worst_and_the_best_once_each(page: str):
    worst, best = page.split("<h2>Best")
    assert worst.count("<figure>") == 12
    assert best.count("<figure>") == 8
    assert "IoU 0.000" in worst
    assert "IoU 0.000" not in best


def test_the_command_writes_samples_and_report(scenes: Path, tmp_path: Path, capsys):
    samples, page = tmp_path / "out.jsonl", tmp_path / "out.html"
    args = ["--data", str(scenes), "--baseline", "largest"]
    assert main([*args, "--samples", str(samples), "--report", str(page)]) == 0
    assert len(read_predictions(samples).rows) == 9
    assert page.read_text().startswith("<!DOCTYPE html>")
