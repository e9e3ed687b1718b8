"""Our loop for Qwen3-VL against transformers' `generate`, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segzero_core import QwenReasoner, RgbImage, SegZero
from segzero_core.checkpoints.description import FILE_NAME, ModelDescription
from segzero_core.decoding.decoder import PlainDecoder, QwenDecoder
from segzero_core.qwen_vl.language_model import LanguageModel, multimodal_positions
from segzero_core.reasoner.base import squash
from tests.tiny_models import save_tiny_segmenter
from tests.tiny_qwen3_vl import NATIVE_REPLY, save_tiny_qwen3_vl

TOKENS = 64
QUESTIONS = ("the red mug", "the red mug that stands behind the blue one")


def images() -> list[RgbImage]:
    rng = np.random.default_rng(5)
    ramp = np.linspace(0, 255, 90).astype(np.uint8)[:, None, None]
    return [
        rng.integers(0, 256, (60, 80, 3), np.uint8),
        np.broadcast_to(ramp, (90, 70, 3)).copy(),
    ]


def load(folder: Path, decode: str) -> QwenReasoner:
    return QwenReasoner(folder, ModelDescription.from_file(folder / FILE_NAME), decode=decode)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return save_tiny_qwen3_vl(tmp_path_factory.mktemp("random") / "reasoner")


def tokens(reasoner: QwenReasoner, image: RgbImage, query: str) -> list[int]:
    """The first tokens of a reply, whatever they say."""
    said: list[int] = []

    def on_token(token: int) -> bool:
        said.append(token)
        return len(said) == TOKENS

    text = f"<|vision_start|><|image_pad|><|vision_end|>{query}<|im_end|><|im_start|>assistant\n"
    seen = squash(image, reasoner.description.seen_size_wh)
    reasoner._decoder.run(seen, text, TOKENS, on_token)
    return said


@pytest.mark.parametrize("mode", ["eager", "drafts"])
def test_the_tokens_are_those_of_generate(folder: Path, mode: str) -> None:
    plain, ours = load(folder, "plain"), load(folder, mode)
    plain._model.generation_config.eos_token_id = None  # all of the tokens, whatever they are
    assert isinstance(plain._decoder, PlainDecoder)
    assert isinstance(ours._decoder, QwenDecoder)
    assert ours._model.dtype == torch.float32

    replies = set()
    for image in images():
        for query in QUESTIONS:  # the first about this image, and another
            expected = tokens(plain, image, query)
            assert tokens(ours, image, query) == expected
            assert len(expected) == TOKENS
            replies.add(tuple(expected))
    assert len(replies) == len(images()) * len(QUESTIONS)  # the image and the words count


def test_the_image_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = load(folder, "auto")
    seen: list[Any] = []
    encode = ours._decoder._encode_image
    monkeypatch.setattr(ours._decoder, "_encode_image", lambda p: seen.append(p) or encode(p))
    first, second = images()

    for image in (first, first.copy(), second):
        for query in QUESTIONS:
            tokens(ours, image, query)

    assert len(seen) == 2


@torch.inference_mode()
def test_the_logits_are_those_of_the_modules_with_the_features_of_every_layer(
    folder: Path,
) -> None:
    model = load(folder, "plain")._model
    image, grid_wh = model.config.image_token_id, (4, 3)
    ids = [5, 6, 7, *[image] * 12, *range(20, 45)]
    mask = torch.tensor(ids) == image
    positions = multimodal_positions(ids, image, grid_wh)
    x = model.get_input_embeddings()(torch.tensor(ids))
    features = [torch.randn(12, x.shape[1]) for _ in range(2)]
    out = model.model.language_model(
        inputs_embeds=x[None],
        position_ids=positions[:, None],
        visual_pos_masks=mask[None],
        deepstack_visual_embeds=features,
    )
    expected = model.lm_head(out.last_hidden_state)[0]
    language = LanguageModel(model)
    language.reserve(len(ids))

    deep = [torch.zeros_like(x).masked_scatter(mask[:, None], each) for each in features]
    whole = language.prefill(x, positions, 0, deep)
    torch.testing.assert_close(whole, expected[-1], rtol=0, atol=1e-4)
    language.prefill(x[:30], positions[:, :30], 0, [each[:30] for each in deep])
    rest = language.forward(ids[30:], int(positions[0, 30]), 30)
    torch.testing.assert_close(rest, expected[30:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("grid_wh", [(4, 3), (3, 4), (1, 5)], ids=str)
def test_positions_are_those_of_transformers(folder: Path, grid_wh: tuple[int, int]) -> None:
    model = load(folder, "plain")._model
    image = model.config.image_token_id
    ids = [5, 6, *[image] * (grid_wh[0] * grid_wh[1]), 8, 9, 10]
    grid = torch.tensor([[1, grid_wh[1] * 2, grid_wh[0] * 2]])
    kinds = torch.tensor([[int(i == image) for i in ids]])

    expected, _ = model.model.get_rope_index(
        torch.tensor([ids]), image_grid_thw=grid, mm_token_type_ids=kinds
    )

    assert multimodal_positions(ids, image, grid_wh).tolist() == expected[:, 0].tolist()


@pytest.mark.parametrize("decode", ["plain", "auto"])
@pytest.mark.parametrize(("start", "thinking"), [("", ""), ("<think>\n", "It is the red one.")])
def test_a_model_that_thinks_and_one_that_does_not_answer_with_boxes(
    tmp_path: Path, image: RgbImage, decode: str, start: str, thinking: str
) -> None:
    reply = f"{thinking}\n</think>\n\n{NATIVE_REPLY}" if thinking else NATIVE_REPLY
    save_tiny_qwen3_vl(tmp_path / "reasoner", reply, start=start)
    save_tiny_segmenter(tmp_path / "segmenter")

    result = SegZero.load(str(tmp_path), device="cpu", decode=decode).segment(image, "the mug")

    assert result.reasoning.thinking == thinking
    assert result.reasoning.completion.removeprefix("<think>").strip() == reply.strip()
    (prompt,) = result.reasoning.prompts
    assert prompt.box.xyxy == (10, 15, 50, 54)  # of 80x60 pixels
    assert prompt.points == ()
    assert result.segmentation.masks.shape == (1, 60, 80)
