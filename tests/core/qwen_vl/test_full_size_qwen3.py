"""The full-size Qwen3-VL in its published format goes through the same loader and our loop.

Nothing is downloaded: the weights have the published names and shapes, and no contents.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from segzero_core import ModelLoadError
from segzero_core.decoding.decoder import is_supported
from segzero_core.qwen_vl.language_model import LanguageModel, multimodal_positions
from segzero_core.reasoner.qwen import _check_report

HEAD_DIM, KEY_HEADS, WORDS = 128, 8, 151936


@dataclass(frozen=True)
class Size:
    """From the config.json of Qwen/Qwen3-VL-{2B,4B,8B}-{Instruct,Thinking}."""

    hidden: int
    wide: int
    layers: int
    heads: int
    tied: bool
    vision_layers: int
    vision_hidden: int
    vision_wide: int
    deep_from: tuple[int, ...]
    parameters: int  # as the Hub's pages say


SIZES = {
    "2B": Size(2048, 6144, 28, 16, True, 24, 1024, 4096, (5, 11, 17), 2_127_532_032),
    "4B": Size(2560, 9728, 36, 32, True, 24, 1024, 4096, (5, 11, 17), 4_437_815_808),
    "8B": Size(4096, 12288, 36, 32, False, 27, 1152, 4304, (8, 16, 24), 8_767_123_696),
}


def published_config(size: Size) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "tie_word_embeddings": size.tied,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "attention_bias": False,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "hidden_size": size.hidden,
            "intermediate_size": size.wide,
            "max_position_embeddings": 262144,
            "num_attention_heads": size.heads,
            "num_hidden_layers": size.layers,
            "num_key_value_heads": KEY_HEADS,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "rope_theta": 5000000,
            "tie_word_embeddings": size.tied,
            "vocab_size": WORDS,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "deepstack_visual_indexes": list(size.deep_from),
            "depth": size.vision_layers,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": size.vision_hidden,
            "in_channels": 3,
            "intermediate_size": size.vision_wide,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": size.hidden,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def published_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the published safetensors index lists them."""
    hidden, seen, merged = size.hidden, size.vision_hidden, 4 * size.vision_hidden
    text, vision = "model.language_model.", "model.visual."
    shapes: dict[str, tuple[int, ...]] = {
        f"{text}embed_tokens.weight": (WORDS, hidden),
        f"{text}norm.weight": (hidden,),
        f"{vision}patch_embed.proj.weight": (seen, 3, 2, 16, 16),
        f"{vision}patch_embed.proj.bias": (seen,),
        f"{vision}pos_embed.weight": (2304, seen),
    }
    if not size.tied:
        shapes["lm_head.weight"] = (WORDS, hidden)
    for layer in range(size.layers):
        for name, shape in {
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (size.heads * HEAD_DIM, hidden),
            "self_attn.k_proj": (KEY_HEADS * HEAD_DIM, hidden),
            "self_attn.v_proj": (KEY_HEADS * HEAD_DIM, hidden),
            "self_attn.o_proj": (hidden, size.heads * HEAD_DIM),
            "self_attn.q_norm": (HEAD_DIM,),
            "self_attn.k_norm": (HEAD_DIM,),
            "mlp.gate_proj": (size.wide, hidden),
            "mlp.up_proj": (size.wide, hidden),
            "mlp.down_proj": (hidden, size.wide),
        }.items():
            shapes[f"{text}layers.{layer}.{name}.weight"] = shape
    modules: dict[str, tuple[int, ...]] = {}
    for block in range(size.vision_layers):
        modules |= {
            f"blocks.{block}.norm1": (seen,),
            f"blocks.{block}.norm2": (seen,),
            f"blocks.{block}.attn.qkv": (3 * seen, seen),
            f"blocks.{block}.attn.proj": (seen, seen),
            f"blocks.{block}.mlp.linear_fc1": (size.vision_wide, seen),
            f"blocks.{block}.mlp.linear_fc2": (seen, size.vision_wide),
        }
    mergers = {"merger": seen} | {
        f"deepstack_merger_list.{index}": merged for index in range(len(size.deep_from))
    }
    for name, normed in mergers.items():
        modules |= {
            f"{name}.norm": (normed,),
            f"{name}.linear_fc1": (merged, merged),
            f"{name}.linear_fc2": (hidden, merged),
        }
    for name, shape in modules.items():
        shapes[f"{vision}{name}.weight"], shapes[f"{vision}{name}.bias"] = shape, shape[:1]
    return shapes


def load_hollow(
    folder: Path, size: Size, shapes: dict[str, tuple[int, ...]]
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


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_published_weight_finds_its_place(size: Size, tmp_path: Path) -> None:
    shapes = published_shapes(size)
    assert sum(map(math.prod, shapes.values())) == size.parameters

    model, report = load_hollow(tmp_path, size, shapes)

    _check_report(tmp_path, report)
    assert is_supported(model)
    assert sum(p.numel() for p in model.parameters()) == size.parameters


def test_a_published_weight_of_another_name_would_be_noticed(tmp_path: Path) -> None:
    shapes = published_shapes(SIZES["2B"])
    name = "model.language_model.layers.3.self_attn.q_norm.weight"
    shapes[name.replace("q_norm", "query_norm")] = shapes.pop(name)

    _, report = load_hollow(tmp_path, SIZES["2B"], shapes)

    with pytest.raises(ModelLoadError, match="1 missing keys"):
        _check_report(tmp_path, report)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@torch.inference_mode()
def test_our_loop_takes_the_full_size(size: Size, tmp_path: Path) -> None:
    model, _ = load_hollow(tmp_path, size, published_shapes(size))
    model.eval()
    language = LanguageModel(model)
    ids = [1, 2, *[151655] * 1024, 3, 4]
    language.reserve(len(ids) + 1)
    x = torch.empty(len(ids), size.hidden, dtype=torch.bfloat16, device="meta")
    positions = multimodal_positions(ids, 151655, (32, 32))

    logits = language.prefill(x, positions, 0, [x] * len(size.deep_from))

    assert logits.shape == (WORDS,)
    assert [tuple(t.shape) for t in language.kv_cache[0]] == [(KEY_HEADS, 1536, HEAD_DIM)] * 2
    assert language.forward([5], 40, len(ids)).shape == (1, WORDS)
