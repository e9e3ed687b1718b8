"""Checks that completions sampled by vLLM come from the trainer's own prompt and weights.

The trainer, the processor and vLLM may expand the image tokens of a prompt twice, or resize the
image differently. The completions are then useless and every reward is 0, without an error. So
the first questions are answered greedily by both sides, and compared.

Written against TRL's interface; it has not met a real vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from segzero_core.errors import SegZeroError, shown

PROBES = 2
COMPARED_TOKENS = 24
"""Greedy texts of two implementations differ later on, by rounding alone."""


class RolloutError(SegZeroError):
    """vLLM answers another prompt than the trainer's."""


def check_rollouts(trainer: Any, conversations: Sequence[Any]) -> None:
    """Compare vLLM's greedy answers with those of the trainer's model, for questions about images.

    Raises:
        RolloutError: They disagree about a prompt's length or about the text; says how.
    """
    vllm, decode = trainer.vllm_generation, trainer.processing_class.tokenizer.decode
    vllm.sync_weights()
    for messages in conversations[:PROBES]:
        (ids,), images, fields = trainer._tokenize_prompts([messages])
        ours = _generate(trainer, ids, fields)
        usual, vllm.temperature = vllm.temperature, 0.0
        try:
            prompts, completions, *_ = vllm.generate(
                prompts=[ids], images=images, num_generations=1
            )
        finally:
            vllm.temperature = usual
        theirs = list(completions[0])[:COMPARED_TOKENS]
        if len(prompts[0]) != len(ids):
            raise RolloutError(
                f"vLLM counts {len(prompts[0])} tokens in a prompt that has {len(ids)}: it expands"
                " the image again or resizes it. Set grpo.vllm to off, or give both sides the same"
                " pixel limits"
            )
        if theirs != ours:
            raise RolloutError(
                f"vLLM answers {shown(decode(theirs))} where the trainer's model answers"
                f" {shown(decode(ours))}; the completions cannot be trusted. Set grpo.vllm to off"
            )


def _generate(trainer: Any, ids: list[int], fields: dict[str, Any]) -> list[int]:
    """Answer greedily with the trainer's own model."""
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
    inputs |= {name: torch.as_tensor(values) for name, values in fields.items()}
    model = trainer.accelerator.unwrap_model(trainer.model)
    with torch.no_grad():
        tokens = model.generate(
            **{name: values.to(trainer.accelerator.device) for name, values in inputs.items()},
            do_sample=False,
            max_new_tokens=COMPARED_TOKENS,
        )
    return tokens[0, len(ids) :].tolist()
