"""Tiny models in the published formats, for tests: real code, made-up weights, made in a second.

The reasoner is a Qwen2.5-VL that says one fixed reply to everything; the segmenter is a SAM 2
with random weights.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from segzero_core.checkpoints.description import FILE_NAME
from segzero_core.checkpoints.sam2_architecture import build_sam2, config_text
from segzero_core.prompt import MULTI_OBJECT, SINGLE_OBJECT

TINY_REPLY = (
    "<think>I see a red mug and a blue one; the red one is meant.</think>"
    '<answer>[{"bbox_2d": [14, 28, 70, 84], "point_2d": [42, 56]}]</answer>'
)
TINY_SEEN_WH = (112, 84)

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_START = "assistant\n"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_HIDDEN = 128
_PIECE_CHARS = 3


def save_tiny_model(folder: Path, reply: str = TINY_REPLY, **description: Any) -> Path:
    """Write a model folder with `reasoner/` and `segmenter/` in it, and return it."""
    save_tiny_reasoner(folder / "reasoner", reply, segmenter="../segmenter", **description)
    save_tiny_segmenter(folder / "segmenter")
    return folder


def save_tiny_reasoner(folder: Path, reply: str = TINY_REPLY, **description: Any) -> Path:
    """Write a Qwen2.5-VL that always says `reply`, and its `segzero.json`; return the folder.

    Args:
        folder: Is made if it is not there.
        reply: The text it says.
        description: Fields of the `segzero.json` that shall differ.
    """
    from transformers import Qwen2_5_VLForConditionalGeneration

    pieces = _unique_pieces(reply)
    tokenizer = _tokenizer(pieces)
    torch.manual_seed(0)
    model: Any = Qwen2_5_VLForConditionalGeneration(_config(tokenizer))
    chain = [_START, *pieces, "<|im_end|>"]
    _teach_chain(model, [int(i) for i in tokenizer.convert_tokens_to_ids(chain)])
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    values = {
        "name": "tiny",
        "prompt_template": MULTI_OBJECT,
        "templates": [MULTI_OBJECT, SINGLE_OBJECT],
        "seen_size_wh": list(TINY_SEEN_WH),
        "coordinates": "absolute",
        "segmenter": "../segmenter",
        "max_new_tokens": 400,
    }
    (folder / FILE_NAME).write_text(json.dumps(values | description))
    return folder


def save_tiny_segmenter(folder: Path, *, as_pt: bool = False) -> Path:
    """Write a SAM 2 with random weights in sam2's own form, and return the folder.

    Args:
        folder: Is made if it is not there.
        as_pt: Write the weights as Meta publishes them, not as safetensors.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "sam2.yaml"
    config.write_text(config_text({"model": tiny_sam2_config()}))
    torch.manual_seed(0)
    state = build_sam2(config).state_dict()
    if as_pt:
        torch.save({"model": state}, folder / "sam2.pt")
    else:
        half = {name: tensor.half().contiguous() for name, tensor in state.items()}
        save_file(half, folder / "model.safetensors")
    return folder


def _unique_pieces(reply: str) -> list[str]:
    """Cut a reply into pieces that differ from each other, so that each can follow one other."""
    pieces: list[str] = []
    start = 0
    while start < len(reply):
        end = start + _PIECE_CHARS
        while reply[start:end] in pieces and end < len(reply):
            end += 1
        pieces.append(reply[start:end])
        start = end
    if len(set(pieces)) != len(pieces):
        pieces[-2:] = ["".join(pieces[-2:])]
    return pieces


def _tokenizer(pieces: list[str]) -> Any:
    """Make a byte-level tokenizer in which every piece is one token."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    words = [_START, *pieces]
    core.add_tokens([AddedToken(text, normalized=False, special=False) for text in words])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=list(_SPECIAL[3:]),
    )


def _config(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    special = dict(
        zip(
            _SPECIAL,
            (int(tokenizer.convert_tokens_to_ids(text)) for text in _SPECIAL),
            strict=True,
        )
    )
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": _HIDDEN,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_scaling": {
                "type": "default",
                "mrope_section": [4, 6, 6],
                "rope_type": "default",
            },
            "bos_token_id": special["<|endoftext|>"],
            "eos_token_id": special["<|im_end|>"],
            "pad_token_id": special["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": _HIDDEN,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def _teach_chain(model: Any, chain: list[int]) -> None:
    """Make each token of the chain be followed by the next, whatever stands before it."""
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # Signs are nearly orthogonal in this many dimensions, so the right successor wins.
        embedding = model.get_input_embeddings().weight
        embedding.copy_(torch.randn_like(embedding).sign())
        head = model.get_output_embeddings().weight
        head.zero_()
        for token, successor in pairwise(chain):
            head[successor] = embedding[token]


def _processor(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = TINY_SEEN_WH[0] * TINY_SEEN_WH[1]
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    common = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**common),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**common),
        chat_template=_CHAT_TEMPLATE,
    )


def tiny_sam2_config() -> dict[str, Any]:
    """Return the `model:` section of a SAM 2 with 128-pixel input."""
    position = {
        "_target_": "sam2.modeling.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": 32,
        "normalize": True,
        "scale": None,
        "temperature": 10000,
    }
    return {
        "_target_": "sam2.modeling.sam2_base.SAM2Base",
        "image_encoder": {
            "_target_": "sam2.modeling.backbones.image_encoder.ImageEncoder",
            "scalp": 1,
            "trunk": {
                "_target_": "sam2.modeling.backbones.hieradet.Hiera",
                "embed_dim": 16,
                "num_heads": 1,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_spec": [8, 8, 8, 4],
                "window_pos_embed_bkg_spatial_size": [7, 7],
            },
            "neck": {
                "_target_": "sam2.modeling.backbones.image_encoder.FpnNeck",
                "position_encoding": position,
                "d_model": 32,
                "backbone_channel_list": [128, 64, 32, 16],
                "fpn_top_down_levels": [2, 3],
                "fpn_interp_model": "nearest",
            },
        },
        "memory_attention": _tiny_memory_attention(),
        "memory_encoder": _tiny_memory_encoder(position),
        "num_maskmem": 7,
        "image_size": 128,
        "directly_add_no_mem_embed": True,
        "use_high_res_features_in_sam": True,
        "multimask_output_in_sam": True,
        "iou_prediction_use_sigmoid": True,
        "use_obj_ptrs_in_encoder": True,
        "pred_obj_scores": True,
        "pred_obj_scores_mlp": True,
        "fixed_no_obj_ptr": True,
        "use_mlp_for_obj_ptr_proj": True,
    }


def _tiny_memory_attention() -> dict[str, Any]:
    attention = {
        "_target_": "sam2.modeling.sam.transformer.RoPEAttention",
        "rope_theta": 10000.0,
        "feat_sizes": [8, 8],
        "embedding_dim": 32,
        "num_heads": 1,
        "downsample_rate": 1,
        "dropout": 0.1,
    }
    return {
        "_target_": "sam2.modeling.memory_attention.MemoryAttention",
        "d_model": 32,
        "pos_enc_at_input": True,
        "num_layers": 1,
        "layer": {
            "_target_": "sam2.modeling.memory_attention.MemoryAttentionLayer",
            "activation": "relu",
            "dim_feedforward": 32,
            "dropout": 0.1,
            "pos_enc_at_attn": False,
            "d_model": 32,
            "pos_enc_at_cross_attn_keys": True,
            "pos_enc_at_cross_attn_queries": False,
            "self_attention": attention,
            "cross_attention": {**attention, "rope_k_repeat": True, "kv_in_dim": 16},
        },
    }


def _tiny_memory_encoder(position: dict[str, Any]) -> dict[str, Any]:
    return {
        "_target_": "sam2.modeling.memory_encoder.MemoryEncoder",
        "out_dim": 16,
        "in_dim": 32,
        "position_encoding": {**position, "num_pos_feats": 16},
        "mask_downsampler": {
            "_target_": "sam2.modeling.memory_encoder.MaskDownSampler",
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "embed_dim": 32,
        },
        "fuser": {
            "_target_": "sam2.modeling.memory_encoder.Fuser",
            "num_layers": 1,
            "layer": {
                "_target_": "sam2.modeling.memory_encoder.CXBlock",
                "dim": 32,
                "kernel_size": 7,
                "padding": 3,
                "layer_scale_init_value": 1e-6,
                "use_dwconv": True,
            },
        },
    }
