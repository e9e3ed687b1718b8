"""Constrained decoding: the most likely token that the grammar accepts; fixed text is forced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

from segzero_core.decoding.grammar import AnswerGrammar, State
from segzero_core.decoding.stepper import Prefill, Stepper
from segzero_core.decoding.token_stream import decode, silent_ids
from segzero_core.errors import ReasoningError

# A shorter run of fixed characters is left to the model: it may write it together with what
# follows, in one token that it knows better.
_SHORTEST_FORCED: Final = 4
# An object, the closing tag and the tags before it, one character a token. So near to the limit no
# further object is begun; at twice that the thinking is ended.
_ROOM_FOR_ONE: Final = 112
# So many of the most likely tokens are tried before the whole vocabulary is sorted.
_LIKELY: Final = 64


class Constraint:
    """Limits the replies of a model to those of a grammar."""

    def __init__(self, tokenizer: Any, grammar: AnswerGrammar) -> None:
        self._tokenizer = tokenizer
        self._grammar = grammar
        self._silent = silent_ids(tokenizer)
        self._texts: dict[int, str] = {}

    def tokens(self, stepper: Stepper, prefill: Prefill, limit: int) -> Iterator[int]:
        """Yield the tokens of one reply to its end; the answer is ended before `limit` tokens."""
        state, scores, count = State(), prefill.scores, 0
        while True:
            hurry = limit - count <= _ROOM_FOR_ONE
            forced = self._grammar.forced(state, hurry=hurry)
            if self._grammar.is_thinking(state) and limit - count <= 2 * _ROOM_FOR_ONE:
                forced = self._grammar.closing(state)
            elif len(forced) < _SHORTEST_FORCED:
                forced = ""
            if forced:
                tokens = self._tokenizer(forced, add_special_tokens=False)["input_ids"]
                following = self._grammar.advance(state, forced, hurry=hurry)
                assert following is not None, "forced text is always accepted"
                state = following
            else:
                token, state = self._choose(prefill.penalized(scores), state, hurry=hurry)
                tokens = [token]
            yield from tokens
            if self._grammar.is_over(state):
                return
            if prefill.seen is not None:
                prefill.seen[torch.tensor(tokens, device=prefill.seen.device)] = True
            scores = stepper.forward(tokens, prefill.position + count, prefill.column + count)[-1]
            count += len(tokens)

    def _choose(self, scores: Tensor, state: State, *, hurry: bool) -> tuple[int, State]:
        """Return the most likely token that the grammar accepts, and the state after it."""
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
            self._texts[token] = "" if silent else decode(self._tokenizer, [token])
        return self._texts[token]
