"""Training of the memory: what changes, what must not, and the data that it learns from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segzero_core.checkpoints.sam2_checkpoint import find_sam2, load_sam2, read_tracking_facts
from segzero_core.segmenter.sam2 import load_segmenter
from segzero_core.tracking.tracker import Sam2Tracker
from segzero_core.types import Box, ObjectPrompt, Point, Segmentation
from training.bundle.loop import CHECKPOINT
from training.bundle.segmenter.export import export as export_untrained
from training.bundle.segmenter.model import TINY, build_model, model_config
from training.bundle.tracker.data import draw_sequences, feature_file, find_clips, prepare
from training.bundle.tracker.loss import Prediction, compute_loss, track
from training.bundle.tracker.train import TRAINED, Phase, Settings, main, new_run, train
from worlds.tabletop.clips import Clip, ClipEvent, ClipObject, load_frame, save_clip
from worlds.tabletop.clips import main as film

FRAMES = 6
SIDE = 64
SHORT = Settings(
    minutes=5.0,
    phases=(Phase(0.0, SIDE, 3, 2),),
    memories=3,
    mark_steps=2,
    max_steps=2,
)


class Ball:
    """An image as the camera would take it."""

    def __init__(self, frame: int, shade: int) -> None:
        self.color = np.full((96, 128, 3), (120 + shade, 90, 60), np.uint8)
        self.instances = np.zeros((96, 128), np.uint16)
        if frame != 3:  # hidden for a moment
            cv2.circle(self.color, (40 + 5 * frame, 50), 16, (200, 30, 30), -1)
            cv2.circle(self.instances, (40 + 5 * frame, 50), 16, 2, -1)


def write_clips(folder: Path) -> Path:
    """Write three clips of a ball that moves in front of a wall."""
    for index in range(3):
        objects = (ClipObject(1, "mug", "blue"), ClipObject(2, "ball", "red"))
        clip = Clip(index, FRAMES, 5.0, 2, objects, (ClipEvent("occlude", 0, FRAMES),))
        images = (Ball(frame, 10 * index) for frame in range(FRAMES))
        save_clip(folder / f"{index:06d}", clip, images)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base") / "segmenter"
    export_untrained(build_model(model_config(TINY)), TINY, folder)
    return folder


@pytest.fixture(scope="module")
def trained(clips: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    found = find_clips([clips])
    train(found, found[:1], base, root / "out", root / "work", SHORT)
    return root


def test_only_the_memory_changes_and_the_rest_is_the_same_bit_for_bit(
    base: Path, trained: Path
) -> None:
    before = load_file(base / "model.safetensors")
    after = load_file(trained / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {
        name
        for name, tensor in before.items()
        if tensor.shape != after[name].shape or not torch.equal(tensor, after[name])
    }
    assert all(name.startswith(TRAINED) for name in changed)
    for part in ("memory_attention.", "memory_encoder.", "maskmem_tpos_enc"):
        assert any(name.startswith(part) for name in changed)
    assert {tensor.dtype for tensor in after.values()} == {torch.float16}


def test_masks_of_single_images_are_the_same_bit_for_bit(base: Path, trained: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    prompts = [
        ObjectPrompt(Box(10, 10, 70, 70), (Point(40, 40),)),
        ObjectPrompt(Box(50, 20, 120, 90), ()),
    ]
    answers = []
    for folder in (base, trained / "out"):
        loaded = load_segmenter(str(folder))
        answers.append(loaded.segmenter.segment(loaded.encoder.encode(image), prompts))
    assert (answers[0].masks == answers[1].masks).all()
    assert (answers[0].scores == answers[1].scores).all()


def test_nothing_that_is_trained_is_read_for_the_mask_of_a_single_image(base: Path) -> None:
    """Stronger than any training: put NaN into all of it."""
    model = load_sam2(find_sam2(str(base)), torch.device("cpu"))
    loaded = load_segmenter(str(base))
    image = np.random.default_rng(2).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    prompts = [ObjectPrompt(Box(10, 10, 70, 70), (Point(40, 40),))]
    before = loaded.segmenter.segment(loaded.encoder.encode(image), prompts)
    touched = 0
    for name, parameter in loaded.segmenter.model.named_parameters():
        if name.startswith(TRAINED):
            parameter.fill_(float("nan"))
            touched += 1
    assert touched > 20
    after = loaded.segmenter.segment(loaded.encoder.encode(image), prompts)
    assert (before.masks == after.masks).all()
    assert (before.scores == after.scores).all()
    names = [name for name, _ in model.named_parameters()]
    assert all(any(name.startswith(part) for name in names) for part in TRAINED)


def test_the_export_says_what_it_is_and_the_library_follows_with_it(
    trained: Path, clips: Path
) -> None:
    folder = trained / "out"
    facts = read_tracking_facts(folder / "config.yaml")
    assert (facts.memory, facts.side, facts.careful) == ("trained", SIDE, True)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (folder / "SHA256SUMS").read_text() == f"{digest}  model.safetensors\n"
    tracker = Sam2Tracker.load(str(folder))
    color, instances = load_frame(clips / "000000", 0)
    truth = (instances == 2)[None]
    tracker.start(color, Segmentation(truth, np.ones(1, np.float32)))
    tracks = tracker.step(load_frame(clips / "000000", 1)[0]).tracks
    assert tracks[0].mask.shape == (96, 128)


def test_a_segmenter_says_that_its_memory_is_not_trained(base: Path) -> None:
    assert read_tracking_facts(base / "config.yaml").memory == "untrained"


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    clips: Path, base: Path, tmp_path: Path
) -> None:
    found = find_clips([clips])
    first = train(found, [], base, tmp_path / "out", tmp_path / "work", SHORT)
    again = replace(SHORT, max_steps=3)
    second = train(found, [], base, tmp_path / "out", tmp_path / "work", again)
    assert (first.step, second.step) == (2, 3)
    assert second.seconds > first.seconds > 0
    lines = (tmp_path / "work" / "log.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[0] == "begun"
    assert "resumed" in kinds
    assert (tmp_path / "work" / CHECKPOINT).exists()


def test_a_training_step_moves_the_memory_alone(clips: Path, base: Path) -> None:
    run = new_run(base, SHORT)
    found = find_clips([clips])
    prepare(run.model, found, SIDE)
    rng = np.random.default_rng(0)
    sequences = draw_sequences(found[:2], SIDE, length=3, objects=1, rng=rng)
    assert sequences is not None
    loss, metrics = compute_loss(track(run.model, sequences), sequences)
    loss.backward()
    moved = {name for name, p in run.model.named_parameters() if p.grad is not None}
    assert moved
    assert all(name.startswith(TRAINED) for name in moved)
    assert {"iou", "object_right", "mask_loss"} <= metrics.keys()


def test_a_right_prediction_costs_less_than_a_wrong_one(clips: Path, base: Path) -> None:
    run = new_run(base, SHORT)
    found = find_clips([clips])
    prepare(run.model, found, SIDE)
    rng = np.random.default_rng(0)
    sequences = draw_sequences(found, SIDE, length=2, objects=1, rng=rng)
    assert sequences is not None
    truth = sequences.truth[1][:, None, 2::4, 2::4].float()
    count = len(truth)
    seen = sequences.truth[1].flatten(1).any(1).float() * 20 - 10
    losses = []
    for sign in (1, -1):
        masks = (sign * (truth * 20 - 10)).expand(-1, 3, -1, -1)
        guess = torch.full((count, 3), 1.0 if sign > 0 else 0.0)
        loss, _ = compute_loss([Prediction(masks, guess, sign * seen)], sequences)
        losses.append(float(loss))
    assert losses[0] < 0.5 < losses[1]


def test_a_sequence_begins_with_an_object_that_can_be_seen(clips: Path, base: Path) -> None:
    found = find_clips([clips])
    prepare(new_run(base, SHORT).model, found, SIDE)
    rng = np.random.default_rng(0)
    for _ in range(20):
        sequences = draw_sequences(found, SIDE, length=3, objects=2, rng=rng)
        if sequences is not None:
            assert sequences.truth[0].flatten(1).any(1).all()
            assert sequences.truth.shape[:2] == (3, len(sequences.clip))


def test_features_are_made_once(clips: Path, base: Path) -> None:
    found = find_clips([clips])
    model = new_run(base, SHORT).model
    prepare(model, found, SIDE)
    before = feature_file(found[0], SIDE).stat().st_mtime_ns
    prepare(model, found, SIDE)
    assert feature_file(found[0], SIDE).stat().st_mtime_ns == before


def test_sequences_longer_than_the_clips_are_refused(clips: Path, base: Path) -> None:
    found = find_clips([clips])
    prepare(new_run(base, SHORT).model, found, SIDE)
    with pytest.raises(ValueError, match="too short for sequences of 7"):
        draw_sequences(found, SIDE, length=7, objects=1, rng=np.random.default_rng(0))


def test_a_folder_without_clips_is_refused(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--data", str(tmp_path), "--base", str(base), "--out", str(tmp_path)])
    assert "no clips in" in capsys.readouterr().err


def test_a_clip_is_made_again_from_its_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        command = ["--seed", "5", "--count", "1", "--frames", "3", "--rate", "5"]
        assert film([*command, "--out", str(tmp_path / name)]) == 0
    for frame in range(3):
        first, second = (load_frame(tmp_path / name / "000000", frame) for name in ("a", "b"))
        assert (first[0] == second[0]).all()
        assert (first[1] == second[1]).all()
