"""The loss of the small reasoner."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from training.bundle.reasoner.encoding import CHOICE, WORD
from training.bundle.reasoner.loss import Losses


def test_a_choice_weighs_more_and_weighs_alike_both_ways() -> None:
    tokens, width = 5, 4
    embeddings = torch.nn.functional.one_hot(torch.arange(tokens), tokens)[:, :width].float()
    losses = Losses(torch.tensor([0]), embeddings, 10.0)

    def loss(targets: list[int], roles: list[int]) -> float:
        last = [torch.eye(width)[[1, 1]][None]]
        batch = SimpleNamespace(targets=[torch.tensor([targets])], roles=[torch.tensor([roles])])
        return float(losses.words(last, batch)["words"])

    right_choice, wrong_choice = loss([1, 2], [CHOICE, WORD]), loss([2, 1], [CHOICE, WORD])
    assert wrong_choice > right_choice
    assert loss([2, 1], [CHOICE, WORD]) == pytest.approx(loss([3, 1], [CHOICE, WORD]))


def test_a_token_that_half_of_the_heads_have_nothing_to_look_at_for_does_not_count() -> None:
    # A token, one of an object that shows in no cell of the image, and padding.
    targets = torch.tensor([[[[True], [True]], [[False], [True]], [[False], [False]]]])
    batch = SimpleNamespace(
        packed=SimpleNamespace(groups=[SimpleNamespace(pointer_targets=targets)])
    )

    terms = Losses.pointer([[torch.tensor([[0.5, 1e9, 0.0]])]], batch)

    assert float(terms["pointer"]) == 0.5
