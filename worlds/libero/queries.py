"""Questions about a scene whose answer is beyond doubt.

A question is asked only where exactly the meant objects fit it: twins, near ties and names that
fit several things are left out. None of the benchmark's own instructions is ever asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from worlds.libero.choices import first_that_works, pick
from worlds.libero.kinds import KINDS
from worlds.libero.looking import Look, Noun
from worlds.libero.orders import ask_absent_order, ask_instruction, ask_place
from worlds.libero.package import normalized
from worlds.libero.phrases import Wording, frame, say_noun, say_picked, words
from worlds.libero.relations import choose_picked, topic_of
from worlds.libero.scene import Truth
from worlds.libero.vocabulary import (
    GROUPS,
    PHRASINGS,
    QUERY_KINDS,
    SIZE_WORDS,
    STATES,
    THINGS,
    UNKNOWN,
    UNKNOWN_USES,
    USES,
)
from worlds.tabletop.scene import Query, Scene, SceneObject

CLEARLY_LARGER = 1.2  # ratio of lengths at which one thing is called larger than its like
TEST_WORDING_SHARE = 0.5  # of the questions in test scenes
PER_SCENE = {"relation": 2, "instruction": 2, "place": 1}
_TRIES = 6  # until a text is none of the benchmark's
_COUNTABLE = (
    "bowl", "plate", "mug", "cup", "bottle", "can", "box", "carton", "book", "basket", "pot",
    "pan", "cabinet", "stove", "rack",
)  # fmt: skip

_Ask = Callable[[np.random.Generator, Look, Wording], Query | None]


def ask(
    rng: np.random.Generator,
    look: Look,
    kind: str,
    wording: Wording = "train",
    forbidden: frozenset[str] = frozenset(),
) -> Query | None:
    """One question of a kind, or None where this scene allows none.

    Args:
        rng: Decides which thing and which words.
        look: The scene.
        kind: One of `QUERY_KINDS`.
        wording: "test" uses a phrasing that training never sees.
        forbidden: Normalised texts that may stand in no question.
    """
    for _ in range(_TRIES):
        query = _ASK[kind](rng, look, wording)
        if query is None or not says_any(query.text, forbidden):
            return query
    return None


def says_any(text: str, forbidden: frozenset[str]) -> bool:
    """Whether one of the forbidden texts stands in a text, whatever is around it."""
    plain = f" {normalized(text)} "
    return any(f" {other} " in plain for other in forbidden)


def ask_each_kind(
    rng: np.random.Generator,
    scene: Scene,
    truth: Truth,
    *,
    test: bool,
    forbidden: frozenset[str] = frozenset(),
) -> tuple[Query, ...]:
    """Questions of each kind that the scene allows, in the order of `QUERY_KINDS`."""
    look = Look(scene, truth)
    queries: list[Query] = []
    for kind in QUERY_KINDS:
        for _ in range(PER_SCENE.get(kind, 1)):
            wording: Wording = "test" if test and rng.random() < TEST_WORDING_SHARE else "train"
            query = ask(rng, look, kind, wording, forbidden)
            if query is not None and all(query.text != other.text for other in queries):
                queries.append(query)
    return tuple(queries)


def _query(
    rng: np.random.Generator,
    kind: str,
    x: str,
    things: list[SceneObject],
    wording: Wording,
    topic: tuple[str, ...],
    *,
    frame_of: str | None = None,
    anchors: tuple[int, ...] = (),
    candidates: tuple[int, ...] = (),
) -> Query:
    text = frame(rng, PHRASINGS[frame_of or kind], wording).format(x=x)
    ids = tuple(sorted(o.id for o in things))
    return Query(kind, text, ids, wording, topic, anchors, candidates or ids)


def _name(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    """A thing by its name; rather one that has its like beside it."""
    named = [(o, n) for o in look.objects for n in look.nouns_of(o, unique=True)]
    if not named:
        return None
    movable = [(o, n) for o, n in named if o in look.movables]
    alike = [(o, n) for o, n in movable if look.nouns_of(o, unique=False)]
    pool = alike if alike and rng.random() < 0.5 else movable
    things = [o for o, _ in (pool if pool and rng.random() < 0.85 else named)]
    thing = pick(rng, sorted(set(things), key=lambda o: o.id))
    noun = pick(rng, look.nouns_of(thing, unique=True))
    return _query(rng, "name", say_noun(rng, noun), [thing], wording, ("name", noun.text))


def _attribute(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    ways = [_by_size, _by_size, _by_color, _by_color, _by_state]
    return first_that_works(rng, [partial(way, rng, look, wording) for way in ways])


def _by_size(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    found = []
    for noun in look.nouns:
        row = sorted((look.by_id[i] for i in noun.ids), key=lambda o: max(o.size_m))
        if len(row) < 2 or any(size in noun.text for size in ("large", "small")):
            continue
        if max(row[1].size_m) >= CLEARLY_LARGER * max(row[0].size_m):
            found.append(("smallest", row[0], noun))
        if max(row[-1].size_m) >= CLEARLY_LARGER * max(row[-2].size_m):
            found.append(("largest", row[-1], noun))
    if not found:
        return None
    word, thing, noun = pick(rng, found)
    x = words(rng, SIZE_WORDS[word], wording).format(k=noun.text)
    topic = (word, noun.text)
    return _query(rng, "attribute", x, [thing], wording, topic, candidates=noun.ids)


def _by_color(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    """The one thing of a colour, among all movable things."""
    found = []
    for thing in look.movables:
        color = KINDS[thing.kind].color
        others = [o for o in look.movables if o is not thing]
        clear = all(color not in (KINDS[o.kind].color, *KINDS[o.kind].maybe) for o in others)
        if color and clear:
            found.append((color, thing))
    if not found:
        return None
    color, thing = pick(rng, found)
    x = f"the {color} {pick(rng, (*THINGS, 'one'))}"
    candidates = tuple(o.id for o in look.movables)
    return _query(rng, "attribute", x, [thing], wording, ("color", color), candidates=candidates)


def _by_state(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    """One of several fixtures by what it does: a stove that is on, an open cabinet."""
    opened = {i for i, gaps in look.truth.drawers_m.items() if max(gaps.values()) > 0.05}
    found = []
    for name, active in (("stove", set(look.truth.lit)), ("cabinet", opened)):
        alike = set(look.called(name))
        for state, ids in (("on", alike & active), ("off", alike - active)):
            if len(ids) == 1 and len(alike) > 1:
                found.append((name, state, look.by_id[next(iter(ids))], tuple(sorted(alike))))
    if not found:
        return None
    name, state, thing, candidates = pick(rng, found)
    x = words(rng, STATES[name, state], wording)
    topic = ("state", name, state)
    return _query(rng, "attribute", x, [thing], wording, topic, candidates=candidates)


def _relation(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    picked = choose_picked(rng, look, movable=False)
    if picked is None:
        return None
    x = say_picked(rng, look, picked, wording)
    return _query(
        rng,
        "relation",
        x,
        [picked.thing],
        wording,
        topic_of(picked),
        anchors=tuple(anchor.id for anchor in picked.anchors),
        candidates=picked.noun.ids,
    )


def _function(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    found = []
    for use in USES:
        fits = [o for o in look.objects if use in KINDS[o.kind].uses]
        if len(fits) == 1:
            found.append((use, fits[0]))
    if not found:
        return None
    use, thing = pick(rng, found)
    return _query(rng, "function", pick(rng, USES[use]), [thing], wording, ("use", use))


def _many(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    found: list[tuple[tuple[str, ...], str, list[SceneObject]]] = []
    for group, names in GROUPS.items():
        members = [o for o in look.objects if group in KINDS[o.kind].groups]
        found.append((("group", group), pick(rng, names), members))
    for noun in look.nouns:
        if noun.text.split()[-1] in _COUNTABLE:
            members = [look.by_id[i] for i in noun.ids]
            found.append((("noun", noun.text), plural(noun), members))
    found = [item for item in found if 2 <= len(item[2]) < len(look.objects)]
    if not found:
        return None
    topic, x, members = pick(rng, found)
    return _query(rng, "many", x, members, wording, topic)


def plural(noun: Noun) -> str:
    """Of a noun that ends in something countable."""
    return noun.text + ("es" if noun.text.endswith("x") else "s")


def _none(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    ways = [_absent_name, _absent_name, _absent_use, _absent_group, _unknown, ask_absent_order]
    return first_that_works(rng, [partial(way, rng, look, wording) for way in ways])


def _absent_name(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    name = pick(rng, look.absent_names)
    x = say_noun(rng, Noun(name, ()))
    return _query(rng, "none", x, [], wording, ("name", name), frame_of="name")


def _absent_use(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    around = ("heat", "shelve", "read")
    absent = [
        use
        for use in USES
        if use not in around and all(use not in KINDS[o.kind].uses for o in look.objects)
    ]
    use = pick(rng, absent)
    x = pick(rng, USES[use])
    return _query(rng, "none", x, [], wording, ("use", use), frame_of="function")


def _absent_group(rng: np.random.Generator, look: Look, wording: Wording) -> Query | None:
    absent = [
        group
        for group in GROUPS
        if group != "books" and all(group not in KINDS[o.kind].groups for o in look.objects)
    ]
    if not absent:
        return None
    group = pick(rng, absent)
    x = pick(rng, GROUPS[group])
    return _query(rng, "none", x, [], wording, ("group", group), frame_of="many")


def _unknown(rng: np.random.Generator, look: Look, wording: Wording) -> Query:
    del look
    if rng.random() < 0.25:
        use = words(rng, UNKNOWN_USES, wording)
        topic = ("unknown_use", use)
        return _query(rng, "none", use, [], wording, topic, frame_of="function")
    noun = words(rng, UNKNOWN, wording)
    x = f"{pick(rng, ('the', 'a', 'my'))} {noun}"
    return _query(rng, "none", x, [], wording, ("unknown", noun), frame_of="name")


_ASK: dict[str, _Ask] = {
    "name": _name,
    "attribute": _attribute,
    "relation": _relation,
    "function": _function,
    "many": _many,
    "none": _none,
    "instruction": ask_instruction,
    "place": ask_place,
}
