"""A training of the small reasoner in small, and its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from segzero_core.checkpoints.weights import weights_hash
from training.bundle.reasoner.train import main as reasoner


@pytest.mark.slow
def test_all_stages_train_resume_and_export(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ["--run", str(run), "--data", str(scenes), "--batch", "2", "--workers", "0"]
    common += ["--log-every", "1", "--save-every", "1", "--questions", "2"]
    assert reasoner(["train", *common, "--stage", "dense", "--steps", "2"]) == 0
    init = ["--init", str(run / "dense.safetensors")]
    assert reasoner(["train", *common, *init, "--steps", "1"]) == 0
    assert reasoner(["train", *common, *init, "--steps", "2"]) == 0
    choices = ["--stage", "choices", "--init", str(run / "text.safetensors")]
    assert reasoner(["train", *common, *choices, "--steps", "1"]) == 0
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("dense", 1),
        ("dense", 2),
        ("text", 1),
        ("text", 2),
        ("choices", 1),
    ]
    assert "numbers" not in rows[-1]
    assert all(np.isfinite(row["loss"]) for row in rows)
    out = tmp_path / "model"
    assert reasoner(["export", "--run", str(run), "--out", str(out)]) == 0
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) < 10_000_000
    assert json.loads((out / "segzero.json").read_text())["seen_size_wh"] == [336, 336]


def test_the_average_of_checkpoints_is_their_mean(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, value in zip(paths, (1.0, 2.0, 6.0), strict=True):
        save_file({"model.weight": torch.full((2,), value)}, path)
    out = tmp_path / "mean" / "text.safetensors"
    assert reasoner(["average", "--checkpoints", *map(str, paths), "--out", str(out)]) == 0
    assert load_file(out)["model.weight"].tolist() == [3.0, 3.0]
    save_file({"model.other": torch.zeros(2)}, paths[0])
    with pytest.raises(SystemExit, match="different models"):
        reasoner(["average", "--checkpoints", *map(str, paths), "--out", str(out)])


def test_checkpoints_become_a_folder_like_the_one_they_began_from(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    (base / "segzero.json").write_text("{}")
    save_file({"model.weight": torch.zeros(2).half()}, base / "model.safetensors")
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for path, value in zip(paths, (1.0, 2.0), strict=True):
        save_file({"model.weight": torch.full((2,), value)}, path)
    command = ["repack", "--checkpoints", *map(str, paths), "--init", str(base), "--out", str(out)]
    assert reasoner(command) == 0
    weights = load_file(out / "model.safetensors")["model.weight"]
    assert weights.dtype == torch.float16
    assert weights.tolist() == [1.5, 1.5]
    assert (out / "segzero.json").is_file()
    assert len(weights_hash([out / "model.safetensors"])) == 16  # as SHA256SUMS says
    save_file({"model.other": torch.zeros(2)}, base / "model.safetensors")
    with pytest.raises(SystemExit, match="other weights"):
        reasoner(command)
