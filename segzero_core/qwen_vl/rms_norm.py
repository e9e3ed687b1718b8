"""Root-mean-square norm of Qwen2.5-VL in few operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(module: Any) -> Callable[[Tensor], Tensor]:
    """Return a function that computes a norm module in fewer operations.

    A GPU has one kernel for it. On a CPU torch runs seven operations, which for one token take as
    long as a small matrix product; here it is three.
    """
    weight, eps = module.weight, float(module.variance_epsilon)
    shape = weight.shape
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return lambda x: functional.rms_norm(x, shape, weight, eps)
    # x / sqrt(mean(x²) + eps) = x sqrt(n) / sqrt(|x|² + n eps)
    scaled = (weight * math.sqrt(len(weight))).detach()
    least = torch.tensor(math.sqrt(len(weight) * eps))
    norm = torch.linalg.vector_norm
    return lambda x: (x * scaled).div_(torch.hypot(norm(x, dim=-1, keepdim=True), least))
