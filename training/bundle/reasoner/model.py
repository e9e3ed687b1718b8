"""The architecture of the small Qwen2.5-VL, its first weights, and its read-out heads."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody reads
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from training.bundle.reasoner.tokenizer import MERGE, PATCH, seen_size_px

TOKEN_PX = PATCH * MERGE  # side of the square that an image token shows
LAYERS = 7
DENSE_LAYER = 3
"""After this many language layers, an image token knows which object is there, and where."""
PREFIX = ("<|im_start|>", "user\n", "<|vision_start|>")  # one token each, before the image


def build_config(tokenizer: PreTrainedTokenizerFast, layers: int = LAYERS) -> Qwen2_5_VLConfig:
    """Return the configuration: about 8 M parameters, chosen for training on two cores."""
    token = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            # A low base and balanced sections: rows and columns of 12 cells must be told apart.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 50.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 5,
            "hidden_size": 160,
            "intermediate_size": 448,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 4 * PATCH * MERGE,
            "fullatt_block_indexes": [2, 4],
            "out_hidden_size": 256,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int, layers: int = LAYERS
) -> Qwen2_5_VLForConditionalGeneration:
    """Build the model with fresh weights; near numbers begin with similar embeddings."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer, layers)).float()
    weight = model.get_input_embeddings().weight
    ids = number_ids(tokenizer)
    with torch.no_grad():
        weight.normal_(0, 0.05)
        weight[ids] *= 0.3
        weight[ids, :32] = number_waves(len(ids)) * 0.3
        for block in model.model.visual.blocks:
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.mlp.down_proj.weight)
            _spread(block.attn.qkv)
            _spread(block.mlp.gate_proj)
            _spread(block.mlp.up_proj)
        for layer in model.model.language_model.layers:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
            for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                _spread(linear)
            _spread(layer.mlp.gate_proj)
            _spread(layer.mlp.up_proj)
        for linear in (model.model.visual.merger.mlp[0], model.model.visual.merger.mlp[2]):
            _spread(linear)
        nn.init.normal_(model.model.visual.patch_embed.proj.weight, std=1 / math.sqrt(1176))
    return model


def number_ids(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Token of every coordinate, from 0 to the side of the image that the model sees."""
    numbers = [str(n) for n in range(seen_size_px(tokenizer) + 1)]
    return torch.tensor(tokenizer.convert_tokens_to_ids(numbers))


def _spread(linear: nn.Linear) -> None:
    nn.init.normal_(linear.weight, std=1 / math.sqrt(linear.in_features))


def number_waves(count: int) -> Tensor:
    """Cosines and sines [count, 32] by which near numbers begin with similar embeddings."""
    lengths = torch.logspace(math.log10(2.0 * (count - 1)), math.log10(14.0), 16)
    angles = 2 * math.pi * torch.arange(float(count))[:, None] / lengths
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class DenseHeads(nn.Module):
    """Read object class, color and coordinates off the image tokens; for training only."""

    def __init__(self, width: int, kinds: int, colors: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, kinds + 1)
        self.color = nn.Linear(width, colors + 1)
        # One linear map per coordinate into the space of the number tokens: an attention head can
        # do the same later, so that writing a number is a copy.
        self.coordinates = nn.Linear(width, 6 * width)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From [..., width] to kind and color logits, and [..., 6, width]."""
        cells = F.rms_norm(cells, cells.shape[-1:])
        return self.kind(cells), self.color(cells), self.coordinates(cells).unflatten(-1, (6, -1))
