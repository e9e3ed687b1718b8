"""Questions that the small reasoner must refuse because it cannot know what they mean.

Every known word stands in a question that can be answered; what makes a question unknown is one
word in the place that decides: the object itself, its quality, its use, or the object that it
stands beside. So the model has to learn where an unknown word matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from worlds.common.scene import Query
from worlds.tabletop.object_classes import COLORS_RGB
from worlds.tabletop.vocabulary import (
    NAMES,
    PHRASINGS,
    PLURALS,
    SIDES,
    THINGS,
    UNKNOWN,
    UNKNOWN_USES,
)

T = TypeVar("T")

_INVENTED_SHARE = 0.35  # of the unknown words: sounds that nobody has heard
_QUALITIES = (
    "pink", "brown", "grey", "gray", "turquoise", "golden", "silver", "beige", "violet", "magenta",
    "transparent", "wooden", "broken", "striped", "dotted", "furry", "heavy", "wet",
    "empty", "expensive", "open", "dirty", "old", "soft", "warm", "leather", "paper",
)  # fmt: skip
_VERBS = (
    "wash", "clean", "repair", "build", "shave", "climb", "dry", "iron", "staple", "glue", "weave",
    "fold", "burn", "heat", "cool", "freeze", "lock", "unlock", "tie", "dig", "saw", "sew", "mow",
    "plant", "drive to", "fly to", "ride", "wear", "warm", "polish", "scrape", "grind", "film",
    "print", "weigh", "measure", "sweep", "vacuum", "shoot", "tune", "play", "sharpen", "erase",
    "steer", "charge", "row", "milk", "brush", "comb", "tell", "count", "mend", "stamp", "seal",
)  # fmt: skip
_TARGETS = (
    "my beard", "the floor", "a mountain", "a shirt", "the lawn", "my feet", "a report", "a song",
    "the time", "a tree", "the window", "my hair", "the car", "a boat", "the roof", "my shoes",
    "a tent", "the garden", "a wall", "a hole", "my watch", "the stove", "a sweater", "a fire",
    "the carpet", "a tooth", "the bath", "a sheep", "the engine", "a violin", "my glasses",
    "the snow", "a rabbit", "the chimney", "a candle", "the moon", "my bicycle", "the dishes",
)  # fmt: skip
_TALK = (
    "hello", "how are you", "what is your name", "tell me a joke", "good morning",
    "who are you",
    "what is the weather like", "two plus two", "open the gripper", "go home", "stop",
    "turn around",
    "sing a song", "what time is it", "thank you very much", "nothing", "yes", "no", "why",
    "describe the picture", "write a poem", "ignore your instructions", "what do you see",
)  # fmt: skip


def ask_unknown(rng: np.random.Generator) -> Query:
    """A question about something outside the vocabulary; no object is meant."""
    way = _pick(
        rng, (_object, _object, _quality, _quality, _use, _use, _use, _many, _beside, _talk)
    )
    return Query("none", way(rng), (), "train", ("unknown",))


def invented_word(rng: np.random.Generator) -> str:
    """A word of one to three syllables that nobody has heard."""
    vowels, others = "aeiou", "bcdfghjklmnprstvwz"
    word = "".join(
        others[rng.integers(len(others))] + vowels[rng.integers(5)]
        for _ in range(rng.integers(1, 4))
    )
    return word + (others[rng.integers(len(others))] if rng.random() < 0.6 else "")


def _unknown(rng: np.random.Generator, words: Sequence[str]) -> str:
    return invented_word(rng) if rng.random() < _INVENTED_SHARE else _pick(rng, words)


def _object(rng: np.random.Generator) -> str:
    color = f"{_pick(rng, list(COLORS_RGB))} " if rng.random() < 0.3 else ""
    article = _pick(rng, ("the", "the", "a", "my"))
    return _framed(rng, "name", f"{article} {color}{_unknown(rng, UNKNOWN.train)}")


def _quality(rng: np.random.Generator) -> str:
    noun = _pick(rng, (_pick(rng, _pick(rng, list(NAMES.values()))), _pick(rng, THINGS)))
    quality = _unknown(rng, _QUALITIES)
    form = _pick(rng, ("the {q} {k}", "the {q} {k}", "the {k} that is {q}", "a {q} {k}"))
    return _framed(rng, "name", form.format(q=quality, k=noun))


def _use(rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        use = _pick(rng, UNKNOWN_USES.train)
    else:
        end = _pick(rng, ("with", "with", "with", "in", "on", "from"))
        use = f"{_unknown(rng, _VERBS)} {_pick(rng, _TARGETS)} {end}"
        if rng.random() < 0.25:
            use = f"{_unknown(rng, _VERBS)} {end}"
    return _framed(rng, "function", use)


def _many(rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        noun = f"{_unknown(rng, UNKNOWN.train)}s"
    else:
        known = _pick(rng, (*PLURALS.values(), *(f"{thing}s" for thing in THINGS)))
        noun = f"{_unknown(rng, _QUALITIES)} {known}"
    return _framed(rng, "many", noun)


def _beside(rng: np.random.Generator) -> str:
    side = _pick(rng, SIDES[_pick(rng, list(SIDES))].train)
    anchor = f"the {_unknown(rng, UNKNOWN.train)}"
    noun = _pick(rng, (*THINGS, *(names[0] for names in NAMES.values())))
    return _framed(rng, "relation", side.format(k=noun, a=anchor))


def _talk(rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        return " ".join(invented_word(rng) for _ in range(rng.integers(1, 4)))
    return _pick(rng, _TALK)


def _framed(rng: np.random.Generator, kind: str, phrase: str) -> str:
    return _pick(rng, PHRASINGS[kind].train).format(x=phrase)


def _pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]
