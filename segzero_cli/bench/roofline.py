"""Roofline: the speed that memory bandwidth and matrix rate of this machine allow."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import torch

# On a GPU far more than its cache holds, and enough for the launch time not to matter.
_READ_BYTES: Final = {"cpu": 1 << 28, "cuda": 1 << 32}
_MATRIX_SIDE: Final = {"cpu": 1024, "cuda": 8192}
_REPEATS: Final = 7


def measure_limits(reasoner: Any, sam: Any, device: str) -> dict[str, float]:
    """Measure the rates of this machine, and the times that they allow these models.

    A token reads all weights of the language tower once, at the rate at which memory is read. The
    image encoder does its work at the rate of large matrix products, in float32 on a CPU and
    bfloat16 on a GPU.
    """
    bandwidth, rate = read_bandwidth(device), matrix_rate(device)
    weights, flop = bytes_per_token(reasoner), encoder_flop(sam)
    return {
        "bandwidth_gb_s": bandwidth / 1e9,
        "weights_per_token_mb": weights / 1e6,
        "tokens_per_s": bandwidth / weights,
        "matrix_gflop_s": rate / 1e9,
        "encoder_gflop": flop / 1e9,
        "encoder_ms": flop / rate * 1e3,
    }


def bytes_per_token(reasoner: Any) -> int:
    """Count the weights of the language tower and the head; the embedding is one row."""
    tower = reasoner.model.language_model
    parts = [*tower.layers.parameters(), *tower.norm.parameters(), reasoner.lm_head.weight]
    return sum(p.numel() * p.element_size() for p in parts)


def encoder_flop(sam: Any) -> int:
    """Count the floating-point operations of one frame, two for a multiplication with addition."""
    from torch.utils.flop_counter import FlopCounterMode

    weight = next(sam.parameters())
    side = int(sam.image_size)
    image = torch.zeros(1, 3, side, side, dtype=weight.dtype, device=weight.device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        sam.forward_image(image)
    return int(counter.get_total_flops())


def read_bandwidth(device: str) -> float:
    """Measure the bytes a second that are read from memory."""
    size = _READ_BYTES[_kind(device)]
    block = torch.ones(size // 4, device=device)
    return size / seconds(lambda: block.sum(), device)


def matrix_rate(device: str) -> float:
    """Measure the floating-point operations a second of a large matrix product."""
    kind = _kind(device)
    side = _MATRIX_SIDE[kind]
    dtype = torch.float32 if kind == "cpu" else torch.bfloat16
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / seconds(lambda: a @ a, device)


def _kind(device: str) -> str:
    return "cpu" if device.startswith("cpu") else "cuda"


def seconds(work: Callable[[], object], device: str, repeats: int = _REPEATS) -> float:
    """Return the median time of some work [s], after one run that does not count."""
    times = []
    for _ in range(repeats + 1):
        if not device.startswith("cpu"):
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if not device.startswith("cpu"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times[1:])
