"""The faster GRPO trainer computes what TRL's own computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from segzero_core.checkpoints.registry import find_model
from segzero_core.prompt import build_messages
from training.bundle.reasoner.forward import image_cache
from training.bundle.reasoner.model import PREFIX
from training.finetune.shared_image_sampling import sample, score_completions, unique_images

QUERIES = ("the red mug", "something to drive a nail with", "all the fruit", "the red mug")
IMAGE_ENCODINGS = (0, 1, 0, 1)
CELLS = 144


@dataclass
class Batch:
    """Four prompts about two images, as the processor makes them, padded at the left."""

    model: Any
    processor: Any
    inputs: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def batch() -> Batch:
    folder = find_model("tabletop").reasoner
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(folder, padding_side="left")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (2, 12, 12, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels).resize((336, 336)) for pixels in noise]
    texts = [
        processor.apply_chat_template(
            build_messages("multi_object", query), tokenize=False, add_generation_prompt=True
        )
        for query in QUERIES
    ]
    inputs = processor(
        text=texts, images=[images[i] for i in IMAGE_ENCODINGS], padding=True, return_tensors="pt"
    )
    return Batch(model, processor, dict(inputs))


def test_equal_images_are_found(batch: Batch) -> None:
    pixels, image_index = unique_images(batch.inputs["pixel_values"], CELLS)
    assert pixels.shape == (2, 4 * CELLS, 588)
    assert tuple(image_index.tolist()) == IMAGE_ENCODINGS


def test_greedy_completions_are_those_of_generate(batch: Batch) -> None:
    theirs = batch.model.generate(**batch.inputs, do_sample=False, max_new_tokens=40)
    length = batch.inputs["input_ids"].shape[1]
    pixels, image_index = unique_images(batch.inputs["pixel_values"], CELLS)
    rows = [
        ids[mask.bool()]
        for ids, mask in zip(
            batch.inputs["input_ids"], batch.inputs["attention_mask"], strict=True
        )
    ]
    with torch.no_grad():
        end = len(PREFIX) + CELLS
        memory = image_cache(batch.model, pixels, rows[0][:end])
        ours = sample(
            batch.model,
            [part.of_rows(image_index) for part in memory],
            [row[end:].tolist() for row in rows],
            limit=40,
            temperature=0,
            end_ids=[batch.processor.tokenizer.eos_token_id],
        )
    for mine, whole in zip(ours, theirs[:, length:].tolist(), strict=True):
        assert mine == whole[: len(mine)]
        assert mine[-1] == batch.processor.tokenizer.eos_token_id or len(mine) == 40


def test_log_probabilities_and_entropies_are_those_of_the_model(batch: Batch) -> None:
    rng = torch.Generator().manual_seed(0)
    kept, temperature = 9, 0.7
    tail = torch.randint(0, 900, (4, kept), generator=rng)
    ids = torch.cat([batch.inputs["input_ids"], tail], dim=1)
    mask = torch.cat([batch.inputs["attention_mask"], torch.ones_like(tail)], dim=1)
    mask[2, -3:] = 0  # a completion that is shorter than the others
    image = (ids == batch.model.config.image_token_id).int()
    pixels, image_index = unique_images(batch.inputs["pixel_values"], CELLS)
    with torch.no_grad():
        logits = batch.model(
            input_ids=ids,
            attention_mask=mask,
            mm_token_type_ids=image,
            pixel_values=batch.inputs["pixel_values"],
            image_grid_thw=batch.inputs["image_grid_thw"],
        ).logits[:, -kept - 1 : -1]
        logs = (logits / temperature).log_softmax(-1)
        ours, entropy = score_completions(
            batch.model, pixels, image_index, ids, mask, kept, temperature
        )
    real = mask[:, -kept:].bool()
    expected = logs.gather(-1, tail[..., None])[..., 0]
    torch.testing.assert_close(ours[real], expected[real], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(
        entropy[real], -(logs.exp() * logs).sum(-1)[real], atol=2e-3, rtol=1e-3
    )
