"""Questions about a scene whose answer is beyond doubt.

A question is asked only where exactly the meant objects fit it: twins, near ties and names that
fit several objects are left out. None of the benchmark's own instructions is ever asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from worlds.common.scene import Query, Scene, SceneObject
from worlds.common.wording import Wording, first_that_works, frame, pick, words
from worlds.libero.object_classes import OBJECT_CLASSES
from worlds.libero.package import normalized
from worlds.libero.queries.facts import Noun, SceneFacts
from worlds.libero.queries.orders import ask_absent_order, ask_instruction, ask_place
from worlds.libero.queries.phrases import say_noun, say_picked
from worlds.libero.queries.phrasings import PHRASINGS
from worlds.libero.queries.relations import choose_picked, topic_of
from worlds.libero.queries.vocabulary import (
    GROUPS,
    QUERY_KINDS,
    SIZE_WORDS,
    STATES,
    THINGS,
    UNKNOWN,
    USES,
)
from worlds.libero.scene import Truth
from worlds.tabletop.vocabulary import UNKNOWN_USES

CLEARLY_LARGER = 1.2  # ratio of lengths at which one object is called larger than its like
TEST_WORDING_SHARE = 0.5  # of the questions in test scenes
PER_SCENE = {"relation": 2, "instruction": 2, "place": 1}
_TRIES = 6  # until a text is none of the benchmark's
_COUNTABLE = (
    "bowl", "plate", "mug", "cup", "bottle", "can", "box", "carton", "book", "basket", "pot",
    "pan", "cabinet", "stove", "rack",
)  # fmt: skip

_Ask = Callable[[np.random.Generator, SceneFacts, Wording], Query | None]


def ask(
    rng: np.random.Generator,
    facts: SceneFacts,
    kind: str,
    wording: Wording = "train",
    forbidden: frozenset[str] = frozenset(),
) -> Query | None:
    """One question of a kind, or None where this scene allows none.

    Args:
        rng: Decides which object and which words.
        facts: The scene.
        kind: One of `QUERY_KINDS`.
        wording: "test" uses a phrasing that training never sees.
        forbidden: Normalised texts that may stand in no question.
    """
    for _ in range(_TRIES):
        query = _ASK[kind](rng, facts, wording)
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
    facts = SceneFacts(scene, truth)
    queries: list[Query] = []
    for kind in QUERY_KINDS:
        for _ in range(PER_SCENE.get(kind, 1)):
            wording: Wording = "test" if test and rng.random() < TEST_WORDING_SHARE else "train"
            query = ask(rng, facts, kind, wording, forbidden)
            if query is not None and all(query.text != other.text for other in queries):
                queries.append(query)
    return tuple(queries)


def _query(
    rng: np.random.Generator,
    kind: str,
    x: str,
    objects: list[SceneObject],
    wording: Wording,
    topic: tuple[str, ...],
    *,
    frame_of: str | None = None,
    anchors: tuple[int, ...] = (),
    candidates: tuple[int, ...] = (),
) -> Query:
    text = frame(rng, PHRASINGS[frame_of or kind], wording).format(x=x)
    ids = tuple(sorted(o.id for o in objects))
    return Query(kind, text, ids, wording, topic, anchors, candidates or ids)


def _name(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    """An object by its name; rather one that has its like beside it."""
    named = [(o, n) for o in facts.objects for n in facts.nouns_of(o, unique=True)]
    if not named:
        return None
    movable = [(o, n) for o, n in named if o in facts.movables]
    alike = [(o, n) for o, n in movable if facts.nouns_of(o, unique=False)]
    pool = alike if alike and rng.random() < 0.5 else movable
    objects = [o for o, _ in (pool if pool and rng.random() < 0.85 else named)]
    obj = pick(rng, sorted(set(objects), key=lambda o: o.id))
    noun = pick(rng, facts.nouns_of(obj, unique=True))
    return _query(rng, "name", say_noun(rng, noun), [obj], wording, ("name", noun.text))


def _attribute(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    ways = [_by_size, _by_size, _by_color, _by_color, _by_state]
    return first_that_works(rng, [partial(way, rng, facts, wording) for way in ways])


def _by_size(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    found = []
    for noun in facts.nouns:
        row = sorted((facts.by_id[i] for i in noun.ids), key=lambda o: max(o.size_m))
        if len(row) < 2 or any(size in noun.text for size in ("large", "small")):
            continue
        if max(row[1].size_m) >= CLEARLY_LARGER * max(row[0].size_m):
            found.append(("smallest", row[0], noun))
        if max(row[-1].size_m) >= CLEARLY_LARGER * max(row[-2].size_m):
            found.append(("largest", row[-1], noun))
    if not found:
        return None
    word, obj, noun = pick(rng, found)
    x = words(rng, SIZE_WORDS[word], wording).format(k=noun.text)
    topic = (word, noun.text)
    return _query(rng, "attribute", x, [obj], wording, topic, candidates=noun.ids)


def _by_color(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    """The one object of a colour, among all movable objects."""
    found = []
    for obj in facts.movables:
        color = OBJECT_CLASSES[obj.kind].color
        others = [o for o in facts.movables if o is not obj]
        clear = all(
            color not in (OBJECT_CLASSES[o.kind].color, *OBJECT_CLASSES[o.kind].maybe)
            for o in others
        )
        if color and clear:
            found.append((color, obj))
    if not found:
        return None
    color, obj = pick(rng, found)
    x = f"the {color} {pick(rng, (*THINGS, 'one'))}"
    candidates = tuple(o.id for o in facts.movables)
    return _query(rng, "attribute", x, [obj], wording, ("color", color), candidates=candidates)


def _by_state(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    """One of several fixtures by what it does: a stove that is on, an open cabinet."""
    opened = {i for i, gaps in facts.truth.drawers_m.items() if max(gaps.values()) > 0.05}
    found = []
    for name, active in (("stove", set(facts.truth.lit)), ("cabinet", opened)):
        alike = set(facts.called(name))
        for state, ids in (("on", alike & active), ("off", alike - active)):
            if len(ids) == 1 and len(alike) > 1:
                found.append((name, state, facts.by_id[next(iter(ids))], tuple(sorted(alike))))
    if not found:
        return None
    name, state, obj, candidates = pick(rng, found)
    x = words(rng, STATES[name, state], wording)
    topic = ("state", name, state)
    return _query(rng, "attribute", x, [obj], wording, topic, candidates=candidates)


def _relation(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    picked = choose_picked(rng, facts, movable=False)
    if picked is None:
        return None
    x = say_picked(rng, facts, picked, wording)
    return _query(
        rng,
        "relation",
        x,
        [picked.obj],
        wording,
        topic_of(picked),
        anchors=tuple(anchor.id for anchor in picked.anchors),
        candidates=picked.noun.ids,
    )


def _function(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    found = []
    for use in USES:
        fits = [o for o in facts.objects if use in OBJECT_CLASSES[o.kind].uses]
        if len(fits) == 1:
            found.append((use, fits[0]))
    if not found:
        return None
    use, obj = pick(rng, found)
    return _query(rng, "function", pick(rng, USES[use]), [obj], wording, ("use", use))


def _many(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    found: list[tuple[tuple[str, ...], str, list[SceneObject]]] = []
    for group, names in GROUPS.items():
        members = [o for o in facts.objects if group in OBJECT_CLASSES[o.kind].groups]
        found.append((("group", group), pick(rng, names), members))
    for noun in facts.nouns:
        if noun.text.split()[-1] in _COUNTABLE:
            members = [facts.by_id[i] for i in noun.ids]
            found.append((("noun", noun.text), plural(noun), members))
    found = [item for item in found if 2 <= len(item[2]) < len(facts.objects)]
    if not found:
        return None
    topic, x, members = pick(rng, found)
    return _query(rng, "many", x, members, wording, topic)


def plural(noun: Noun) -> str:
    """Of a noun that ends in something countable."""
    return noun.text + ("es" if noun.text.endswith("x") else "s")


def _none(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    ways = [_absent_name, _absent_name, _absent_use, _absent_group, _unknown, ask_absent_order]
    return first_that_works(rng, [partial(way, rng, facts, wording) for way in ways])


def _absent_name(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    name = pick(rng, facts.absent_names)
    x = say_noun(rng, Noun(name, ()))
    return _query(rng, "none", x, [], wording, ("name", name), frame_of="name")


def _absent_use(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    around = ("heat", "shelve", "read")
    absent = [
        use
        for use in USES
        if use not in around and all(use not in OBJECT_CLASSES[o.kind].uses for o in facts.objects)
    ]
    use = pick(rng, absent)
    x = pick(rng, USES[use])
    return _query(rng, "none", x, [], wording, ("use", use), frame_of="function")


def _absent_group(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    absent = [
        group
        for group in GROUPS
        if group != "books"
        and all(group not in OBJECT_CLASSES[o.kind].groups for o in facts.objects)
    ]
    if not absent:
        return None
    group = pick(rng, absent)
    x = pick(rng, GROUPS[group])
    return _query(rng, "none", x, [], wording, ("group", group), frame_of="many")


def _unknown(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query:
    del facts
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
