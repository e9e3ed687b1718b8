"""How questions get their words: phrasings, and choices by chance."""

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
    """One of them, all as likely."""
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
