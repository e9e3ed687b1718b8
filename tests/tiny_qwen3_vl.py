"""A tiny Qwen3-VL in the published format, for tests: random, or taught to say one reply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch

from segzero_core.checkpoints.description import FILE_NAME
from segzero_core.prompt import MULTI_OBJECT, QWEN_NATIVE
from tests.tiny_models import _CHAT_TEMPLATE, _SPECIAL, _teach_chain, _tokenizer, _unique_pieces

NATIVE_REPLY: Final = '```json\n[\n\t{"bbox_2d": [125, 250, 625, 900], "label": "red mug"}\n]\n```'
SEEN_WH: Final = (128, 96)
_START: Final = "assistant\n"


def save_tiny_qwen3_vl(
    folder: Path, reply: str | None = None, *, start: str = "", **text: Any
) -> Path:
    """Write a Qwen3-VL with its `segzero.json`, and return the folder.

    Args:
        folder: Is made if it is not there.
        reply: What it always says; None leaves its weights random.
        start: With this its chat template begins every reply, such as `<think>`.
        text: Fields of the language model's configuration that shall differ.
    """
    from transformers import Qwen3VLForConditionalGeneration

    pieces = _unique_pieces(reply or "a b c")
    tokenizer = _tokenizer([start, *pieces] if start else pieces)
    torch.manual_seed(0)
    model: Any = Qwen3VLForConditionalGeneration(config_of(tokenizer, **text))
    if reply is None:
        # As made, its scores hardly differ, and one token is said again and again.
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.2)
    else:
        chain = [start or _START, *pieces, "<|im_end|>"]
        _teach_chain(model, [int(i) for i in tokenizer.convert_tokens_to_ids(chain)])
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    _processor(tokenizer, start).save_pretrained(folder)
    values = {
        "name": "tiny-qwen3-vl",
        "prompt_template": QWEN_NATIVE,
        "templates": [QWEN_NATIVE, MULTI_OBJECT],
        "seen_size_wh": list(SEEN_WH),
        "coordinates": "normalized_1000",
        "segmenter": "../segmenter",
        "max_new_tokens": 400,
    }
    (folder / FILE_NAME).write_text(json.dumps(values))
    return folder


def config_of(tokenizer: Any, **text: Any) -> Any:
    """Return a configuration with groups of heads, several layers and two of DeepStack."""
    from transformers import Qwen3VLConfig

    special = {name: int(tokenizer.convert_tokens_to_ids(name)) for name in _SPECIAL}
    language: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000_000.0,
            "mrope_section": [4, 4, 4],
            "mrope_interleaved": True,
        },
        "bos_token_id": special["<|endoftext|>"],
        "eos_token_id": special["<|im_end|>"],
        "pad_token_id": special["<|endoftext|>"],
        **text,
    }
    return Qwen3VLConfig(
        text_config=language,
        vision_config={
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": language["hidden_size"],
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 2],
        },
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def _processor(tokenizer: Any, start: str) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    pixels = SEEN_WH[0] * SEEN_WH[1]
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    common = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**common),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**common),
        chat_template=_CHAT_TEMPLATE.replace(_START, _START + start),
    )
