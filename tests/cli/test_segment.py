"""`segzero segment` with a tiny model of the real kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_models import save_tiny_reasoner


@pytest.fixture
def ask(run: Callable, tiny_model: Path, image_file: Path) -> Callable:
    def call(*arguments: object, query: str = "the red mug", model: Path = tiny_model) -> object:
        return run("segment", image_file, query, "--model", model, "--device", "cpu", *arguments)

    return call


def test_the_reasoning_and_the_result_are_shown(ask: Callable) -> None:
    ran = ask()

    assert ran.code == 0
    assert ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0] == "I see a red mug and a blue one; the red one is meant."
    assert lines[1].startswith('[{"bbox_2d"')
    assert lines[2].startswith("object 1: box [10, 20, 50, 60], ")
    assert " tokens)" in lines[3]


def test_overlay_and_mask_are_written(ask: Callable, image_file: Path, tmp_path: Path) -> None:
    ran = ask("--out", tmp_path / "overlay.png", "--mask", tmp_path / "mask.png", "--json")

    assert ran.code == 0
    mask = np.array(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (60, 80)
    assert set(np.unique(mask)) <= {0, 255}
    assert (mask > 0).sum() == json.loads(ran.out)["objects"][0]["area_px"]
    overlay = np.array(Image.open(tmp_path / "overlay.png"))
    image = np.array(Image.open(image_file))
    assert (overlay[:60] != image).any()
    assert overlay.shape[0] > 60  # question and thinking stand below the image
    assert overlay.shape[1] == 80


def test_json_goes_to_stdout_and_the_reasoning_to_stderr(ask: Callable) -> None:
    ran = ask("--json")
    result = json.loads(ran.out)

    assert ran.err.startswith("I see a red mug")
    assert result["query"] == "the red mug"
    assert result["thinking"].startswith("I see")
    assert result["completion"].endswith("</answer>")
    assert result["size_wh"] == [80, 60]
    assert result["objects"][0]["box_xyxy"] == [10, 20, 50, 60]
    assert result["objects"][0]["points"] == [[30, 40]]
    assert result["timings"]["tokens"] > 20
    assert len(result["model"]["weights_hash"]) == 16


@pytest.fixture
def other_model(tiny_model: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A model that says something else."""

    def make(reply: str) -> Path:
        shutil.copytree(tiny_model / "segmenter", tmp_path / "segmenter")
        save_tiny_reasoner(tmp_path / "reasoner", reply)
        return tmp_path

    return make


def test_nothing_matched_is_said_and_is_no_failure(
    ask: Callable, other_model: Callable, tmp_path: Path
) -> None:
    model = other_model("<think>No unicorn is here.</think><answer>[]</answer>")

    ran = ask("--mask", tmp_path / "mask.png", model=model, query="a unicorn")

    assert ran.code == 0
    assert "nothing in the image matches 'a unicorn'" in ran.out
    assert not np.array(Image.open(tmp_path / "mask.png")).any()


@pytest.mark.parametrize(
    ("reply", "message"),
    [("<think>Hm.</think> I do not know", "no <answer>"), ("<answer>[{", "never closed")],
)
def test_an_unusable_answer_is_a_failure(
    ask: Callable, other_model: Callable, reply: str, message: str
) -> None:
    ran = ask(model=other_model(reply))

    assert ran.code == 2
    assert ran.err.startswith("segzero: error: ")
    assert message in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "empty"),
        ("x" * 100_000, "100000 characters"),
        ("mug</answer>", "markup"),
        ("mug<|im_end|>", "markup"),
    ],
)
def test_a_bad_query_is_one_line(ask: Callable, query: str, message: str) -> None:
    ran = ask(query=query)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("segzero: error: query: ")
    assert message in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("data", [b"", b"no image"])
def test_an_unreadable_image_is_one_line(ask: Callable, image_file: Path, data: bytes) -> None:
    image_file.write_bytes(data)

    ran = ask()

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("segzero: error: image ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "/no/such/model"], "no such folder"),
        (["--model", "nobody/nothing"], "cannot be fetched"),
        (["--segmenter", "/no/such/segmenter"], "no such folder"),
        (["--device", "cuda:77"], "device"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--out", "/no/such/folder/a.png"], "no folder"),
        (["--mask", "mask.xyz"], "format; use .png"),
    ],
)
def test_a_wrong_option_is_one_line(ask: Callable, arguments: list[str], message: str) -> None:
    ran = ask(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.startswith("segzero: error: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("part", ["reasoner", "segmenter"])
def test_a_damaged_weights_file_is_one_line(
    ask: Callable, tiny_model: Path, tmp_path: Path, part: str
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = model / part / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    ran = ask(model=model)

    assert (ran.code, ran.out) == (2, "")
    assert str(model / part) in ran.err
    assert ran.err.startswith("segzero: error: ")
    assert ran.err.count("\n") == 1
