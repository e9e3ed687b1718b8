"""Choosing by chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


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
