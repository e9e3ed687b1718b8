"""The language model's forward pass against the modules' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segzero_core.qwen_vl.language_model import (
    KV_CACHE_STEP,
    LanguageModel,
    join,
    multimodal_positions,
)
from tests.tiny_models import _config, _tokenizer

IMAGE, GRID_WH = 261, (4, 3)


def random_model(dtype: torch.dtype = torch.float32) -> Any:
    """A Qwen2.5-VL with groups of heads, several layers and random weights."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    config = _config(_tokenizer(["a", "b"]))
    config.text_config.num_hidden_layers = 3
    config.text_config.layer_types = ["full_attention"] * 3
    torch.manual_seed(1)
    model: Any = Qwen2_5_VLForConditionalGeneration(config)
    # As made, its biases are zero and its scores hardly differ.
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.1)
    return model.eval().requires_grad_(requires_grad=False).to(dtype)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model()


def prompt(model: Any) -> list[int]:
    image = model.config.image_token_id
    return [5, 6, 7, *[image] * (GRID_WH[0] * GRID_WH[1]), *range(20, 45)]


@torch.inference_mode()
def scores_of_modules(model: Any, ids: list[int], x: torch.Tensor) -> torch.Tensor:
    """The scores after every token, by transformers."""
    positions = multimodal_positions(ids, model.config.image_token_id, GRID_WH)
    out = model.model.language_model(inputs_embeds=x[None], position_ids=positions[:, None])
    return model.lm_head(out.last_hidden_state)[0].float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_parts_of_a_prompt_and_single_tokens_get_the_modules_logits(dtype: torch.dtype) -> None:
    model = random_model(dtype)
    ids = prompt(model)
    before = scores_of_modules(model, ids, model.get_input_embeddings()(torch.tensor(ids)))
    language = LanguageModel(model)
    language.reserve(len(ids))
    x = language.embed(ids)
    positions = multimodal_positions(ids, language.image_token, GRID_WH)
    # Sums in another order: one part in a million, or the rounding of bfloat16.
    close = {"rtol": 0, "atol": 2e-5 if dtype == torch.float32 else 0.1}

    torch.testing.assert_close(language.prefill(x, positions, 0), before[-1], **close)
    language.prefill(x[:20], positions[:, :20], 0)
    middle = language.prefill(x[20:30], positions[:, 20:30], 20)
    torch.testing.assert_close(middle, before[29], **close)
    for index in range(30, len(ids)):
        scores = language.forward([ids[index]], int(positions[0, index]), index)[0]
        torch.testing.assert_close(scores, before[index], **close)
    after = scores_of_modules(model, ids, model.get_input_embeddings()(torch.tensor(ids)))
    torch.testing.assert_close(after, before, **close)


@torch.inference_mode()
def test_the_step_for_a_captured_graph_gives_the_same_scores(model: Any) -> None:
    ids = prompt(model)
    language = LanguageModel(model)
    language.reserve(len(ids))
    positions = multimodal_positions(ids, language.image_token, GRID_WH)
    language.prefill(language.embed(ids[:-1]), positions[:, :-1], 0)
    expected = language.forward([ids[-1]], int(positions[0, -1]), len(ids) - 1)[0]
    # What stands behind the present token must not be read.
    for keys, values in language.kv_cache:
        keys[:, len(ids) :] = values[:, len(ids) :] = 7.0

    numbers = (torch.tensor([n]) for n in (ids[-1], int(positions[0, -1]), len(ids) - 1))
    scores = language.graph_step(*numbers, KV_CACHE_STEP)

    torch.testing.assert_close(scores, expected, rtol=0, atol=2e-5)


@torch.inference_mode()
def test_the_step_for_a_captured_graph_can_be_traced_as_one(model: Any) -> None:
    ids = prompt(model)
    language = LanguageModel(model)
    language.reserve(len(ids))
    language.prefill(
        language.embed(ids), multimodal_positions(ids, language.image_token, GRID_WH), 0
    )
    numbers = [torch.tensor([n]) for n in (9, 30, len(ids))]
    expected = language.graph_step(*numbers, KV_CACHE_STEP)

    traced = torch.compile(language.graph_step, backend="eager", fullgraph=True)

    torch.testing.assert_close(traced(*numbers, KV_CACHE_STEP), expected, rtol=0, atol=2e-5)


@torch.inference_mode()
def test_what_is_cached_stays_when_the_kv_cache_grows(model: Any) -> None:
    ids = prompt(model)
    language = LanguageModel(model)
    language.reserve(len(ids))
    positions = multimodal_positions(ids, language.image_token, GRID_WH)
    expected = language.prefill(language.embed(ids), positions, 0)

    language.reserve(KV_CACHE_STEP + 1)

    assert language.capacity == 2 * KV_CACHE_STEP
    again = language.forward([ids[-1]], int(positions[0, -1]), len(ids) - 1)[0]
    torch.testing.assert_close(again, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("grid_wh", [(4, 3), (3, 4), (1, 5)], ids=str)
def test_positions_are_those_of_transformers(model: Any, grid_wh: tuple[int, int]) -> None:
    image = model.config.image_token_id
    ids = [5, 6, *[image] * (grid_wh[0] * grid_wh[1]), 8, 9, 10]
    grid = torch.tensor([[1, grid_wh[1] * 2, grid_wh[0] * 2]])
    kinds = torch.tensor([[int(i == image) for i in ids]])

    expected, _ = model.model.get_rope_index(
        torch.tensor([ids]), image_grid_thw=grid, mm_token_type_ids=kinds
    )

    assert multimodal_positions(ids, image, grid_wh).tolist() == expected[:, 0].tolist()


def test_text_alone_counts_on() -> None:
    assert multimodal_positions([1, 2, 3], IMAGE, GRID_WH).tolist() == [[0, 1, 2]] * 3


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one run of 4x3 image tokens, got 11"):
        multimodal_positions([1, *[IMAGE] * 11], IMAGE, GRID_WH)


def test_joined_modules_hold_no_weight_twice() -> None:
    modules = [torch.nn.Linear(8, n) for n in (3, 5)]
    x = torch.randn(2, 8)
    expected = torch.cat([module(x) for module in modules], -1)

    joined = join(modules)

    torch.testing.assert_close(joined(x), expected)
    torch.testing.assert_close(torch.cat([module(x) for module in modules], -1), expected)
    first, second = (module.weight.untyped_storage().data_ptr() for module in modules)
    assert first == second


def test_quantized_modules_are_called_one_by_one() -> None:
    class Quantized(torch.nn.Linear):
        pass

    modules = [Quantized(8, 3), torch.nn.Linear(8, 5)]
    x = torch.randn(2, 8)

    assert torch.equal(join(modules)(x), torch.cat([module(x) for module in modules], -1))
