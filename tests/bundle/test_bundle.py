"""The committed weights: whole, small enough, loadable by plain transformers, and right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from segzero_cli.demo.clip import Shot, read_clip
from segzero_core import SegZero
from segzero_core.checkpoints.weights import file_digest, read_sums
from segzero_core.geometry import MATCH_IOU, mask_iou
from segzero_core.images.encodings import array_from_msg

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "tabletop"
PARTS = ("reasoner", "segmenter")


@pytest.fixture(scope="module")
def model() -> SegZero:
    return SegZero.load("tabletop", device="cpu")


def image(shot: Shot) -> np.ndarray:
    return array_from_msg(shot.camera["color"])


@pytest.fixture(scope="module")
def shots() -> dict[str, Shot]:
    return {shot.question.kind: shot for shot in read_clip(ROOT / "demo" / "clip.mcap")}


def test_the_bundle_keeps_within_its_limits() -> None:
    parameters = 0
    for part in PARTS:
        with safe_open(BUNDLE / part / "model.safetensors", "pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - no dictionary
                piece = weights.get_slice(key)
                assert piece.get_dtype() == "F16", key
                parameters += int(np.prod(piece.get_shape()))
    size = sum(p.stat().st_size for p in BUNDLE.rglob("*") if p.is_file())
    assert parameters <= 18_000_000
    assert size <= 40_000_000


@pytest.mark.parametrize("part", PARTS)
def test_the_weights_are_those_that_were_listed(part: str) -> None:
    sums = read_sums(BUNDLE / part)
    assert sums["model.safetensors"] == file_digest(BUNDLE / part / "model.safetensors")


def test_plain_transformers_loads_the_reasoner() -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(BUNDLE / "reasoner", local_files_only=True)
    AutoProcessor.from_pretrained(BUNDLE / "reasoner", local_files_only=True)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"


@pytest.mark.parametrize("kind", ["name", "attribute", "relation", "function", "many", "none"])
def test_each_question_of_the_clip_is_answered_rightly(
    model: SegZero, shots: dict[str, Shot], kind: str
) -> None:
    shot = shots[kind]
    result = model.segment(image(shot), shot.question.text)
    assert mask_iou(result.segmentation.union(), shot.truth()) >= MATCH_IOU
    assert bool(result.reasoning.prompts) == bool(shot.question.ids)
    assert result.reasoning.thinking.startswith("The question asks for")


def test_the_single_object_form_gives_one_box_with_two_points(shots: dict[str, Shot]) -> None:
    model = SegZero.load("tabletop", device="cpu", template="single_object")
    shot = shots["name"]
    result = model.segment(image(shot), shot.question.text)
    (prompt,) = result.reasoning.prompts
    assert len(prompt.points) == 2
    assert mask_iou(result.segmentation.union(), shot.truth()) >= MATCH_IOU


def test_the_same_question_gets_the_same_answer(model: SegZero, shots: dict[str, Shot]) -> None:
    shot = shots["name"]
    first, second = (model.segment(image(shot), shot.question.text) for _ in range(2))
    assert first.reasoning.completion == second.reasoning.completion
    np.testing.assert_array_equal(first.segmentation.masks, second.segmentation.masks)


@pytest.mark.parametrize("query", ["the giraffe", "my violin", "find the stapler"])
def test_what_it_does_not_know_is_answered_with_nothing_and_said(
    model: SegZero, shots: dict[str, Shot], query: str
) -> None:
    result = model.segment(image(shots["name"]), query)
    assert len(result.segmentation.masks) == 0
    assert "do not know" in result.reasoning.thinking or "no " in result.reasoning.thinking


@pytest.mark.slow
@pytest.mark.ros
def test_the_demo_as_a_user_runs_it_is_all_right(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "QUERY"}
    done = subprocess.run(
        [sys.executable, "-m", "segzero_cli", "demo", "--out", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 right" in done.stdout
    assert (tmp_path / "overlay.png").is_file()
    assert (tmp_path / "mask.png").is_file()
