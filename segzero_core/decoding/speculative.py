"""Guesses what is said next by what was said before; the model checks several guesses at once.

Replies to a robot's questions are alike ("The question asks for a …"). Reading five tokens costs a
model hardly more than reading one, because its weights are read once. A guess is only taken where
the model says the same, so the reply is what it would be without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

    from segzero_core.decoding.decoder import Start
    from segzero_core.qwen_vl.language_model import LanguageModel

MOST_GUESSES: Final = 5
_LONGEST_CONTEXT: Final = 8
_SHORTEST_CONTEXT: Final = 2
_MOST_CONTEXTS: Final = 100_000
_NUMBER: Final = -1
_BEGINNING: Final = -2


class Drafts:
    """Remembers which token followed which tokens. All numbers count as one and the same.

    Args:
        is_number: Says of a token whether it is a number; those are never guessed.
    """

    def __init__(self, is_number: Callable[[int], bool]) -> None:
        self._is_number = is_number
        self._following: dict[tuple[int, ...], int] = {}

    def beginning(self) -> list[int]:
        """Return what stands before every reply."""
        return [_BEGINNING] * _LONGEST_CONTEXT

    def add(self, history: list[int], token: int) -> None:
        """Write down a token, and learn what it followed.

        Args:
            history: What was said, from `beginning` on; the token is added to it.
            token: What was said next.
        """
        number = self._is_number(token)
        for length in range(_SHORTEST_CONTEXT, _LONGEST_CONTEXT + 1):
            context = tuple(history[-length:])
            if number:
                self._following.pop(context, None)
            else:
                self._following[context] = token
        if len(self._following) > _MOST_CONTEXTS:
            self._following.clear()
        history.append(_NUMBER if number else token)

    def guess(self, history: list[int]) -> list[int]:
        """Return up to `MOST_GUESSES` tokens that may follow."""
        recent = history[-_LONGEST_CONTEXT:]
        guesses: list[int] = []
        while len(guesses) < MOST_GUESSES:
            contexts = (
                tuple(recent[-length:])
                for length in range(_LONGEST_CONTEXT, _SHORTEST_CONTEXT - 1, -1)
            )
            token = next((self._following[c] for c in contexts if c in self._following), None)
            if token is None:
                break
            guesses.append(token)
            recent.append(token)
        return guesses


class DraftingStepper:
    """Reads guessed tokens together with the last one; see `decoding.Stepper`.

    Args:
        language: The language tower.
        drafts: Makes the guesses, and learns from every reply.
    """

    def __init__(self, language: LanguageModel, drafts: Drafts) -> None:
        self._language = language
        self._drafts = drafts

    def tokens(self, start: Start) -> Iterator[int]:
        """Yield tokens, several after one look at the weights. See `Stepper`."""
        from segzero_core.decoding.decoder import penalised

        history = self._drafts.beginning()
        token = int(penalised(start.scores, start.seen, start.penalty).argmax())
        said = 0
        while True:
            self._drafts.add(history, token)
            yield token
            guesses = self._drafts.guess(history)
            every = self._language.read_each(
                [token, *guesses], start.position + said, start.column + said
            )
            for scores, guess in zip(every, [*guesses, None], strict=True):
                said += 1
                if start.seen is not None:
                    start.seen[token] = True
                token = int(penalised(scores, start.seen, start.penalty).argmax())
                if token != guess:
                    break  # what was read behind it is written over
                self._drafts.add(history, token)
                yield token

    def scores_after(self, token: int, position: int, column: int) -> Tensor:
        """Read one token; see `Stepper`."""
        return self._language.step(token, position, column)
