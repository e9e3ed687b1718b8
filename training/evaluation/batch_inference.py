"""Greedy completions of several prompts at once, each about an image.

The prompts of a batch are padded on the left. Padding and batch size change the last digits of
what a model computes, so that now and then another word wins than one by one: whoever needs the
exact text of `QwenReasoner.stream` asks one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteriaList

from segzero_core.completion.parser import StreamReader
from segzero_core.decoding.decoder import end_ids
from segzero_core.decoding.token_stream import decode, silent_ids
from segzero_core.errors import InputError, OutOfMemoryError, ReasoningError, is_out_of_memory
from segzero_core.loading import load_parts
from segzero_core.pipeline import SegZero
from segzero_core.prompt import build_messages
from segzero_core.reasoner.base import squash
from segzero_core.reasoner.qwen import QwenReasoner
from segzero_core.types import RgbImage


class BatchReasoner(QwenReasoner):
    """A reasoner that can also answer several questions about one image at once."""

    def complete(self, image: RgbImage, queries: Sequence[str]) -> list[str]:
        """Return a completion for each query, as `stream` would one by one but for rounding.

        Raises:
            InputError: The image or a query cannot be used.
            OutOfMemoryError: The device has too little memory.
            ReasoningError: The model failed.
        """
        description = self.description
        seen = squash(image, description.seen_size_wh)
        if any(text in query for text in self._reserved for query in queries):
            raise InputError("a query holds a special token of the model")
        template = description.prompt_template
        messages = [build_messages(template, description.asked(query)) for query in queries]
        return self.generate([seen] * len(messages), messages, description.max_new_tokens)

    def generate(
        self,
        images: Sequence[Image.Image],
        messages: Sequence[list[dict[str, Any]]],
        max_new_tokens: int,
    ) -> list[str]:
        """Complete prompts of any sort: an image and a conversation for the chat template each.

        A completion ends with its answer or an end token.

        Raises:
            OutOfMemoryError: The device has too little memory.
            ReasoningError: The model failed.
        """
        model, processor = self._model, self._processor
        completions = _Completions(model, processor.tokenizer, len(messages))
        greedy = {"do_sample": False, "num_beams": 1}
        greedy |= dict.fromkeys(("temperature", "top_p", "top_k"))
        try:
            texts = [
                processor.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
                for m in messages
            ]
            padding = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
            inputs = processor(text=texts, images=list(images), **padding).to(model.device)
            stop = StoppingCriteriaList([completions])
            with torch.inference_mode():
                model.generate(
                    **inputs, **greedy, max_new_tokens=max_new_tokens, stopping_criteria=stop
                )
        except Exception as error:  # those of torch and of the processor share no root
            if is_out_of_memory(error):
                raise OutOfMemoryError(f"not enough memory for the batch: {error}") from error
            raise ReasoningError(f"the reasoner failed: {error!r}") from error
        return [decode(processor.tokenizer, tokens) for tokens in completions.tokens]


def load_with_batches(
    model: str, *, segmenter: str | None, device: str, template: str | None
) -> tuple[SegZero, BatchReasoner]:
    """Load a pipeline as `SegZero.load` does, and its reasoner, which takes batches.

    Raises:
        SegZeroError: As `SegZero.load`.
    """
    parts = load_parts(model, segmenter, device, template, None, reasoner_type=BatchReasoner)
    assert isinstance(parts[0], BatchReasoner)
    return SegZero(*parts), parts[0]


class _Completions:
    """Collects the tokens of a batch; to transformers it is a stopping criterion."""

    def __init__(self, model: Any, tokenizer: Any, count: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(count)]
        self._ends, self._silent = end_ids(model, tokenizer), silent_ids(tokenizer)
        self._tokenizer = tokenizer
        self._readers = [StreamReader() for _ in range(count)]
        self._over = [False] * count

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        """Take the last token of every completion, and say which are over."""
        for index, token in enumerate(input_ids[:, -1].tolist()):
            if self._over[index]:
                continue
            if token in self._ends:
                self._over[index] = True
            elif token not in self._silent:
                self.tokens[index].append(token)
                # Half a character is no use as text here; the tags are whole tokens.
                self._readers[index].feed(decode(self._tokenizer, [token]))
                self._over[index] = self._readers[index].answer_closed
        return torch.tensor(self._over, device=input_ids.device)
