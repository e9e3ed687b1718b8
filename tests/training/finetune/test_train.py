"""Training in small: two steps of each method on real data, cut off and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from segzero_core import SegZero, parse_completion
from segzero_core.errors import ConfigError
from segzero_core.testing.fakes import fake_description
from tests.training.conftest import write_prepared
from training import cli
from training.config import load_config
from training.finetune import grpo
from training.finetune.checkpoints import BEGUN, COMPLETE, METRICS, RUN_FILE
from training.finetune.conversations import load_conversations, sft_columns, write_answer
from training.finetune.time_budget import PROCESSOR, WALL
from training.finetune.train import until_the_end
from training.rewards.protocols import Term, make_protocol

NOISE = ("step_time", "runtime", "per_second", "total_flos", WALL, PROCESSOR)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six samples, of the kinds `name` and `none`."""
    return write_prepared(tmp_path_factory.mktemp("prepared"))


def run(method: str, data: Path, output: Path, *settings: str) -> int:
    sets = [f"data={data}", f"output={output}", *settings]
    arguments = [word for setting in sets for word in ("--set", setting)]
    return cli.main([method, "--config", "debug", *arguments])


def rows(output: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    lines = [json.loads(line) for line in (output / METRICS).read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if not any(word in key for word in NOISE)}
        for line in lines
        if "train_runtime" not in line
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_metrics(
    method: str, prepared: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(method, prepared, whole) == 0
    assert run(method, prepared, cut, "max_steps=1") == 0
    with (cut / BEGUN).open("a", encoding="utf-8") as file:  # what a killed process leaves
        file.write("checkpoint-2\n")
    (cut / "checkpoint-2").mkdir()
    (cut / "checkpoint-2" / "model.safetensors").write_bytes(b"half")
    assert run(method, prepared, cut) == 0
    assert [row["step"] for row in rows(whole)] == [1, 2]
    assert rows(cut) == rows(whole)


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["max_minutes", "max_processor_minutes"])
def test_a_run_ends_with_a_checkpoint_at_the_first_step_after_its_time(
    limit: str, prepared: Path, tmp_path: Path
) -> None:
    assert run("sft", prepared, tmp_path / "run", f"{limit}=1e-6") == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == [1]
    assert (tmp_path / "run" / "checkpoint-1" / COMPLETE).is_file()


@pytest.mark.slow
def test_a_run_leaves_a_model_that_can_be_used_and_tells_what_it_is(
    prepared: Path, tmp_path: Path
) -> None:
    assert run("grpo", prepared, tmp_path / "run", "grpo.shared_pictures=true") == 0
    model = tmp_path / "run" / "model"
    provenance = json.loads((model / RUN_FILE).read_text())
    assert provenance["config"]["grpo"]["protocol"] == "segzero"
    assert len(provenance["data_hash"]) == 64
    assert (model / COMPLETE).is_file()
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
    pipeline = SegZero.load(str(model))
    assert pipeline.identity.name == str(model)
    terms = {key for row in rows(tmp_path / "run") for key in row if key.startswith("rewards/")}
    assert terms >= {"rewards/box_iou/mean", "rewards/refusal/mean"}


@pytest.mark.slow
def test_a_reward_that_raises_stops_the_run_and_is_named(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(answer: object, truth: object) -> float:
        raise KeyError("box")

    monkeypatch.setattr(
        grpo, "protocol_of", lambda config: make_protocol().with_terms(extra=Term(broken))
    )
    assert run("grpo", prepared, tmp_path / "run") == 2
    assert "sample 0, extra: KeyError: 'box'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        pytest.param(["data="], "data: say it", id="no data"),
        pytest.param(["data=/nowhere"], "/nowhere", id="missing data"),
        pytest.param(["model=/nowhere"], "/nowhere", id="missing model"),
        pytest.param(["micro_batch_size=3"], "does not divide the 8", id="batch"),
        pytest.param(["kinds=elephant"], "none of 6 samples is of kind", id="kinds"),
    ],
)
def test_what_cannot_be_trained_is_reported_in_one_line(
    prepared: Path,
    tmp_path: Path,
    settings: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("grpo", prepared, tmp_path / "run", *settings) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("segzero-train: error: ")
    assert complaint in error


def test_data_for_another_size_is_refused(prepared: Path) -> None:
    config = load_config("debug", [f"data={prepared}"])
    with pytest.raises(ConfigError, match="--seen-size 100x100"):
        load_conversations(config, fake_description(), sft_columns)


def test_nothing_behind_the_end_of_an_answer_is_learned() -> None:
    end, newline = 7, 9
    labels = torch.tensor([[-100, 3, 4, end, newline], [-100, -100, 5, end, -100]])
    learned = until_the_end(labels, end)
    assert learned.tolist() == [[-100, 3, 4, end, -100], [-100, -100, 5, end, -100]]


def test_sft_learns_the_end_and_not_the_newline_of_the_template(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def remember(labels: torch.Tensor, end_id: int) -> torch.Tensor:
        learned = until_the_end(labels, end_id)
        seen.append(learned)
        assert (learned == end_id).sum(1).tolist() == [1] * len(labels)
        assert (labels != learned).any()
        return learned

    monkeypatch.setattr("training.finetune.train.until_the_end", remember)
    assert run("sft", prepared, tmp_path / "run", "max_steps=1") == 0
    assert seen


def test_the_answer_to_imitate_is_read_back_as_the_truth() -> None:
    box, points = [1.0, 2.0, 30.0, 40.0], [[5.0, 6.0], [7.0, 8.0]]
    multi = parse_completion(write_answer("multi_object", [box, box], [points, points]))
    assert [prompt.box.xyxy for prompt in multi.prompts] == [tuple(box)] * 2
    single = parse_completion(write_answer("single_object", [box], [points]))
    assert [point.xy for point in single.prompts[0].points] == [(5, 6), (7, 8)]
    assert parse_completion(write_answer("single_object", [], [])).prompts == ()
