"""Muon in float32, for processors without instructions for bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon`, which orthogonalizes in float32 instead of bfloat16.

    Where bfloat16 has to be emulated, a step of the original takes longer than the rest of the
    training. Nesterov's momentum and the rate of `adjust_lr_fn="match_rms_adamw"` are always used.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update the weights by their gradients."""
        assert closure is None, "this training computes its gradients before the step"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
        direction = orthogonalized(weight.grad.lerp(momentum, group["momentum"]), group)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def orthogonalized(update: Tensor, group: dict) -> Tensor:
    """A matrix with the singular vectors of `update` and singular values near 1.

    By the Newton-Schulz iteration of Muon, with the coefficients and steps of its group.
    """
    a, b, c = group["ns_coefficients"]
    tall = update.shape[0] > update.shape[1]
    x = update.T if tall else update
    x = x / x.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
