"""Makes the tokenizer and the processor of the small reasoner.

A byte-level BPE whose words are those of one world: a word that it does not hold falls into
fragments, and that is how the model notices what it does not know. Every number that can
stand in an answer, and every fixed part of prompt and answer, is one token.
"""

from __future__ import annotations

from itertools import count

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from segzero_core.prompt import SEG_ZERO_TEMPLATES
from training.bundle.reasoner.text import FIXED_CHUNKS
from training.bundle.reasoner.world import World

PATCH, MERGE = 14, 2
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen's own way of cutting text into words before BPE.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def template_parts() -> list[str]:
    """The texts before and after the question in every prompt template."""
    return [part for text in SEG_ZERO_TEMPLATES.values() for part in text.split("{Question}")]


def build_tokenizer(texts: list[str], world: World) -> PreTrainedTokenizerFast:
    """Learn the merges from questions and thoughts, and add the one-token parts."""
    core = Tokenizer(BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=1200,
        min_frequency=20,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    core.add_tokens(_one_token_parts(world))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        additional_special_tokens=list(SPECIAL[3:]),
    )


def extend_tokenizer(tokenizer: PreTrainedTokenizerFast, world: World) -> PreTrainedTokenizerFast:
    """Add the one-token parts that an older tokenizer lacks; no token changes its number."""
    tokenizer.add_tokens(_one_token_parts(world))
    return tokenizer


def _one_token_parts(world: World) -> list[AddedToken]:
    parts = [
        "user\n",
        "assistant\n",
        *world.fixed_texts,
        *FIXED_CHUNKS,
        *template_parts(),
        *(str(n) for n in range(world.seen_size_px + 1)),
    ]
    return [AddedToken(text, normalized=False, special=False) for text in parts]


def seen_size_px(tokenizer: PreTrainedTokenizerFast) -> int:
    """Side of the image that a model with this tokenizer sees: its largest coordinate."""
    vocabulary = tokenizer.get_vocab()
    return next(n for n in count() if str(n + 1) not in vocabulary)


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Build a processor that does not resize an image of the seen size."""
    pixels = seen_size_px(tokenizer) ** 2
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    common = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "size": size,
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**common),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**common),
        chat_template=CHAT_TEMPLATE,
    )
