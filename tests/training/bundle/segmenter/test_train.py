from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segzero_core.segmenter.sam2 import load_segmenter
from segzero_core.types import Box, ObjectPrompt, Point
from training.bundle.loop import CHECKPOINT
from training.bundle.segmenter.data import read_scene
from training.bundle.segmenter.model import SIZES, build_model, model_config
from training.bundle.segmenter.train import (
    Phase,
    Settings,
    batches,
    main,
    new_run,
    train,
)

TINY = Settings(
    size="tiny",
    minutes=1.0,
    phases=(Phase(0.0, 64, 2),),
    validate_scenes=1,
    max_steps=2,
)


def test_two_steps_train_validate_and_export_what_the_library_loads(scenes: Path, tmp_path: Path):
    out = tmp_path / "out"
    run = train([scenes], scenes, out, tmp_path / "work", TINY)
    assert run.step == 2
    loaded = load_segmenter(str(out))
    image = read_scene(scenes / "000000").image
    prompt = ObjectPrompt(Box(10, 10, 70, 70), (Point(40, 40),))
    answer = loaded.segmenter.segment(loaded.encoder.encode(image), [prompt])
    assert answer.masks.shape == (1, 120, 160)
    log = (tmp_path / "work" / "log.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in log]
    assert kinds == ["validation"]


def test_the_export_is_float16_and_holds_the_memory_modules(scenes: Path, tmp_path: Path):
    train([scenes], None, tmp_path / "out", tmp_path / "work", TINY)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float16"}
    assert any(name.startswith("memory_attention.") for name in weights)
    assert any(name.startswith("memory_encoder.") for name in weights)


def test_training_changes_the_image_modules_and_leaves_the_memory_alone(
    scenes: Path, tmp_path: Path
):
    before = {name: p.clone() for name, p in new_run(TINY).model.named_parameters()}
    run = train([scenes], None, tmp_path / "out", tmp_path / "work", replace(TINY, max_steps=3))
    changed = {n for n, p in run.model.named_parameters() if not torch.equal(p, before[n])}
    assert any(name.startswith("image_encoder.trunk.") for name in changed)
    assert not any(name.startswith("memory_") for name in changed)


def test_an_interrupted_run_goes_on_from_its_checkpoint(scenes: Path, tmp_path: Path):
    work = tmp_path / "work"
    train([scenes], None, tmp_path / "out", work, TINY)
    saved = new_run(TINY)
    saved.load(work / CHECKPOINT)
    run = train([scenes], None, tmp_path / "out", work, replace(TINY, max_steps=3))
    assert saved.step == 2
    assert run.step == 3
    assert run.seconds > saved.seconds > 0
    assert run.optimizer.state_dict()["state"][0]["step"] == 3


def test_the_same_seed_gives_the_same_start_and_the_same_batches(scenes: Path):
    # The learning rate follows the clock, so the trained weights themselves may differ.
    first, second = (new_run(TINY) for _ in range(2))
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    seen, again = (next(batches([scenes], TINY, run)) for run in (first, second))
    assert np.array_equal(seen.images, again.images)
    assert np.array_equal(seen.points, again.points)


def test_a_run_begins_from_exported_weights_in_bfloat16_with_close_ups(
    scenes: Path, tmp_path: Path
):
    train([scenes], None, tmp_path / "first", tmp_path / "work", TINY)
    settings = replace(TINY, init=str(tmp_path / "first"), bf16=True, close_ups=1.0)
    begun = new_run(settings)
    weights = load_file(tmp_path / "first" / "model.safetensors")
    name = "image_encoder.trunk.pos_embed"
    assert torch.equal(begun.model.state_dict()[name], weights[name].float())
    run = train([scenes], None, tmp_path / "second", tmp_path / "work2", settings)
    assert run.step == 2
    assert np.isfinite(run.metrics["loss"]).all()


def test_the_command_line_trains_and_exports(scenes: Path, tmp_path: Path):
    common = ("--work", str(tmp_path / "work"), "--size", "tiny")
    learn = ("train", "--data", str(scenes), "--out", str(tmp_path / "a"), "--max-steps", "1")
    code = main([*learn, "--sides", "0:64:2", *common])
    assert code == 0
    assert main(["export", "--out", str(tmp_path / "b"), *common]) == 0
    assert (tmp_path / "b" / "config.yaml").read_text() == (
        tmp_path / "a" / "config.yaml"
    ).read_text()


def test_a_folder_without_scenes_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        train([tmp_path], None, tmp_path / "out", tmp_path / "work", TINY)


def test_the_bundled_size_keeps_its_budget():
    model = build_model(model_config(SIZES["tabletop"]))
    assert sum(parameter.numel() for parameter in model.parameters()) < 6_000_000
