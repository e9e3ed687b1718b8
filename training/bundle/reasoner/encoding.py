"""Encodes questions and completions, with what training knows about each token."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from segzero_core.prompt import build_prompt
from training.bundle.reasoner.text import CHOSEN, Chunk

WORD, NUMBER, CHOICE, CHOOSING_NUMBER = range(4)
"""Roles of a token: a word, a coordinate, the first token of a choice, both of these."""


NOT_WRITTEN = -100


class EncodedQuestion(NamedTuple):
    """The tokens after the image, and what training knows about each."""

    ids: list[int]  # the tokens as the model reads them
    targets: list[int]  # the token that it writes there; `NOT_WRITTEN` where it writes none
    object_ids: list[int]  # the object that the token is about; 0 for none
    sources: list[tuple[int, ...]]  # positions of one or two tokens from which it follows; or none
    roles: list[int]  # `WORD`, `NUMBER`, `CHOICE` or `CHOOSING_NUMBER`


def until_choice(chunks: list[Chunk]) -> list[Chunk]:
    """Cut off the thinking after the chunk in which the choice has fallen."""
    end = next(i for i, chunk in enumerate(chunks) if chunk.text in CHOSEN)
    return chunks[: end + 1]


def encode_question(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    chunks: list[Chunk],
    template: str,
    *,
    closed: bool = True,
) -> EncodedQuestion:
    """Encode a question and its completion.

    A completion that is not `closed` is cut off, so the model writes no end token.
    """
    end = [Chunk("<|im_end|>")] if closed else []
    return encode_chunks(tokenizer, build_prompt(template, text.lower()), [*chunks, *end])


def encode_chunks(
    tokenizer: PreTrainedTokenizerFast, prompt: str, chunks: list[Chunk]
) -> EncodedQuestion:
    """Encode a prompt as the user's turn, and the model's turn after it."""
    encode = _encoder(tokenizer)
    ids = list(encode(f"<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n"))
    count = len(ids)
    found = EncodedQuestion(ids, [NOT_WRITTEN] * count, [0] * count, [()] * count, [WORD] * count)
    positions: dict[str, int] = {}
    for chunk in chunks:
        tokens = encode(chunk.text)
        sources = tuple(positions[name] for name in chunk.looks_at)
        found.sources.extend([sources, *[()] * (len(tokens) - 1)])
        if chunk.name:
            positions[chunk.name] = len(ids)
        found.ids.extend(encode(chunk.read or chunk.text))
        found.targets.extend([NOT_WRITTEN] * len(tokens) if chunk.given else tokens)
        found.object_ids.extend([chunk.object_id] * len(tokens))
        first = CHOICE if chunk.decides else WORD
        if chunk.given:
            roles = [WORD] * len(tokens)
        elif chunk.text.isdigit():
            roles = [CHOOSING_NUMBER if chunk.decides else NUMBER]
        else:
            roles = [first, *[WORD] * (len(tokens) - 1)]
        found.roles.extend(roles)
    return found


@lru_cache(maxsize=4)
def _encoder(tokenizer: PreTrainedTokenizerFast):
    @lru_cache(maxsize=20000)
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode
