"""Speculative decoding does not change the tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from segzero_core.decoding.speculative import (
    MAX_DRAFT_TOKENS,
    NgramProposer,
    SpeculativeStepper,
)
from segzero_core.decoding.stepper import Prefill
from segzero_core.qwen_vl.language_model import LanguageModel
from tests.core.qwen_vl.test_language_model import random_model

NUMBERS = range(90, 100)


def learned(*replies: list[int]) -> NgramProposer:
    proposer = NgramProposer(lambda token: token in NUMBERS)
    for reply in replies:
        history = proposer.new_history()
        for token in reply:
            proposer.add(history, token)
    return proposer


def proposed(proposer: NgramProposer, said: list[int]) -> list[int]:
    history = proposer.new_history()
    history += [-1 if token in NUMBERS else token for token in said]
    return proposer.propose(history)


def test_a_known_reply_is_proposed_a_few_tokens_ahead() -> None:
    reply = list(range(10, 30))
    proposer = learned(reply)

    assert proposed(proposer, []) == reply[:MAX_DRAFT_TOKENS]
    assert proposed(proposer, reply[:12]) == reply[12 : 12 + MAX_DRAFT_TOKENS]
    assert proposed(proposer, reply) == []


def test_numbers_are_never_proposed_but_what_follows_them_is() -> None:
    proposer = learned([10, 11, 90, 12, 93, 13])

    assert proposed(proposer, [10, 11]) == []
    assert proposed(proposer, [10, 11, 97]) == [12]
    assert proposed(proposer, [10, 11, 97, 12, 95]) == [13]


def test_the_last_reply_decides() -> None:
    proposer = learned([10, 11, 12], [10, 11, 13], [20, 21, 22], [20, 21, 90])

    assert proposed(proposer, [10, 11]) == [13]
    assert proposed(proposer, [20, 21]) == []


def test_the_memory_of_replies_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segzero_core.decoding.speculative._MAX_CONTEXTS", 50)
    proposer = learned(list(range(1000, 2000)))

    assert len(proposer._following) <= 50 + 7


def take(tokens: Iterator[int], count: int) -> list[int]:
    return [next(tokens) for _ in range(count)]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@torch.inference_mode()
def test_tokens_are_the_same_whether_proposals_are_right_or_wrong(penalty: float) -> None:
    model: Any = random_model()
    language = LanguageModel(model)
    language.reserve(100)
    prompt = list(range(20, 40))

    def start() -> Prefill:
        positions = torch.arange(len(prompt)).expand(3, -1)
        scores = language.prefill(language.embed(prompt), positions, 0)
        seen = torch.zeros(len(scores), dtype=torch.bool) if penalty != 1.0 else None
        return Prefill(scores, len(prompt), len(prompt), seen, penalty)

    expected = take(SpeculativeStepper(language, None).tokens(start()), 40)
    right = learned(expected)
    half = learned([token if i % 4 else 5 for i, token in enumerate(expected)])
    wrong = learned([7] * 40)
    for proposer in (NgramProposer(lambda _token: False), right, half, wrong):
        assert take(SpeculativeStepper(language, proposer).tokens(start()), 40) == expected


@torch.inference_mode()
def test_right_proposals_save_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    language = LanguageModel(random_model())
    language.reserve(100)
    scores = language.prefill(language.embed([5, 6]), torch.arange(2).expand(3, -1), 0)
    start = Prefill(scores, 2, 2)
    expected = take(SpeculativeStepper(language, None).tokens(start), 37)
    passes: list[int] = []
    work = language._logits

    def count(x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        passes.append(len(x))
        return work(x, *rest, **named)

    monkeypatch.setattr(language, "_logits", count)
    assert take(SpeculativeStepper(language, learned(expected)).tokens(start), 37) == expected
    assert len(passes) <= 37 // 2
