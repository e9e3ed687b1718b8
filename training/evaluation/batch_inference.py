"""Greedy replies to several prompts at once, each about a picture.

The prompts of a batch are padded on the left. Padding and batch size change the last digits of
what a model computes, so that now and then another word wins than one by one: whoever needs the
very text of `QwenReasoner.stream` asks one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from segzero_core.checkpoints.registry import find_model
from segzero_core.checkpoints.weights import combined_hash, weights_hash
from segzero_core.completion.parser import TAGS, StreamReader
from segzero_core.errors import InputError, OutOfMemoryError, ReasoningError, is_out_of_memory
from segzero_core.loading import adapt, choose_device
from segzero_core.pipeline import SegZero
from segzero_core.prompt import build_messages
from segzero_core.reasoner.base import squash
from segzero_core.reasoner.qwen import QwenReasoner
from segzero_core.segmenter.sam2 import load_segmenter
from segzero_core.types import ModelIdentity, RgbImage


class BatchReasoner(QwenReasoner):
    """A reasoner that can also think about several questions of one picture at once."""

    def complete(self, image: RgbImage, queries: Sequence[str]) -> list[str]:
        """Reply to each query, as `stream` would one by one but for rounding.

        Args:
            image: uint8 [H, W, 3], RGB.
            queries: What to find.

        Raises:
            InputError: The image or a query cannot be used.
            OutOfMemoryError: The device has too little memory.
            ReasoningError: The model failed.
        """
        description = self.description
        picture = squash(image, description.seen_size_wh)
        if any(text in query for text in self._reserved for query in queries):
            raise InputError("a query holds a special token of the model")
        asked = [q.lower() if description.lowercase_query else q for q in queries]
        messages = [build_messages(description.prompt_template, query) for query in asked]
        pictures = [picture] * len(messages)
        return self.reply(pictures, messages, description.max_new_tokens)

    def reply(
        self,
        pictures: Sequence[Image.Image],
        messages: Sequence[list[dict[str, Any]]],
        max_new_tokens: int,
    ) -> list[str]:
        """Reply to prompts of any sort; see `generate_replies`.

        Raises:
            OutOfMemoryError: The device has too little memory.
            ReasoningError: The model failed.
        """
        try:
            return generate_replies(
                self._model, self._processor, pictures, messages, max_new_tokens
            )
        except Exception as error:  # those of torch and of the processor share no root
            if is_out_of_memory(error):
                raise OutOfMemoryError(f"not enough memory for the batch: {error}") from error
            raise ReasoningError(f"the reasoner failed: {error!r}") from error


def load_with_batches(
    model: str, *, segmenter: str | None, device: str, template: str | None
) -> tuple[SegZero, BatchReasoner]:
    """Load a model as `SegZero.load` does, with a reasoner that takes batches.

    Returns:
        The pipeline, and its reasoner.

    Raises:
        SegZeroError: As `SegZero.load`.
    """
    chosen = choose_device(device)
    files = find_model(model)
    sam = load_segmenter(segmenter or files.segmenter, chosen)
    reasoner = BatchReasoner(files.reasoner, adapt(files.description, template, None), chosen)
    reasoner_hash = weights_hash(sorted(files.reasoner.glob("*.safetensors")))
    digest = combined_hash([reasoner_hash, sam.weights_hash])
    identity = ModelIdentity(files.name, digest, sam.encoder.backend)
    return SegZero(reasoner, sam.encoder, sam.segmenter, identity), reasoner


def generate_replies(
    model: Any,
    processor: Any,
    pictures: Sequence[Image.Image],
    messages: Sequence[list[dict[str, Any]]],
    max_new_tokens: int,
) -> list[str]:
    """Reply to all prompts; a reply ends where the model ends it, or with its answer.

    Args:
        model: A transformers model for pictures and text, on its device.
        processor: The model's own.
        pictures: One per prompt.
        messages: One conversation per prompt, for the processor's chat template.
        max_new_tokens: Longest reply.
    """
    import torch
    from transformers import StoppingCriteriaList

    texts = [
        processor.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
        for m in messages
    ]
    inputs = processor(
        text=texts,
        images=list(pictures),
        padding=True,
        padding_side="left",
        return_tensors="pt",
    ).to(model.device)
    rows = _Rows(model, processor.tokenizer, len(texts))
    with torch.inference_mode():
        model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=max_new_tokens,
            stopping_criteria=StoppingCriteriaList([rows]),
        )
    return rows.texts()


class _Rows:
    """Collects the replies of a batch; to transformers it is a stop criterion."""

    def __init__(self, model: Any, tokenizer: Any, count: int) -> None:
        configured = model.generation_config.eos_token_id
        ends = configured if isinstance(configured, list) else [configured]
        self._end_ids = {int(i) for i in (*ends, tokenizer.eos_token_id) if i is not None}
        # The tags may be special tokens; all others are no text.
        special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        self._silent = {int(i) for i, text in special if text.lower() not in TAGS}
        self._tokenizer = tokenizer
        self._tokens: list[list[int]] = [[] for _ in range(count)]
        self._readers = [StreamReader() for _ in range(count)]
        self._over = [False] * count

    def __call__(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        """Take the newest token of every reply, and say which are over."""
        import torch

        for index, token in enumerate(input_ids[:, -1].tolist()):
            if not self._over[index]:
                self._take(index, token)
        return torch.tensor(self._over, device=input_ids.device)

    def _take(self, index: int, token: int) -> None:
        if token in self._end_ids:
            self._over[index] = True
        elif token not in self._silent:
            self._tokens[index].append(token)
            # Of no use as text, where a token is half a character; the tags are whole ones.
            self._readers[index].feed(self._decode([token]))
            self._over[index] = self._readers[index].answer_closed

    def texts(self) -> list[str]:
        return [self._decode(tokens) for tokens in self._tokens]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text
