"""Guessing what is said next, without changing what is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from segzero_core.decoding.decoder import EagerStepper, Start
from segzero_core.decoding.speculative import MOST_GUESSES, DraftingStepper, Drafts
from segzero_core.qwen_vl.language_model import LanguageModel
from tests.core.qwen_vl.test_language_model import random_model

NUMBERS = range(90, 100)


def learned(*replies: list[int]) -> Drafts:
    drafts = Drafts(lambda token: token in NUMBERS)
    for reply in replies:
        history = drafts.beginning()
        for token in reply:
            drafts.add(history, token)
    return drafts


def guesses(drafts: Drafts, said: list[int]) -> list[int]:
    history = drafts.beginning()
    history += [-1 if token in NUMBERS else token for token in said]
    return drafts.guess(history)


def test_a_reply_that_was_heard_is_guessed_a_few_tokens_ahead() -> None:
    reply = list(range(10, 30))
    drafts = learned(reply)

    assert guesses(drafts, []) == reply[:MOST_GUESSES]
    assert guesses(drafts, reply[:12]) == reply[12 : 12 + MOST_GUESSES]
    assert guesses(drafts, reply) == []


def test_numbers_are_never_guessed_but_what_follows_them_is() -> None:
    drafts = learned([10, 11, 90, 12, 93, 13])

    assert guesses(drafts, [10, 11]) == []
    assert guesses(drafts, [10, 11, 97]) == [12]
    assert guesses(drafts, [10, 11, 97, 12, 95]) == [13]


def test_the_last_reply_counts() -> None:
    drafts = learned([10, 11, 12], [10, 11, 13], [20, 21, 22], [20, 21, 90])

    assert guesses(drafts, [10, 11]) == [13]
    assert guesses(drafts, [20, 21]) == []


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segzero_core.decoding.speculative._MOST_CONTEXTS", 50)
    drafts = learned(list(range(1000, 2000)))

    assert len(drafts._following) <= 50 + 7


def take(tokens: Iterator[int], count: int) -> list[int]:
    return [next(tokens) for _ in range(count)]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@torch.inference_mode()
def test_tokens_are_those_without_guesses_whether_they_are_right_or_wrong(penalty: float) -> None:
    model: Any = random_model()
    language = LanguageModel(model)
    language.reserve(100)
    prompt = list(range(20, 40))

    def start() -> Start:
        positions = torch.arange(len(prompt)).expand(3, -1)
        scores = language.read(language.embed(prompt), positions, 0)
        seen = torch.zeros(len(scores), dtype=torch.bool) if penalty != 1.0 else None
        return Start(scores, len(prompt), len(prompt), seen, penalty)

    expected = take(EagerStepper(language).tokens(start()), 40)
    right = learned(expected)
    half = learned([token if i % 4 else 5 for i, token in enumerate(expected)])
    wrong = learned([7] * 40)
    for drafts in (Drafts(lambda _token: False), right, half, wrong):
        assert take(DraftingStepper(language, drafts).tokens(start()), 40) == expected


@torch.inference_mode()
def test_right_guesses_save_looks_at_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    language = LanguageModel(random_model())
    language.reserve(100)
    scores = language.read(language.embed([5, 6]), torch.arange(2).expand(3, -1), 0)
    start = Start(scores, 2, 2, None, 1.0)
    expected = take(EagerStepper(language).tokens(start), 37)
    looks: list[int] = []
    work = language._scores

    def count(x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        looks.append(len(x))
        return work(x, *rest, **named)

    monkeypatch.setattr(language, "_scores", count)
    assert take(DraftingStepper(language, learned(expected)).tokens(start), 37) == expected
    assert len(looks) <= 37 // 2
