"""What every way of generating tokens has in common: where it starts, and what it offers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prefill:
    """The state of a model that has read a prompt; a reply begins here."""

    scores: Tensor  # float32 [V], the logits of the first token of the reply
    position: int  # rotary position of that token
    column: int  # its column in the KV cache
    # bool [V], the tokens of the prompt, to which those of the reply are added; None without a
    # repetition penalty.
    seen: Tensor | None = None
    penalty: float = 1.0  # the repetition penalty; 1 has no effect

    def penalized(self, scores: Tensor) -> Tensor:
        """Return logits in which the tokens seen so far are less likely.

        Source: transformers' `RepetitionPenaltyLogitsProcessor`, which Qwen's settings ask for.
        """
        if self.seen is None:
            return scores
        lower = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(self.seen, lower, scores)


class Stepper(Protocol):
    """Generates tokens with a language model, in one of several ways."""

    def tokens(self, prefill: Prefill) -> Iterator[int]:
        """Yield the most likely tokens, without end."""

    def forward(self, tokens: Sequence[int], position: int, start: int) -> Tensor:
        """Read tokens; return the logits after each. See `LanguageModel.forward`."""
