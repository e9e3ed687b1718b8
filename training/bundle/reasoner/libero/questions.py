"""Draws questions about LIBERO's world, and encodes them with their completions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from segzero_core.prompt import MULTI_OBJECT
from training.bundle.reasoner.encoding import EncodedQuestion, encode_question, until_choice
from training.bundle.reasoner.libero.invented import invent
from training.bundle.reasoner.libero.thoughts import (
    NONE,
    PLACES,
    SEEN_SIZE_PX,
    Blur,
    Point,
    think,
)
from training.bundle.reasoner.tabletop.questions import draw_template, filled
from training.bundle.reasoner.text import Chunk, write_completion
from training.bundle.reasoner.world import SeenScene
from worlds.common.scene import Query
from worlds.libero.package import benchmark_texts
from worlds.libero.queries.facts import SceneFacts
from worlds.libero.queries.generate import ask, says_any
from worlds.libero.queries.vocabulary import QUERY_KINDS

_SPREAD_PX = 3.0
"""By how much the points that the model reads in training are moved at most, on average."""


class QuestionSampler:
    """Draws encoded questions about a scene; needs the extra `libero`.

    Args:
        tokenizer: The reasoner's.
        shares: How often each of `QUERY_KINDS` is asked.
        choices_only: Completions end where the choice has fallen.
        augment: Surround some questions with words that do not matter.
        style: How thoughts state a place; `NONE` for answers without thinking.
        invented: Share of the questions that are about invented layouts; needs `DISTANCES`.

    Raises:
        RuntimeError: The package is missing, whose instructions must not be asked.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        shares: Sequence[float],
        *,
        choices_only: bool,
        augment: bool,
        style: str = PLACES,
        invented: float = 0.0,
    ) -> None:
        self._tokenizer, self._style, self._invented = tokenizer, style, invented
        self._shares = np.array(shares) / sum(shares)
        self._choices_only, self._augment = choices_only, augment
        self._forbidden = benchmark_texts()

    def __call__(self, rng: np.random.Generator, seen: SeenScene) -> EncodedQuestion:
        """Draw one question."""
        if rng.random() < self._invented:
            text, chunks = invent(rng)
            while says_any(text, self._forbidden):
                text, chunks = invent(rng)
            return encode_question(self._tokenizer, text, chunks, MULTI_OBJECT, closed=False)
        query = self._query(rng, seen.facts)
        while seen.mirrored and _names_a_side(query):
            query = self._query(rng, seen.facts)
        text = filled(rng, query.text) if self._augment else query.text
        blur = _blur(rng) if self._augment else _exactly
        if self._choices_only:
            chosen = until_choice(completion(query, seen, MULTI_OBJECT, self._style, blur))
            return encode_question(self._tokenizer, text, chosen, MULTI_OBJECT, closed=False)
        template = draw_template(rng, len(query.ids), thinks=self._style != NONE)
        chunks = completion(query, seen, template, self._style, blur)
        return encode_question(self._tokenizer, text, chunks, template)

    def _query(self, rng: np.random.Generator, facts: SceneFacts) -> Query:
        query = None
        while query is None:
            kind = str(rng.choice(QUERY_KINDS, p=self._shares))
            query = ask(rng, facts, kind, "train", self._forbidden)
        return query


def _names_a_side(query: Query) -> bool:
    """Whether a question, or what it is made from, says left or right."""
    return any("left" in part or "right" in part for part in (query.text, *query.topic))


def _exactly(point: Point) -> Point:
    return point


def _blur(rng: np.random.Generator) -> Blur:
    """Points that are off by as much as the model's own are, for one question."""
    spread_px = rng.uniform(0, _SPREAD_PX)

    def moved(point: Point) -> Point:
        x, y = np.clip(np.rint(rng.normal(point, spread_px)), 0, SEEN_SIZE_PX).astype(int)
        return int(x), int(y)

    return moved


def completion(
    query: Query, seen: SeenScene, template: str, style: str, blur: Blur = _exactly
) -> list[Chunk]:
    """The whole completion for a question; for `blur` see `think`."""
    meant = [item for item in seen.objects if item.id in query.ids]
    return write_completion(think(query, seen, style, blur), meant, seen.prompts, template)
