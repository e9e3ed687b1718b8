"""Muon in float32 does what the original does in bfloat16."""

from __future__ import annotations

import pytest
import torch

from training.bundle.reasoner.muon import Float32Muon, orthogonalized

HOW = {"lr": 0.01, "weight_decay": 0.05, "adjust_lr_fn": "match_rms_adamw"}


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_steps_are_those_of_the_original(shape: tuple[int, int]) -> None:
    torch.manual_seed(3)
    start, gradients = torch.randn(shape), torch.randn(3, *shape)
    ends = []
    for kind in (Float32Muon, torch.optim.Muon):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], **HOW)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        ends.append(weight.detach() - start)
    ours, original = ends
    assert (ours - original).abs().max() < 0.05 * original.abs().max()
    assert original.abs().max() > 0.01


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(3)
    matrix = torch.randn(12, 30) @ torch.diag(torch.logspace(-1, 1, 30))
    group = Float32Muon([torch.nn.Parameter(matrix)], **HOW).param_groups[0]
    values = torch.linalg.svdvals(orthogonalized(matrix, group))
    assert 0.5 < values.min() <= values.max() < 1.3


def test_a_run_goes_on_with_the_state_of_the_original() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.eye(4)
    original = torch.optim.Muon([weight], **HOW)
    original.step()
    ours = Float32Muon([weight], **HOW)
    ours.load_state_dict(original.state_dict())
    before = ours.state[weight]["momentum_buffer"].clone()
    ours.step()
    assert not torch.equal(ours.state[weight]["momentum_buffer"], before)
    torch.testing.assert_close(
        ours.state[weight]["momentum_buffer"], before.lerp(weight.grad, 1 - 0.95)
    )
