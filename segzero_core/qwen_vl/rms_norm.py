"""Root-mean-square norm of the Qwen-VL models in few operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(module: Any) -> Callable[[Tensor], Tensor]:
    """Return a function that computes a norm module in fewer operations."""
    return rms_norm_of(module.weight, float(module.variance_epsilon))


def rms_norm_of(weight: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """Return a function that norms the last dimension, and multiplies by the weight.

    A GPU has one kernel for it. On a CPU torch runs seven operations, which for one token take as
    long as a small matrix product; here it is three. The weight is [width], or [heads, width] for
    one of each head; `eps` is added to the mean square.
    """
    width = weight.shape[-1]
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        if weight.dim() == 1:
            return lambda x: functional.rms_norm(x, (width,), weight, eps)
        return lambda x: functional.rms_norm(x, (width,), None, eps) * weight
    # x / sqrt(mean(x²) + eps) = x sqrt(n) / sqrt(|x|² + n eps)
    scaled = (weight * math.sqrt(width)).detach()
    least = torch.tensor(math.sqrt(width * eps))
    norm = torch.linalg.vector_norm
    return lambda x: (x * scaled).div_(torch.hypot(norm(x, dim=-1, keepdim=True), least))
