"""Turns what is meant into words: noun phrases with their articles and relations."""

from __future__ import annotations

import numpy as np

from worlds.common.scene import SceneObject
from worlds.common.wording import Wording, pick, words
from worlds.libero.queries.facts import Noun, SceneFacts
from worlds.libero.queries.relations import Picked
from worlds.libero.queries.vocabulary import (
    COMPARTMENTS,
    DRAWER_NAMES,
    DRAWERS,
    ENDS,
    ENDS_OF_TWO,
    NOT_RELATIONS,
    RELATIONS,
    THINGS,
)


def say_noun(rng: np.random.Generator, noun: Noun, *, brief: bool = False) -> str:
    """With an article, mostly "the"; brief speech often leaves it out.

    Args:
        rng: Decides on the article.
        noun: One that means a single object.
        brief: Whether the speaker clips words.
    """
    text = pick(rng, THINGS) if noun.text in THINGS else noun.text
    if brief:
        return text
    draw = rng.random()
    if draw < 0.86 or text.startswith("bottle of") or text.split()[-1] in _MASS:
        return f"the {text}"
    article = "an" if text[0] in "aeiou" else "a"
    return f"my {text}" if draw > 0.95 else f"{article} {text}"


_MASS = {
    "soup", "sauce", "ketchup", "dressing", "butter", "cheese", "pudding", "cookies", "milk",
    "juice", "wine", "drawers",
}  # fmt: skip


def say_anchor(
    rng: np.random.Generator, facts: SceneFacts, obj: SceneObject, *, brief: bool = False
) -> str:
    """What an object is called that something is compared with; mostly by its plainest name."""
    nouns = facts.nouns_of(obj, unique=True)
    noun = nouns[0] if rng.random() < 0.6 else pick(rng, nouns)
    return noun.text if brief else f"the {noun.text}"


def say_picked(
    rng: np.random.Generator,
    facts: SceneFacts,
    picked: Picked,
    wording: Wording,
    *,
    brief: bool = False,
) -> str:
    """The whole noun phrase of an object that a relation tells apart."""
    noun = pick(rng, THINGS) if picked.noun.text in THINGS else picked.noun.text
    if picked.relation in ENDS:
        template = words(rng, ENDS[picked.relation], wording)
        if len(picked.noun.ids) == 2 and rng.random() < 0.5:
            template = ENDS_OF_TWO[picked.relation]
        text = template.format(k=noun)
        return text.removeprefix("the ") if brief else text
    x = noun if brief else f"the {noun}"
    if picked.relation in ("drawer", "compartment"):
        inside = words(rng, RELATIONS["in"], wording)
        return inside.format(x=x, a=say_part(rng, facts, picked, wording))
    table = NOT_RELATIONS if picked.negated else RELATIONS
    said = [say_anchor(rng, facts, anchor, brief=brief) for anchor in picked.anchors]
    if len(said) == 2 and rng.random() < 0.5:
        said.reverse()
    a, b = (*said, "", "")[:2]
    surface = "floor" if facts.truth.arena == "floor" else "table"
    return words(rng, table[picked.relation], wording).format(x=x, a=a, b=b, s=surface)


def say_part(rng: np.random.Generator, facts: SceneFacts, picked: Picked, wording: Wording) -> str:
    """A drawer or compartment of the anchor."""
    anchor = say_anchor(rng, facts, picked.anchors[0])
    if picked.relation == "compartment":
        return words(rng, COMPARTMENTS, wording).format(d=picked.part, a=anchor)
    drawer = pick(rng, DRAWER_NAMES[picked.part])
    text = words(rng, DRAWERS, wording)
    if "{a}" not in text and len(facts.called("cabinet")) > 1:
        text = DRAWERS.train[0]
    return text.format(d=drawer, a=anchor)
