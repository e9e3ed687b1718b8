"""The vision encoder against transformers' own module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
)

from segzero_core.qwen_vl.vision_encoder import VisionEncoder

PATCH_VALUES = 3 * 2 * 14 * 14


def module(window: int = 112) -> Any:
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 24,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": window,
            "fullatt_block_indexes": [1],
        }
    )
    torch.manual_seed(0)
    visual: Any = Qwen2_5_VisionTransformerPretrainedModel(config.vision_config)
    with torch.no_grad():
        for weights in visual.parameters():
            weights.copy_(torch.randn_like(weights) * 0.2)
    return visual.eval()


@pytest.mark.parametrize(
    "tokens_wh", [(12, 12), (8, 4), (7, 5), (1, 1), (3, 9)], ids=lambda wh: f"{wh[0]}x{wh[1]}"
)
@pytest.mark.parametrize("window", [56, 112])
@torch.inference_mode()
def test_embeddings_are_those_of_the_module(tokens_wh: tuple[int, int], window: int) -> None:
    visual = module(window)
    width, height = (2 * side for side in tokens_wh)
    patches = torch.randn(width * height, PATCH_VALUES)

    ours = VisionEncoder(visual, tokens_wh)(patches)
    theirs = visual(patches, grid_thw=torch.tensor([[1, height, width]]))["pooler_output"]

    assert ours.shape == (tokens_wh[0] * tokens_wh[1], 24)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_in_half_the_bits_the_types_stay() -> None:
    visual = module().to(torch.bfloat16)
    patches = torch.randn(64, PATCH_VALUES, dtype=torch.bfloat16)

    ours = VisionEncoder(visual, (4, 4))(patches)

    assert ours.dtype == torch.bfloat16
    theirs = visual(patches, grid_thw=torch.tensor([[1, 8, 8]]))["pooler_output"]
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0.05, atol=0.3)
