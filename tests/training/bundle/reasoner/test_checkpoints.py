"""Weights that go from one tokenizer to another."""

from __future__ import annotations

import torch

from training.bundle.reasoner.checkpoints import rows_of
from training.bundle.reasoner.libero.world import WORLD as LIBERO
from training.bundle.reasoner.model import number_ids
from training.bundle.reasoner.tabletop.world import WORLD as TABLETOP
from training.bundle.reasoner.tokenizer import build_tokenizer, seen_size_px


def test_a_token_keeps_its_row_and_new_numbers_go_on_from_the_known_ones() -> None:
    known = build_tokenizer(["the red mug"] * 40, TABLETOP)
    wanted = build_tokenizer(["the black bowl"] * 40, LIBERO)
    assert (seen_size_px(known), seen_size_px(wanted)) == (336, 448)
    torch.manual_seed(0)
    rows = torch.randn(len(known), 256)
    numbers = number_ids(known)
    rows[numbers] = torch.linspace(0, 1, len(numbers))[:, None].expand(-1, 256)  # a straight line
    moved = rows_of(wanted, known, rows)
    ids, known_ids = wanted.get_vocab(), known.get_vocab()
    for text in ("<answer>", "user\n", "e", "17"):
        assert torch.equal(moved[ids[text]], rows[known_ids[text]])
    assert torch.allclose(moved[ids["bowl" if "bowl" in ids else "Ġbowl"]], rows.mean(0))
    assert torch.allclose(moved[ids["448"]], torch.full((256,), 448 / 336), atol=0.02)
