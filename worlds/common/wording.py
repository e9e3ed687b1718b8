"""Phrasings of questions, and random choices among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

Wording = Literal["train", "test"]
T = TypeVar("T")


@dataclass(frozen=True)
class Phrasings:
    """Sentence frames with `{x}` for what is meant; `test` ones are never trained on."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Choose one item at random."""
    return choices[int(rng.integers(len(choices)))]


def first_that_works(rng: np.random.Generator, ways: Sequence[Callable[[], T | None]]) -> T | None:
    """Try ways in a random order until one gives something."""
    for i in rng.permutation(len(ways)):
        result = ways[int(i)]()
        if result is not None:
            return result
    return None


def words(rng: np.random.Generator, phrasings: Phrasings, wording: Wording) -> str:
    """A phrasing; a test question may use any, since its frame is test-only already."""
    if wording == "test":
        return pick(rng, phrasings.train + phrasings.test)
    return pick(rng, phrasings.train)


def frame(rng: np.random.Generator, phrasings: Phrasings, wording: Wording) -> str:
    """A sentence frame: test-only ones for test questions, else none of them."""
    return pick(rng, phrasings.test if wording == "test" else phrasings.train)


# How people ask in every world; a world adds its own frames behind them.
REQUESTS = (
    "{x}", "find {x}", "where is {x}?", "show me {x}", "segment {x}", "give me {x}", "I need {x}",
    "pick up {x}", "please grab {x}", "can you see {x}?", "bring me {x}", "which one is {x}?",
    "locate {x}", "I am looking for {x}", "take {x}, please",
)  # fmt: skip
REQUESTS_BY_USE = (
    "something to {x}", "what would you {x}?", "what can I {x}?", "I want to {x}",
    "give me something to {x}", "find something to {x}", "which object can I {x}?",
    "is there something to {x}?", "I need something to {x}", "show me a thing to {x}",
    "what should I {x}?", "the thing to {x}",
)  # fmt: skip
REQUESTS_OF_MANY = (
    "all the {x}", "all {x}", "find all the {x}", "show me all the {x}", "segment all the {x}",
    "where are the {x}?", "give me all the {x}", "I need all the {x}", "pick up all the {x}",
    "collect the {x}", "please grab all the {x}", "which ones are the {x}?",
)  # fmt: skip
