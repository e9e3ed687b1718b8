"""The training pass of the small reasoner is that of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from training.bundle.reasoner.data import Packer, Scenes
from training.bundle.reasoner.forward import POINTER_HEADS, QuestionGroup, _pointer_loss, forward
from training.bundle.reasoner.model import PREFIX, build_model
from training.bundle.reasoner.tabletop.world import WORLD


def test_the_packed_pass_equals_that_of_transformers(scenes: Path, processor) -> None:
    tokenizer = processor.tokenizer
    model = build_model(tokenizer, 0).eval()
    for weight in model.parameters():  # fresh blocks are zero; give every path something to say
        if not weight.abs().max():
            torch.nn.init.normal_(weight, std=0.05)
    samples = iter(Scenes(WORLD, [scenes], tokenizer, questions=3, seed=0))
    pair = [next(samples), next(samples)]
    batch = Packer(tokenizer, groups=2)(pair)
    tokens = pair[1].questions[1].ids
    group, row = next(
        (g, int(rows[0]))
        for g, questions in enumerate(batch.packed.groups)
        if questions.ids.shape[1] >= len(tokens)
        if len(rows := (questions.ids[:, : len(tokens)] == torch.tensor(tokens)).all(1).nonzero())
    )
    with torch.no_grad():
        hidden = forward(model, batch.packed)
        ours = hidden.last[group][row, : len(tokens)] @ model.get_input_embeddings().weight.T
        ids = torch.cat([batch.packed.prefix, torch.tensor(tokens)])[None]
        seen = processor.image_processor(
            images=[Image.fromarray(pair[1].image)], return_tensors="pt"
        )
        image = (ids == model.config.image_token_id).int()
        theirs = model(input_ids=ids, mm_token_type_ids=image, **seen).logits
    start = len(PREFIX) + len(pair[1].cell_kind)
    torch.testing.assert_close(ours, theirs[0, start:], atol=1e-4, rtol=1e-4)


def test_the_pointer_loss_is_small_where_each_half_of_the_heads_looks_at_its_token() -> None:
    cells, length, width, heads = 4, 5, 8, 2 * POINTER_HEADS
    keys = torch.zeros(1, heads, len(PREFIX) + cells + length, width)
    at_image, at_text, row = 1, cells + 2, 3  # columns behind the prefix, and who looks
    half = POINTER_HEADS // 2
    keys[:, :half, len(PREFIX) + at_image, 0] = 100.0
    keys[:, half:POINTER_HEADS, len(PREFIX) + at_text, 0] = 100.0
    q = torch.zeros(1, heads, length, width)
    q[:, :, row, 0] = 1.0
    bias = torch.zeros(length, keys.shape[2])
    rows = torch.tensor([[row]])

    def loss(first: int, second: int) -> float:
        targets = torch.zeros(1, 1, 2, cells + length, dtype=torch.bool)
        targets[0, 0, 0, first] = targets[0, 0, 1, second] = True
        group = QuestionGroup(torch.zeros(1, length), torch.zeros(1), rows, targets)
        return float(_pointer_loss(q, keys, bias, group))

    assert loss(at_image, at_text) < 1e-3
    assert loss(at_text, at_image) > 10
    assert loss(at_image, at_image) > 5
