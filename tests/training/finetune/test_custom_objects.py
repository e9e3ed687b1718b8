"""One command from labelled images to a fine-tuned model, in small."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from segzero_core import SegZero
from tests.training.conftest import write_scene
from training.cli import main
from training.data.prepare import open_source, prepare
from training.data.rows import RowOptions
from training.data.shards import load_prepared
from training.data.sources.base import BadSample, Record, Sample, Source, SourceOptions, join
from training.finetune.checkpoints import METRICS
from worlds.tabletop.coco import main as label

STEPS = ("--set", "max_steps=2", "--set", "sft.batch_size=2", "--set", "save_steps=1")


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """Five scenes, of which only the balls are labelled."""
    for seed in range(5):
        write_scene(tmp_path / "scenes" / f"{seed:06d}", seed)
    out = tmp_path / "labels.json"
    assert label(["--scenes", str(tmp_path / "scenes"), "--out", str(out), "--kinds", "ball"]) == 0
    return ["--images", str(tmp_path / "scenes"), "--labels", str(out)]


def steps(out: Path) -> list[int]:
    rows = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return [row["step"] for row in rows if "train_runtime" not in row]


@pytest.mark.slow
def test_one_command_leaves_a_model_that_can_be_used_and_the_figures_of_both(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    rehearse = ["--rehearse", str(tmp_path / "scenes")]
    assert main(["own", *own, *rehearse, "--out", str(out), *STEPS]) == 0
    printed = capsys.readouterr().out
    assert "single" in printed
    assert " -> " in printed
    assert str(out / "model") in printed
    assert steps(out) == [1, 2]
    model = SegZero.load(str(out / "model"))
    assert model.description.prompt_template == "multi_object_direct"
    for name in ("before", "after"):
        header = json.loads((out / f"{name}.jsonl").read_text().splitlines()[0])
        assert header["data"]["split"] == "val"
    kinds = load_prepared(out / "data" / "train")["kind"]
    assert {"single", "name"} <= set(kinds)


@pytest.mark.slow
@pytest.mark.timeout(900)  # minutes, where another training shares the cores
def test_a_training_that_was_cut_off_is_gone_on_with_and_a_finished_one_left(
    own: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["own", *own, "--out", str(out), *STEPS]
    assert main([*command, "--set", "max_steps=1"]) == 0
    assert main(command) == 0
    assert steps(out) == [1, 2]
    # Its time is spent: not a step more.
    assert main([*command, "--set", "max_steps=9", "--minutes", "1e-6"]) == 0
    assert steps(out) == [1, 2]


@pytest.mark.slow
def test_the_minutes_of_a_training_are_those_of_the_clock_however_many_threads_work(
    own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every look at the processor time finds an hour more, as with very many threads.
    monkeypatch.setattr("time.process_time", itertools.count(0, 3600).__next__)
    assert main(["own", *own, "--out", str(tmp_path / "out"), *STEPS, "--minutes", "60"]) == 0
    assert steps(tmp_path / "out") == [1, 2]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"--labels": "/nowhere.json"}, "/nowhere.json", id="labels"),
        pytest.param({"--images": "/nowhere"}, "/nowhere: there is no such folder", id="images"),
        pytest.param({"--model": "/nowhere"}, "/nowhere", id="model"),
        pytest.param({"--rehearse": "/nowhere"}, "/nowhere", id="rehearsal"),
        pytest.param({"--config": "nothing"}, "--config nothing", id="configuration"),
        pytest.param({"--minutes": "-1"}, "max_minutes", id="minutes"),
    ],
)
def test_what_cannot_be_used_is_reported_in_one_line(
    own: list[str],
    tmp_path: Path,
    changes: dict[str, str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = dict(zip(own[::2], own[1::2], strict=True)) | {"--out": str(tmp_path / "out")}
    words = ["own"] + [word for pair in (given | changes).items() for word in pair]
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("segzero-train own: error: ")
    assert complaint in error


def test_other_labels_do_not_go_on_in_the_same_folder(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = Path(own[3])
    rows = RowOptions((336, 336))
    options = SourceOptions("coco", Path(own[1]), "val", labels=labels)
    prepare(options, rows, tmp_path / "out" / "data" / "val")
    content = json.loads(labels.read_text())
    labels.write_text(json.dumps(content | {"info": "changed"}))
    assert main(["own", *own, "--out", str(tmp_path / "out")]) == 2
    assert "was made with annotations" in capsys.readouterr().err


def _never_made(record: Record) -> Sample:
    raise AssertionError(record)


def test_sources_that_are_joined_keep_their_samples_and_their_bad_ones(own: list[str]) -> None:
    options = SourceOptions("coco", Path(own[1]), "all", labels=Path(own[3]))
    first, second = open_source(options), open_source(SourceOptions("tabletop", Path(own[1])))
    bad = Source("bad", [BadSample("x", "bad_mask", "why")], _never_made, "")
    both = join([first, bad, second])
    expected = [*first.read(), *bad.read(), *second.read()]
    assert list(both.read()) == expected
    assert sum(isinstance(outcome, Sample) for outcome in expected) == len(both) - 1
    assert all(isinstance(record, Record) for record in first.records)
    assert join([second, first]).fingerprint != join([first, second]).fingerprint
