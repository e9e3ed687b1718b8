"""Before completions made by vLLM are trusted: do they come from the same prompt?

A stack of trainer, processor and vLLM may expand the tokens of a picture twice, or resize the
picture differently on the two sides; the completions are then garbage and every reward is zero,
without an error. So the first questions are answered by both sides, greedily, and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from segzero_core.errors import SegZeroError, shown

PROBES = 2
COMPARED_TOKENS = 24
"""Greedy texts of two implementations drift apart later, by rounding alone."""


class RolloutError(SegZeroError):
    """vLLM answers another prompt than the trainer's."""


@dataclass(frozen=True)
class Rollout:
    """A greedy completion.

    Attributes:
        prompt_tokens: Length of the prompt, picture included, as the side counted it.
        completion_ids: The tokens.
        text: What they say.
    """

    prompt_tokens: int
    completion_ids: tuple[int, ...]
    text: str


class Side(Protocol):
    """One of the two that are compared."""

    def complete(self, messages: Sequence[Any]) -> Rollout:
        """Answer one conversation with its picture, greedily."""


def check_rollouts(trainer_side: Side, vllm_side: Side, conversations: Sequence[Any]) -> None:
    """Compare the two sides on a few conversations.

    Raises:
        RolloutError: They disagree about a prompt's length or about the text; says how.
    """
    for messages in conversations[:PROBES]:
        ours, theirs = trainer_side.complete(messages), vllm_side.complete(messages)
        if ours.prompt_tokens != theirs.prompt_tokens:
            raise RolloutError(
                f"vLLM counts {theirs.prompt_tokens} tokens in a prompt that has"
                f" {ours.prompt_tokens}: it expands the picture again or resizes it. Set grpo.vllm"
                " to off, or give both sides the same pixel limits"
            )
        first, second = (side.completion_ids[:COMPARED_TOKENS] for side in (ours, theirs))
        if first != second:
            raise RolloutError(
                f"vLLM answers {shown(theirs.text)} where the trainer's model answers"
                f" {shown(ours.text)}; the completions cannot be trusted. Set grpo.vllm to off"
            )


class TrainerSide:
    """The trainer's own model through transformers, with the prompt tokens the trainer makes."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def complete(self, messages: Sequence[Any]) -> Rollout:
        """Answer with `generate`."""
        import torch

        trainer = self._trainer
        (ids,), _, fields = trainer._tokenize_prompts([messages])
        device = trainer.accelerator.device
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
        inputs |= {k: torch.as_tensor(v) for k, v in fields.items()}
        model = trainer.accelerator.unwrap_model(trainer.model)
        with torch.no_grad():
            whole = model.generate(
                **{k: v.to(device) for k, v in inputs.items()},
                do_sample=False,
                max_new_tokens=COMPARED_TOKENS,
            )
        new = tuple(whole[0, len(ids) :].tolist())
        return Rollout(len(ids), new, trainer.processing_class.tokenizer.decode(new))


class VllmSide:
    """The vLLM that the trainer is connected to, asked as the trainer asks it."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def complete(self, messages: Sequence[Any]) -> Rollout:
        """Answer with temperature 0, with the weights that the trainer has now."""
        trainer, vllm = self._trainer, self._trainer.vllm_generation
        (ids,), images, _ = trainer._tokenize_prompts([messages])
        vllm.sync_weights()
        usual, vllm.temperature = vllm.temperature, 0.0
        try:
            prompts, completions, *_ = vllm.generate(
                prompts=[ids], images=images, num_generations=1
            )
        finally:
            vllm.temperature = usual
        new = tuple(completions[0])
        return Rollout(len(prompts[0]), new, trainer.processing_class.tokenizer.decode(new))
