"""The full-size Qwen2.5-VL in its published format goes through the same loader.

Nothing is downloaded: the weights have the published names and shapes, and no contents.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from segzero_core import ModelLoadError
from segzero_core.reasoner.qwen import _check_report

# From the config.json of Qwen/Qwen2.5-VL-{3B,7B}-Instruct; Seg-Zero and VisionReasoner keep them.
TEXT: dict[str, dict[str, Any]] = {
    "3B": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_window_layers": 70,
        "tie_word_embeddings": True,
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_window_layers": 28,
        "tie_word_embeddings": False,
    },
}
VISION = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
}
PARAMETERS = {"3B": 3_754_622_976, "7B": 8_292_166_656}  # as the Hub's pages say


def published_config(size: str) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **TEXT[size],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vision_config": {**VISION, "out_hidden_size": TEXT[size]["hidden_size"]},
    }


def published_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the published safetensors index lists them."""
    text = TEXT[size]
    hidden, wide, words = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    keys = hidden // text["num_attention_heads"] * text["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words, hidden),
        "model.norm.weight": (hidden,),
    }
    if not text["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (words, hidden)
    for layer in range(text["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, shape in {
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (hidden, hidden),
            "self_attn.q_proj.bias": (hidden,),
            "self_attn.k_proj.weight": (keys, hidden),
            "self_attn.k_proj.bias": (keys,),
            "self_attn.v_proj.weight": (keys, hidden),
            "self_attn.v_proj.bias": (keys,),
            "self_attn.o_proj.weight": (hidden, hidden),
            "mlp.gate_proj.weight": (wide, hidden),
            "mlp.up_proj.weight": (wide, hidden),
            "mlp.down_proj.weight": (hidden, wide),
        }.items():
            shapes[prefix + name] = shape
    for block in range(32):
        for name, shape in {
            "norm1.weight": (1280,),
            "norm2.weight": (1280,),
            "attn.qkv.weight": (3840, 1280),
            "attn.qkv.bias": (3840,),
            "attn.proj.weight": (1280, 1280),
            "attn.proj.bias": (1280,),
            "mlp.gate_proj.weight": (3420, 1280),
            "mlp.gate_proj.bias": (3420,),
            "mlp.up_proj.weight": (3420, 1280),
            "mlp.up_proj.bias": (3420,),
            "mlp.down_proj.weight": (1280, 3420),
            "mlp.down_proj.bias": (1280,),
        }.items():
            shapes[f"visual.blocks.{block}.{name}"] = shape
    return shapes | {
        "visual.patch_embed.proj.weight": (1280, 3, 2, 14, 14),
        "visual.merger.ln_q.weight": (1280,),
        "visual.merger.mlp.0.weight": (5120, 5120),
        "visual.merger.mlp.0.bias": (5120,),
        "visual.merger.mlp.2.weight": (hidden, 5120),
        "visual.merger.mlp.2.bias": (hidden,),
    }


@pytest.mark.parametrize("size", ["3B", "7B"])
def test_the_published_names_and_shapes_are_listed_right(size: str) -> None:
    assert sum(map(math.prod, published_shapes(size).values())) == PARAMETERS[size]


def load_hollow(
    folder: Path, size: str, shapes: dict[str, tuple[int, ...]]
) -> tuple[Any, dict[str, Any]]:
    """Load as `_load` does, but from weights that take no memory."""
    (folder / "config.json").write_text(json.dumps(published_config(size)))
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    architecture = AutoModelForImageTextToText._model_mapping[type(config)]
    return architecture.from_pretrained(
        None,
        config=config,
        state_dict={name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
        dtype="bfloat16",
        output_loading_info=True,
        device_map={"": "meta"},
    )


@pytest.mark.parametrize("size", ["3B", "7B"])
def test_every_published_weight_finds_its_place(size: str, tmp_path: Path) -> None:
    model, report = load_hollow(tmp_path, size, published_shapes(size))

    _check_report(tmp_path, report)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[size]


def test_a_published_weight_of_another_name_would_be_noticed(tmp_path: Path) -> None:
    shapes = published_shapes("3B")
    shapes["model.normal.weight"] = shapes.pop("model.norm.weight")

    _, report = load_hollow(tmp_path, "3B", shapes)

    with pytest.raises(ModelLoadError, match="1 missing keys"):
        _check_report(tmp_path, report)
