"""Text read by ONNX Runtime, against torch."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch

from segzero_core.decoding.speculative import NgramProposer, SpeculativeStepper
from segzero_core.decoding.stepper import Prefill
from segzero_core.qwen_vl.language_model import KV_CACHE_STEP, LanguageModel, multimodal_positions
from segzero_core.qwen_vl.onnx_language_model import (
    OnnxLanguageModel,
    choose_language_model,
    why_not,
)
from tests.core.qwen_vl.test_language_model import GRID_WH, prompt, random_model

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLOSE = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model()


def read_prompt(language: LanguageModel, ids: list[int]) -> int:
    """Read a prompt with an image; return the position of the token behind it."""
    language.reserve(len(ids) + 10)
    positions = multimodal_positions(ids, language.image_token, GRID_WH)
    language.prefill(language.embed(ids), positions, 0)
    return int(positions[0, -1]) + 1


@pytest.fixture
def pair(model: Any) -> tuple[LanguageModel, OnnxLanguageModel, int]:
    """Torch's and ONNX Runtime's behind the same prompt, and the position there."""
    torch_model, onnx_model = LanguageModel(model), OnnxLanguageModel(model)
    with torch.inference_mode():
        assert read_prompt(torch_model, prompt(model)) == read_prompt(onnx_model, prompt(model))
        return torch_model, onnx_model, read_prompt(torch_model, prompt(model))


@torch.inference_mode()
def test_single_tokens_and_several_get_torchs_logits_and_leave_its_kv_cache(
    model: Any, pair: tuple[LanguageModel, OnnxLanguageModel, int]
) -> None:
    by_torch, by_onnx, position = pair
    start = len(prompt(model))
    assert model.config.text_config.num_key_value_heads < 4
    assert model.model.language_model.layers[0].self_attn.k_proj.bias.abs().max() > 0.1

    for tokens in ([9], [30], [5, 6, 7], [31], list(range(40, 60))):
        by_torch.reserve(start + len(tokens))
        by_onnx.reserve(start + len(tokens))
        expected = by_torch.forward(tokens, position, start)
        torch.testing.assert_close(by_onnx.forward(tokens, position, start), expected, **CLOSE)
        position, start = position + len(tokens), start + len(tokens)

    assert by_onnx.backend == "onnxruntime"
    for found, cached in zip(by_onnx.kv_cache, by_torch.kv_cache, strict=True):
        torch.testing.assert_close(found, cached, **CLOSE)


@torch.inference_mode()
def test_a_step_and_a_text_without_anything_before_it_get_torchs_logits(
    pair: tuple[LanguageModel, OnnxLanguageModel, int],
) -> None:
    by_torch, by_onnx, position = pair

    for start in (0, 7):
        expected = by_torch.forward([9], position, start)[0]
        torch.testing.assert_close(by_onnx.forward([9], position, start)[0], expected, **CLOSE)
    expected = by_torch.forward([5, 6, 7], 0, 0)
    torch.testing.assert_close(by_onnx.forward([5, 6, 7], 0, 0), expected, **CLOSE)


@torch.inference_mode()
def test_the_kv_cache_may_move_between_two_tokens(
    model: Any, pair: tuple[LanguageModel, OnnxLanguageModel, int]
) -> None:
    by_torch, by_onnx, position = pair
    start = len(prompt(model))
    expected = [by_torch.forward([t], position + i, start + i)[0] for i, t in enumerate([9, 10])]

    torch.testing.assert_close(by_onnx.forward([9], position, start)[0], expected[0], **CLOSE)
    by_onnx.reserve(KV_CACHE_STEP + 1)
    assert by_onnx.capacity == 2 * KV_CACHE_STEP
    torch.testing.assert_close(
        by_onnx.forward([10], position + 1, start + 1)[0], expected[1], **CLOSE
    )


@torch.inference_mode()
def test_torch_goes_on_where_the_runtime_fails(
    model: Any,
    pair: tuple[LanguageModel, OnnxLanguageModel, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    by_torch, by_onnx, position = pair
    start = len(prompt(model))
    expected = [
        by_torch.forward([t], position + i, start + i)[0] for i, t in enumerate([9, 10, 11])
    ]
    found = [by_onnx.forward([9], position, start)[0]]

    def fail(*_: Any) -> None:
        raise RuntimeError("lost")

    monkeypatch.setattr(by_onnx, "_run", fail)
    found += [by_onnx.forward([t], position + i, start + i)[0] for i, t in ((1, 10), (2, 11))]
    by_onnx.reserve(KV_CACHE_STEP + 1)

    torch.testing.assert_close(found, expected, **CLOSE)
    assert by_onnx.backend == "torch"
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "onnxruntime failed, torch goes on with the text: lost"
    ]


@torch.inference_mode()
def test_nothing_is_written_beyond_the_kv_cache(model: Any) -> None:
    language = OnnxLanguageModel(model)
    last = language.capacity - 1

    language._run([9], 5, last)
    for position, start in ((5, last), (last, 5)):
        with pytest.raises(ValueError, match="no room"):
            language._run([9, 10], position, start)


@torch.inference_mode()
def test_speculative_decoding_gives_the_tokens_of_torch(model: Any) -> None:
    by_torch, by_onnx = LanguageModel(model), OnnxLanguageModel(model)
    ids = list(range(20, 40))
    steppers = (
        SpeculativeStepper(by_torch, None),
        SpeculativeStepper(by_onnx, NgramProposer(lambda _token: False)),
    )
    said = []
    for language, stepper in zip((by_torch, by_onnx), steppers, strict=True):
        language.reserve(100)
        scores = language.prefill(language.embed(ids), torch.arange(len(ids)).expand(3, -1), 0)
        tokens = stepper.tokens(Prefill(scores, len(ids), len(ids)))
        said.append([next(tokens) for _ in range(60)])

    assert said[0] == said[1]


def test_the_fastest_is_taken_and_named(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "segzero_core"):
        assert choose_language_model(model).backend == "onnxruntime"
    assert caplog.messages == ["text step onnxruntime: the fastest that can run here"]


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_package_torch_reads_and_says_why(
    missing: str, model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with caplog.at_level(logging.INFO, "segzero_core"):
        assert choose_language_model(model).backend == "torch"
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("text step torch: onnxruntime: ")
    assert missing in record.getMessage()


def test_a_runtime_that_cannot_run_the_step_is_logged_in_one_warning(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A version without the operators, as far as this model can tell.
    monkeypatch.setattr("segzero_core.qwen_vl.onnx_graph._MICROSOFT", "com.example")

    language = choose_language_model(model)

    assert language.backend == "torch"
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "onnxruntime does not read text, torch does" in warning.getMessage()
    with torch.inference_mode():
        position = read_prompt(language, prompt(model))
        assert language.forward([9], position, len(prompt(model)))[0].isfinite().all()


def test_a_runtime_with_other_logits_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = random_model()
    from segzero_core.qwen_vl.onnx_graph import step_graph

    model = random_model()
    other.model.language_model.layers[1].self_attn.o_proj.weight *= 1.01
    monkeypatch.setattr(
        "segzero_core.qwen_vl.onnx_language_model.step_graph", lambda _: step_graph(other)
    )

    assert choose_language_model(model).backend == "torch"
    assert "its logits differ from torch's" in caplog.text


def test_a_large_model_is_left_to_torch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = model.model.language_model
    size = 4 * sum(w.numel() for w in (*tower.parameters(), model.lm_head.weight))
    monkeypatch.setattr("segzero_core.qwen_vl.onnx_language_model.MOST_BYTES", size)
    assert why_not(model) == ""

    monkeypatch.setattr("segzero_core.qwen_vl.onnx_language_model.MOST_BYTES", size - 1)
    assert "MB of weights" in why_not(model)
    assert choose_language_model(model).backend == "torch"


def test_other_types_and_activations_are_left_to_torch() -> None:
    assert "float32" in why_not(random_model(torch.bfloat16))
    model = random_model()
    model.config.text_config.hidden_act = "gelu"
    assert "gelu, not silu" in why_not(model)
