"""The training pass of the small reasoner is that of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from training.bundle.reasoner.data import Packer, Scenes
from training.bundle.reasoner.forward import forward
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
