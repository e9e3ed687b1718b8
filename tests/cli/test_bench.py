"""`segzero bench`: that both flows do the same work, and that a missed target is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segzero_cli.bench import questions, report, roofline
from segzero_cli.bench.flows import STAGES, OurFlow, PlainFlow, Run
from segzero_core import ConfigError, SegZero
from segzero_core.images.files import save_image


def answered(first_mask_ms: float, completion: str = "x", pixels: int = 50) -> Run:
    masks = np.zeros((1, 10, 10), np.bool_)
    masks.flat[:pixels] = True
    ms = dict.fromkeys(STAGES, 1.0) | {
        "first_mask": first_mask_ms,
        "reasoner": 11.0,
        "first_token": 1.0,
    }
    return Run(completion, masks, ms, tokens=11)


def runs(count: int = 20, second_ms: float = 10.0, **ours: Any) -> dict[str, list[Run]]:
    return {
        "plain first": [answered(50.0)] * count,
        "ours first": [answered(20.0, **ours)] * count,
        "plain second": [answered(50.0)] * count,
        "ours second": [answered(second_ms)] * count,
    }


def test_a_summary_has_medians_and_their_ratios() -> None:
    found = report.summarize(runs())

    assert (found["first_ratio"], found["second_ratio"]) == (2.5, 5.0)
    assert found["flows"]["ours first"]["tokens_per_s"] == 1000.0
    assert found["flows"]["plain first"]["first_mask"] == {"p50": 50.0, "p95": 50.0}
    assert report.misses(found) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(runs(count=19), "only 19 runs", id="too few"),
        pytest.param(runs(completion="y"), "20 completions differ", id="another completion"),
        pytest.param(runs(pixels=40), "masks agree by 0.800", id="another mask"),
        pytest.param(runs(second_ms=20.0), "second query 2.50", id="slow second"),
        pytest.param(
            runs() | {"plain first": [answered(30.0)] * 20}, "first query 1.50", id="slow first"
        ),
    ],
)
def test_a_missed_target_is_named(given: dict[str, list[Run]], words: str) -> None:
    (missed,) = report.misses(report.summarize(given))

    assert missed.startswith(words)


def test_a_table_has_a_row_for_every_flow() -> None:
    lines = report.table(report.summarize(runs())).splitlines()

    assert len(lines) == 6
    assert {line.count("|") for line in lines} == {len(STAGES) + 3}
    assert "20 (20)" in lines[3]


def test_a_plot_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report.plot(report.summarize(runs()), tmp_path / "plot.png")

    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_both_flows_give_the_same_answer(tiny_model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    plain = PlainFlow(str(tiny_model), "cpu", "float32")
    ours = OurFlow(SegZero.load(str(tiny_model), device="cpu"), "cpu")

    a, b = plain.ask(image, "the red mug"), ours.ask(image, "the red mug")

    assert a.completion == b.completion
    assert (a.masks != b.masks).mean() < 0.001
    assert a.tokens == b.tokens
    for run in (a, b):
        assert set(run.ms) == set(STAGES)
        assert 0 < run.ms["first_token"] <= run.ms["reasoner"] <= run.ms["total"]
        assert run.ms["first_mask"] <= run.ms["total"]


def test_masks_are_compared_also_where_one_flow_finds_nothing() -> None:
    nothing = replace(answered(5.0), masks=np.zeros((0, 10, 10), np.bool_))
    one_empty = runs() | {"ours first": [nothing] * 20}
    both_empty = one_empty | {"plain first": [nothing] * 20}

    assert report.summarize(one_empty)["least_mask_iou"] == 0.0
    assert report.summarize(both_empty)["least_mask_iou"] == 1.0


def test_the_weights_of_one_token_are_counted(tiny_model: Path) -> None:
    model = PlainFlow(str(tiny_model), "cpu", "float32").model
    tower = model.model.language_model
    everything = sum(p.numel() for p in (*tower.parameters(), *model.lm_head.parameters()))
    embedding = tower.embed_tokens.weight.numel()

    assert roofline.bytes_per_token(model) == 4 * (everything - embedding)


def test_the_work_of_an_encoder_is_counted() -> None:
    class Encoder(torch.nn.Module):
        image_size = 8

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 5, 1, bias=False)

        def forward_image(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    assert roofline.encoder_flop(Encoder()) == 2 * 3 * 5 * 8 * 8


def test_the_command_measures_and_writes(
    run: Callable, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "_READ_BYTES", {"cpu": 1 << 16})
    monkeypatch.setattr(questions, "_rendered", lambda _count: [])
    monkeypatch.setattr(roofline, "_MATRIX_SIDE", {"cpu": 16})
    ran = run("bench", "--model", tiny_model, "--device", "cpu", "--runs", 2, "--backend",
               "torch", "--out", tmp_path / "bench.json", "--check")  # fmt: skip

    assert ran.code == 1
    assert "missed: only 2 runs" in ran.out
    assert ran.out.splitlines()[-1].startswith("first mask ")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["identical_completions"] == found["compared"] == 4
    assert found["least_mask_iou"] >= 0.99
    assert found["limits"]["tokens_per_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "positive"),
        (["--out", "/no/such/folder/x.json"], "no folder"),
        (["--image", "one.png"], "two images or more"),
        (["--backend", "openvino"], "none of auto"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_one_line(
    run: Callable, tiny_model: Path, arguments: list[str], message: str
) -> None:
    ran = run("bench", "--model", tiny_model, "--device", "cpu", *arguments)

    assert ran.code == 2
    assert message in ran.err


def test_queries_about_named_images_alternate(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(2)]
    for path in paths:
        save_image(path, np.zeros((4, 6, 3), np.uint8))

    asked = questions.load_questions(paths, ["a", "b", "c"], 4)

    assert [(first, second) for _, first, second in asked] == [("a", "b"), ("b", "c")]
    with pytest.raises(ConfigError):
        questions.load_questions([], None, 4)


@pytest.mark.parametrize("rendered", [True, False])
def test_without_named_images_there_are_some(
    rendered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not rendered:
        monkeypatch.setattr(questions, "_rendered", lambda _count: [])

    asked = questions.load_questions(None, None, 3)

    assert len(asked) >= 2
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image, _, _ in asked)
