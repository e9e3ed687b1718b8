"""Decoding under a grammar: the likeliest token that is allowed, and fixed text unasked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from segzero_core.decoding.grammar import AnswerGrammar, State
from segzero_core.decoding.token_stream import decoded, silent_ids
from segzero_core.errors import ReasoningError

if TYPE_CHECKING:
    from segzero_core.decoding.decoder import Start, Stepper
    from segzero_core.qwen_vl.language_model import LanguageModel

# A shorter run of fixed characters is asked for: the model may write it together with what
# follows, in one token that it knows better.
_SHORTEST_FORCED: Final = 4
# An object, the closing tag and the tags before it, one character a token. So near to the limit no
# further object is begun; at twice that the thinking is ended.
_ROOM_FOR_ONE: Final = 112
# Tokens that are looked at before all are sorted.
_LIKELY: Final = 64


class Constraint:
    """Limits what a model may say to what a grammar lets through.

    Args:
        tokenizer: The model's.
        grammar: What may be said.
    """

    def __init__(self, tokenizer: Any, grammar: AnswerGrammar) -> None:
        self._tokenizer = tokenizer
        self._grammar = grammar
        self._silent = silent_ids(tokenizer)
        self._texts: dict[int, str] = {}

    def tokens(
        self, language: LanguageModel, stepper: Stepper, start: Start, limit: int
    ) -> Iterator[int]:
        """Yield the tokens of one reply, to its end.

        Args:
            language: Reads fixed text, several tokens at once.
            stepper: Reads single tokens.
            start: Where the reply begins.
            limit: Most tokens; the answer is brought to an end before.
        """
        state, scores = State(), start.scores
        position, column, said = start.position, start.column, 0
        while True:
            hurry = limit - said <= _ROOM_FOR_ONE
            forced = self._forced(state, hurry=hurry)
            if self._grammar.is_thinking(state) and limit - said <= 2 * _ROOM_FOR_ONE:
                forced = self._grammar.closing(state)
            if forced:
                tokens = self._tokens_of(forced)
                state = self._advanced(state, forced, hurry=hurry)
            else:
                token, state = self._choose(scores, state, start, hurry=hurry)
                tokens = [token]
            yield from tokens
            said += len(tokens)
            if self._grammar.is_over(state) or said >= limit:
                return
            if start.seen is not None:
                start.seen[torch.tensor(tokens, device=start.seen.device)] = True
            scores = _read(language, stepper, tokens, position, column)
            position, column = position + len(tokens), column + len(tokens)

    def _forced(self, state: State, *, hurry: bool) -> str:
        text = self._grammar.forced(state, hurry=hurry)
        return text if len(text) >= _SHORTEST_FORCED else ""

    def _tokens_of(self, text: str) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(i) for i in ids]

    def _advanced(self, state: State, text: str, *, hurry: bool) -> State:
        following = self._grammar.advance(state, text, hurry=hurry)
        assert following is not None, "forced text is always allowed"
        return following

    def _choose(
        self, scores: Tensor, state: State, start: Start, *, hurry: bool
    ) -> tuple[int, State]:
        """Return the likeliest token that the grammar allows, and the state after it."""
        from segzero_core.decoding.decoder import penalised

        scores = penalised(scores, start.seen, start.penalty)
        for count in (min(_LIKELY, len(scores)), len(scores)):
            for token in scores.topk(count).indices.tolist():
                text = self._text(token)
                following = self._grammar.advance(state, text, hurry=hurry) if text else None
                if following is not None:
                    return token, following
        raise ReasoningError(
            f"the model has no token that can follow in the grammar's state {state}; its"
            " tokenizer does not fit the answer format, turn the grammar off"
        )

    def _text(self, token: int) -> str:
        if token not in self._texts:
            silent = token in self._silent
            self._texts[token] = "" if silent else decoded(self._tokenizer, [token])
        return self._texts[token]


def _read(
    language: LanguageModel, stepper: Stepper, tokens: list[int], position: int, column: int
) -> Tensor:
    if len(tokens) == 1:
        return stepper.scores_after(tokens[0], position, column)
    return language.read_each(tokens, position, column)[-1]
