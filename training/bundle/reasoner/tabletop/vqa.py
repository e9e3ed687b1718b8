"""Questions about a table that are answered with one word: color, count and object class.

The small reasoner learns them in its warm-up, and later training never asks them. How well it
still answers shows what that training made it forget (Seg-Zero, arXiv:2503.06520, measures the
same with ChartQA and TextVQA).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from worlds.common.scene import SceneObject
from worlds.tabletop.vocabulary import NAMES, PLURALS

VQA_KINDS = ("color", "count", "kind")


@dataclass(frozen=True)
class VisualQuestion:
    """A question with its one-word answer."""

    kind: str  # one of `VQA_KINDS`
    text: str  # the question, in lower case; it is asked without a prompt template
    answer: str  # the word that is right
    object_id: int  # what the answer is read off, 0 for the whole table


def ask_visual(
    rng: np.random.Generator, objects: Sequence[SceneObject], kind: str
) -> VisualQuestion | None:
    """One question of a kind, or None where this table allows none."""
    return _ASK[kind](rng, objects)


def _color(rng: np.random.Generator, objects: Sequence[SceneObject]) -> VisualQuestion | None:
    alone = [o for o in objects if sum(p.kind == o.kind for p in objects) == 1]
    if not alone:
        return None
    item = alone[int(rng.integers(len(alone)))]
    return VisualQuestion(
        "color", f"what color is the {NAMES[item.kind][0]}?", item.color, item.id
    )


def _count(rng: np.random.Generator, objects: Sequence[SceneObject]) -> VisualQuestion | None:
    # Half of the questions are about what is there more than once, where that exists.
    counts = {kind: sum(o.kind == kind for o in objects) for kind in NAMES}
    several = [kind for kind, count in counts.items() if count > 1]
    kinds = several if several and rng.random() < 0.5 else list(NAMES)
    kind = kinds[int(rng.integers(len(kinds)))]
    return VisualQuestion("count", f"how many {PLURALS[kind]} are there?", str(counts[kind]), 0)


def _kind(rng: np.random.Generator, objects: Sequence[SceneObject]) -> VisualQuestion | None:
    alone = [o for o in objects if sum(p.color == o.color for p in objects) == 1]
    if not alone:
        return None
    item = alone[int(rng.integers(len(alone)))]
    return VisualQuestion("kind", f"what is the {item.color} thing?", NAMES[item.kind][0], item.id)


_ASK: dict[str, Callable[[np.random.Generator, Sequence[SceneObject]], VisualQuestion | None]] = {
    "color": _color,
    "count": _count,
    "kind": _kind,
}
