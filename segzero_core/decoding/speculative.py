"""N-gram speculative decoding: earlier replies propose tokens, one forward pass verifies them.

Replies to a robot's questions are alike ("The question asks for a …"). Reading five tokens costs a
model hardly more than reading one, because its weights are read once. A proposed token is taken
only where the model would have chosen it, so the reply is the same as without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from torch import Tensor

from segzero_core.decoding.stepper import Prefill
from segzero_core.qwen_vl.language_model import LanguageModel

MAX_DRAFT_TOKENS: Final = 5
_LONGEST_CONTEXT: Final = 8
_SHORTEST_CONTEXT: Final = 2
_MAX_CONTEXTS: Final = 100_000
_NUMBER: Final = -1
_BEGINNING: Final = -2


class NgramProposer:
    """Remembers which token followed which tokens; numbers count as one and are never proposed."""

    def __init__(self, is_number: Callable[[int], bool]) -> None:
        self._is_number = is_number
        self._following: dict[tuple[int, ...], int] = {}

    def new_history(self) -> list[int]:
        """Return the history of a reply that has no tokens yet."""
        return [_BEGINNING] * _LONGEST_CONTEXT

    def add(self, history: list[int], token: int) -> None:
        """Append the next token of a reply to its history, and learn what it followed."""
        number = self._is_number(token)
        for length in range(_SHORTEST_CONTEXT, _LONGEST_CONTEXT + 1):
            context = tuple(history[-length:])
            if number:
                self._following.pop(context, None)
            else:
                self._following[context] = token
        if len(self._following) > _MAX_CONTEXTS:
            self._following.clear()
        history.append(_NUMBER if number else token)

    def propose(self, history: list[int]) -> list[int]:
        """Return up to `MAX_DRAFT_TOKENS` tokens that may follow."""
        recent = history[-_LONGEST_CONTEXT:]
        draft: list[int] = []
        while len(draft) < MAX_DRAFT_TOKENS:
            contexts = (
                tuple(recent[-length:])
                for length in range(_LONGEST_CONTEXT, _SHORTEST_CONTEXT - 1, -1)
            )
            token = next((self._following[c] for c in contexts if c in self._following), None)
            if token is None:
                break
            draft.append(token)
            recent.append(token)
        return draft


class SpeculativeStepper:
    """Reads draft tokens of a proposer, if any, together with the last token; see `Stepper`."""

    def __init__(self, language: LanguageModel, proposer: NgramProposer | None) -> None:
        self._language = language
        self._proposer = proposer

    def tokens(self, prefill: Prefill) -> Iterator[int]:
        """Yield tokens; the model reads a token only when the one after it is wanted."""
        proposer = self._proposer
        history = proposer.new_history() if proposer else []
        rows: Sequence[Tensor] | Tensor = [prefill.scores]
        draft: list[int] = []
        count = 0
        while True:
            for scores, proposed in zip(rows, [*draft, None], strict=True):
                token = int(prefill.penalized(scores).argmax())
                if prefill.seen is not None:
                    prefill.seen[token] = True
                if proposer:
                    proposer.add(history, token)
                count += 1
                yield token
                if token != proposed:
                    break  # the next pass writes over the columns of what is left of the draft
            draft = proposer.propose(history) if proposer else []
            behind = count - 1
            rows = self.forward(
                [token, *draft], prefill.position + behind, prefill.column + behind
            )

    def forward(self, tokens: Sequence[int], position: int, start: int) -> Tensor:
        """Read tokens with the language model."""
        return self._language.forward(tokens, position, start)
