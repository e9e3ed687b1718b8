"""Qwen2.5-VL's vision encoder for images of one size.

The weights are those of transformers' modules; only the forward pass differs. What depends on the
size alone is computed once, and windows of one shape go through attention in one batch, where the
modules take them one by one. `tests/core/qwen_vl/test_vision_encoder.py` holds the result equal to
theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segzero_core.qwen_vl.rms_norm import rms_norm
from segzero_core.types import SizeWH


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one shape, whose patches are neighboring rows."""

    start: int  # row of the first patch
    count: int  # how many windows
    length: int  # patches of each


class VisionEncoder:
    """Turns the patches of an image of `tokens_wh` into embeddings for the language model."""

    def __init__(self, visual: Any, tokens_wh: SizeWH) -> None:
        config = visual.config
        self.dtype: torch.dtype = visual.dtype
        merge = int(config.spatial_merge_size)
        side = int(config.window_size) // merge // int(config.patch_size)
        cells, windows = _in_windows(tokens_wh, side, merge**2)
        kernel = visual.patch_embed.proj.weight
        self._patches = kernel.view(len(kernel), -1)
        device = kernel.device
        self._order = cells.to(device)
        self._back = cells.argsort().to(device)
        self._merge = merge**2
        positions = _patch_positions(tokens_wh, merge)[cells].flatten(0, 1).to(device)
        cos, sin = visual.rotary_pos_emb(kernel, positions)
        sin = sin.clone()
        sin[:, : sin.shape[1] // 2].neg_()  # the sign of the rotated half, taken out of the loop
        self._rotary = (cos[:, None, None].float(), sin[:, None, None].float())
        whole = [Windows(0, 1, len(positions))]
        full = set(config.fullatt_block_indexes)
        self._blocks = [
            _Block(block, whole if index in full else windows)
            for index, block in enumerate(visual.blocks)
        ]
        self._norm = rms_norm(visual.merger.ln_q)
        self._mlp = visual.merger.mlp

    def __call__(self, patches: Tensor) -> Tensor:
        """Return the embeddings [tokens, width] of an image's patches [P, values]."""
        x = functional.linear(patches, self._patches)
        x = x.view(-1, self._merge, x.shape[1])[self._order].flatten(0, 1)
        for block in self._blocks:
            x = block(x, self._rotary)
        merged: Tensor = self._mlp(self._norm(x).view(len(self._order), -1))
        return merged[self._back]


class _Block:
    """One layer; the patches of a window see one another."""

    def __init__(self, block: Any, windows: list[Windows]) -> None:
        self._windows = windows
        self._heads = int(block.attn.num_heads)
        self._scale = float(block.attn.scaling)
        self._norm1, self._norm2 = rms_norm(block.norm1), rms_norm(block.norm2)
        self._qkv, self._out = block.attn.qkv, block.attn.proj
        self._mlp = block.mlp

    def __call__(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = rotary
        qkv = self._qkv(self._norm1(x)).view(len(x), 3, self._heads, -1)
        both = qkv[:, :2]
        half = both.shape[-1] // 2
        rotated = (both * cos).addcmul_(both.roll(half, -1), sin).to(x.dtype)
        mixed = torch.cat(list(self._attend(rotated[:, 0], rotated[:, 1], qkv[:, 2])))
        x = self._out(mixed).add_(x)
        y, mlp = self._norm2(x), self._mlp
        inner = mlp.act_fn(mlp.gate_proj(y)).mul_(mlp.up_proj(y))
        return x.add_(mlp.down_proj(inner))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Iterator[Tensor]:
        for each in self._windows:
            stop = each.start + each.count * each.length
            q_windows, k_windows, v_windows = (
                t[each.start : stop].view(each.count, each.length, *t.shape[1:]).transpose(1, 2)
                for t in (q, k, v)
            )
            mixed = functional.scaled_dot_product_attention(
                q_windows, k_windows, v_windows, scale=self._scale
            )
            yield mixed.transpose(1, 2).flatten(2).flatten(0, 1)


def _in_windows(tokens_wh: SizeWH, side: int, merge: int) -> tuple[Tensor, list[Windows]]:
    """Order tokens by their windows, windows of one shape behind one another.

    The tokens' indices are int64 [T]; the windows are in that order, in patches.
    """
    width, height = tokens_wh
    cells = torch.arange(width * height).view(height, width)
    windows = [
        cells[y : y + side, x : x + side].flatten()
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    windows.sort(key=len)
    found, start = [], 0
    for length, group in groupby(map(len, windows)):
        count = len(list(group))
        found.append(Windows(start * merge, count, length * merge))
        start += count * length
    return torch.cat(windows), found


def _patch_positions(tokens_wh: SizeWH, merge: int) -> Tensor:
    """Return row and column int64 [T, merge * merge, 2] of the patches of every token."""
    width, height = tokens_wh
    inner = torch.arange(merge)
    rows = (torch.arange(height)[:, None] * merge + inner)[:, None, :, None]
    columns = (torch.arange(width)[:, None] * merge + inner)[None, :, None, :]
    shape = (height, width, merge, merge)
    both = torch.stack([rows.expand(shape), columns.expand(shape)], dim=-1)
    return both.reshape(width * height, merge * merge, 2)
