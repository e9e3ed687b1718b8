"""Checkpoints: whole or not there; metrics without rows that will be written again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from training.finetune.checkpoints import (
    COMPLETE,
    METRICS,
    RUN_FILE,
    CheckpointError,
    Provenance,
    drop_later_metrics,
    find_fault,
    finish_checkpoint,
    git_revision,
    is_full_disk,
    last_complete,
)

RUN = Provenance(
    method="grpo",
    config={"model": "m", "max_steps": 2, "parts": ("box",)},
    data_hash="d",
    git_revision="g",
    model_hash="h",
    description={"name": "m"},
)


def make_checkpoint(output: Path, step: int, run: Provenance = RUN) -> Path:
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    finish_checkpoint(folder, run)
    return folder


def test_a_checkpoint_tells_what_the_run_is(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 3)
    run = json.loads((folder / RUN_FILE).read_text())
    assert (run["data_hash"], run["git_revision"], run["config"]["model"]) == ("d", "g", "m")
    assert run["versions"].keys() >= {"torch", "trl"}
    assert json.loads((folder / "segzero.json").read_text()) == {"name": "m"}
    assert find_fault(folder) is None


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 9)
    newest = make_checkpoint(tmp_path, 10)
    assert last_complete(tmp_path, RUN) == (newest, [])


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        pytest.param(
            lambda f: (f / "model.safetensors").write_bytes(b"wei"), "has 3 bytes", id="cut short"
        ),
        pytest.param(
            lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing", id="gone"
        ),
        pytest.param(
            lambda f: (f / COMPLETE).unlink(), f"{COMPLETE} is missing", id="never finished"
        ),
        pytest.param(
            lambda f: (f / COMPLETE).write_text('{"mod'), "cannot be read", id="list cut short"
        ),
    ],
)
def test_a_broken_checkpoint_is_removed_and_the_one_before_it_taken(
    tmp_path: Path, harm: object, complaint: str
) -> None:
    whole, broken = make_checkpoint(tmp_path, 1), make_checkpoint(tmp_path, 2)
    harm(broken)
    folder, complaints = last_complete(tmp_path, RUN)
    assert folder == whole
    assert complaint in complaints[0]
    assert not broken.exists()


def test_the_checkpoint_of_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 1)
    other = replace(RUN, config={**RUN.config, "model": "n"})
    with pytest.raises(CheckpointError, match="model: 'm' -> 'n'"):
        last_complete(tmp_path, other)
    with pytest.raises(CheckpointError, match="data_hash"):
        last_complete(tmp_path, replace(RUN, data_hash="e"))
    assert folder.exists()


def test_a_run_may_be_made_longer(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 1)
    longer = replace(RUN, config={**RUN.config, "max_steps": 5})
    assert last_complete(tmp_path, longer)[0] == folder


def test_a_full_disk_is_reported_and_leaves_no_whole_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / RUN_FILE).symlink_to("/dev/full")  # every write to it says: no space left
    with pytest.raises(CheckpointError, match=r"No space left.*GB are free.*make room"):
        finish_checkpoint(folder, RUN)
    assert find_fault(folder) == f"{COMPLETE} is missing"


def test_rows_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    rows = ['{"step": 1}', '{"step": 2}', '{"step": 2, "train_runtime": 1.0}', '{"step": 3, "re']
    (tmp_path / METRICS).write_text("\n".join(rows))
    drop_later_metrics(tmp_path, 1)
    assert (tmp_path / METRICS).read_text() == '{"step": 1}\n'


def test_outside_a_checkout_there_is_no_revision(tmp_path: Path) -> None:
    assert git_revision(tmp_path) == ""


# Only open files are written to /dev/full: a writer that renames would put a file in its place.
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda full: torch.save(torch.zeros(99_999), full), id="torch"),
        pytest.param(lambda full: full.write(b"x" * 99_999), id="python"),
    ],
)
def test_a_full_disk_is_known_by_the_error_of_the_writer(write: object) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        with pytest.raises((OSError, RuntimeError)) as caught:
            write(full)
        assert is_full_disk(caught.value)


def test_a_full_disk_is_known_by_the_error_of_safetensors() -> None:
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert is_full_disk(SafetensorError(text))


def test_a_file_that_was_cut_short_is_no_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.pt"
    torch.save(torch.zeros(99_999), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RuntimeError) as caught:
        torch.load(path, weights_only=True)
    assert not is_full_disk(caught.value)


def test_another_error_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "none" / "file").write_bytes(b"")
    assert not is_full_disk(caught.value)
    assert not is_full_disk(RuntimeError("CUDA out of memory"))
