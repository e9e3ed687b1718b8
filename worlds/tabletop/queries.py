"""Asks questions about a table whose answer is certain.

A question is only asked where the answer is beyond doubt: sizes differ clearly, the object that is
"left of the bowl" is clearly nearer than the next one, and no name fits two objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np

from worlds.tabletop.object_classes import COLORS_RGB
from worlds.tabletop.scene import Query, SceneObject
from worlds.tabletop.vocabulary import (
    ENDS,
    GROUPS,
    NAME_FORMS,
    NAMES,
    PHRASINGS,
    PLURALS,
    QUERY_KINDS,
    SIDES,
    SINGULAR_OF_GROUP,
    SIZE_WORDS,
    THINGS,
    UNKNOWN,
    UNKNOWN_USES,
    USES,
    Phrasings,
)

Wording = Literal["train", "test"]
Objects = Sequence[SceneObject]
Ask = Callable[[np.random.Generator, Objects, Wording], Query | None]
T = TypeVar("T")

CLEARLY_LARGER = 1.2  # ratio of lengths at which one object is called larger than its like
CLEARLY_NEARER = 0.75  # ratio of distances at which one neighbor is called the nearest
CLEAR_STEP_PX = 30  # by which an end of the row must stand out
ABSENT = ("name", "color", "use", "group")
"""What a table can lack: a kind, a kind's color, anything for a use, a group or color."""
TEST_WORDING_SHARE = 0.5  # of the questions in test scenes


def ask(
    rng: np.random.Generator, objects: Objects, kind: str, wording: Wording = "train"
) -> Query | None:
    """One question of a kind, or None where this table allows none.

    Args:
        rng: Decides which object and which words.
        objects: What stands on the table.
        kind: One of `QUERY_KINDS`.
        wording: "test" uses a phrasing that training never sees.
    """
    return _ASK[kind](rng, objects, wording)


def ask_each_kind(rng: np.random.Generator, objects: Objects, *, test: bool) -> tuple[Query, ...]:
    """One question of each kind that the table allows, in the order of `QUERY_KINDS`."""
    queries = []
    for kind in QUERY_KINDS:
        wording: Wording = "test" if test and rng.random() < TEST_WORDING_SHARE else "train"
        query = ask(rng, objects, kind, wording)
        if query is not None:
            queries.append(query)
    return tuple(queries)


def same_name(objects: Objects, item: SceneObject) -> list[SceneObject]:
    """All objects of the object's kind and color, itself included."""
    return [o for o in objects if (o.kind, o.color) == (item.kind, item.color)]


def _name(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    unique = [o for o in objects if len(same_name(objects, o)) == 1]
    if not unique:
        return None
    twins = [o for o in unique if sum(p.kind == o.kind for p in objects) > 1]
    item = _pick(rng, twins if twins and rng.random() < 0.7 else unique)
    x = _noun_phrase(rng, item.kind, item.color, wording)
    return _query(rng, "name", x, [item], wording, ("name", item.kind, item.color))


def _attribute(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    ways = [_by_size, _by_size, _by_color, _by_color_of_group]
    return _first_possible(ways, rng, objects, wording)


def _by_size(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    found = []
    for kind in sorted({o.kind for o in objects}):
        row = sorted((o for o in objects if o.kind == kind), key=lambda o: max(o.size_m))
        if len(row) < 2:
            continue
        if max(row[1].size_m) >= CLEARLY_LARGER * max(row[0].size_m):
            found.append(("smallest", row[0]))
        if max(row[-1].size_m) >= CLEARLY_LARGER * max(row[-2].size_m):
            found.append(("largest", row[-1]))
    if not found:
        return None
    word, item = _pick(rng, found)
    x = _words(rng, SIZE_WORDS[word], wording).format(k=_pick(rng, NAMES[item.kind]))
    return _query(rng, "attribute", x, [item], wording, (word, item.kind))


def _by_color(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    single = [o for o in objects if sum(p.color == o.color for p in objects) == 1]
    if not single:
        return None
    item = _pick(rng, single)
    x = f"the {item.color} {_pick(rng, (*THINGS, 'one'))}"
    return _query(rng, "attribute", x, [item], wording, ("color", item.color))


def _by_color_of_group(
    rng: np.random.Generator, objects: Objects, wording: Wording
) -> Query | None:
    found = []
    for group, (kinds, _) in GROUPS.items():
        members = [o for o in objects if o.kind in kinds]
        for item in members:
            if len(members) > 1 and sum(o.color == item.color for o in members) == 1:
                found.append((group, item))
    if not found:
        return None
    group, item = _pick(rng, found)
    x = f"the {item.color} {SINGULAR_OF_GROUP[group]}"
    return _query(rng, "attribute", x, [item], wording, ("color_group", item.color, group))


def _relation(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    return _first_possible([_beside, _beside, _at_the_end], rng, objects, wording)


def center_px(item: SceneObject) -> tuple[float, float]:
    """Middle of the object's box [px]."""
    x0, y0, x1, y1 = item.box_xyxy
    return (x0 + x1) / 2, (y0 + y1) / 2


def on_side(objects: Objects, anchor: SceneObject, side: str) -> list[SceneObject]:
    """The objects on one side of the anchor as the camera sees it, the nearest first."""
    ax, ay = center_px(anchor)
    found = []
    for item in objects:
        if item is anchor:
            continue
        x, y = center_px(item)
        right, down = x - ax, (y - ay) * 1.2  # the table is seen at a slant: heights look shorter
        fits = {
            "left": -right > abs(down),
            "right": right > abs(down),
            "front": down > abs(right),
            "behind": -down > abs(right),
            "near": True,
        }[side]
        if fits:
            found.append((math.hypot(right, down), item))
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


def distance_px(one: SceneObject, other: SceneObject) -> float:
    """Distance of two objects in the image [px], the slant of the table allowed for."""
    (x0, y0), (x1, y1) = center_px(one), center_px(other)
    return math.hypot(x1 - x0, (y1 - y0) * 1.2)


def _beside(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    found = []
    for anchor in objects:
        if len(same_name(objects, anchor)) > 1:
            continue
        for side in SIDES:
            row = on_side(objects, anchor, side)
            if row and _clear(anchor, row):
                found.append((anchor, side, row[0], "thing"))
            for kind in sorted({o.kind for o in row}):
                like = [o for o in row if o.kind == kind]
                if kind != anchor.kind and _clear(anchor, like):
                    found.append((anchor, side, like[0], kind))
    if not found:
        return None
    # Questions about any object are the harder half.
    plain = [item for item in found if item[3] == "thing"]
    anchor, side, item, noun = _pick(rng, plain if plain and rng.random() < 0.6 else found)
    word = _pick(rng, THINGS) if noun == "thing" else _pick(rng, NAMES[noun])
    alone = sum(o.kind == anchor.kind for o in objects) == 1
    if alone and rng.random() < 0.6:
        said, color = f"the {_pick(rng, NAMES[anchor.kind])}", ""
    else:
        said, color = f"the {anchor.color} {_pick(rng, NAMES[anchor.kind])}", anchor.color
    x = _words(rng, SIDES[side], wording).format(k=word, a=said)
    return _query(rng, "relation", x, [item], wording, (side, noun, anchor.kind, color))


def _clear(anchor: SceneObject, row: Objects) -> bool:
    if len(row) == 1:
        return True
    return distance_px(anchor, row[0]) <= CLEARLY_NEARER * distance_px(anchor, row[1])


def _at_the_end(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    found = []
    for noun in ("thing", *sorted({o.kind for o in objects})):
        row = [o for o in objects if noun in ("thing", o.kind)]
        if len(row) < 2:
            continue
        for end in ENDS:
            ordered = order_towards(row, end)
            first, second = end_value(ordered[0], end), end_value(ordered[1], end)
            if abs(first - second) >= CLEAR_STEP_PX:
                found.append((end, noun, ordered[0]))
    if not found:
        return None
    end, noun, item = _pick(rng, found)
    word = _pick(rng, THINGS) if noun == "thing" else _pick(rng, NAMES[noun])
    x = _words(rng, ENDS[end], wording).format(k=word)
    return _query(rng, "relation", x, [item], wording, (end, noun))


def end_value(item: SceneObject, end: str) -> float:
    """The number by which objects are ordered towards an end [px], smallest first."""
    x, _ = center_px(item)
    return {
        "leftmost": x,
        "rightmost": -x,
        "closest": -float(item.box_xyxy[3]),
        "farthest": float(item.box_xyxy[3]),
    }[end]


def order_towards(objects: Objects, end: str) -> list[SceneObject]:
    """Objects in order from an end: leftmost, rightmost, closest to the camera, farthest."""
    return sorted(objects, key=lambda item: end_value(item, end))


def _function(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    found = []
    for use, (kinds, _) in USES.items():
        fits = [o for o in objects if o.kind in kinds]
        if len(fits) == 1:
            found.append((use, fits[0]))
    if not found:
        return None
    use, item = _pick(rng, found)
    x = _pick(rng, USES[use][1])
    return _query(rng, "function", x, [item], wording, ("use", use))


def _many(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    found: list[tuple[tuple[str, ...], str, list[SceneObject]]] = []
    for group, (kinds, names) in GROUPS.items():
        members = [o for o in objects if o.kind in kinds]
        found.append((("group", group), _pick(rng, names), members))
    for color in COLORS_RGB:
        members = [o for o in objects if o.color == color]
        found.append((("colored", color), f"{color} {_pick(rng, THINGS)}s", members))
    for kind, plural in PLURALS.items():
        members = [o for o in objects if o.kind == kind]
        found.append((("kind", kind), plural, members))
    found = [item for item in found if 2 <= len(item[2]) < len(objects)]
    if not found:
        return None
    topic, x, members = _pick(rng, found)
    return _query(rng, "many", x, members, wording, topic)


def _none(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    ways = [*(_ASK_ABSENT[way] for way in ABSENT), _unknown]
    return _first_possible(ways, rng, objects, wording)


def ask_absent(
    rng: np.random.Generator, objects: Objects, way: str, wording: Wording = "train"
) -> Query | None:
    """Ask for what the vocabulary knows and this table lacks.

    Args:
        rng: Decides which words.
        objects: What stands on the table.
        way: What is lacking, one of `ABSENT`.
        wording: As for `ask`.
    """
    return _ASK_ABSENT[way](rng, objects, wording)


def _absent_name(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    kind = _pick(rng, [k for k in NAMES if all(o.kind != k for o in objects)])
    color = _pick(rng, list(COLORS_RGB)) if rng.random() < 0.6 else ""
    x = _noun_phrase(rng, kind, color, wording)
    return _query(rng, "none", x, [], wording, ("name", kind, color), frame="name")


def _wrong_color(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    item = _pick(rng, objects)
    there = {o.color for o in objects if o.kind == item.kind}
    color = _pick(rng, [c for c in COLORS_RGB if c not in there])
    x = _noun_phrase(rng, item.kind, color, wording)
    return _query(rng, "none", x, [], wording, ("name", item.kind, color), frame="name")


def _absent_use(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    use = _pick(
        rng, [u for u, (kinds, _) in USES.items() if all(o.kind not in kinds for o in objects)]
    )
    x = _pick(rng, USES[use][1])
    return _query(rng, "none", x, [], wording, ("use", use), frame="function")


def _absent_group(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query | None:
    absent = [
        (("group", g), _pick(rng, names))
        for g, (kinds, names) in GROUPS.items()
        if all(o.kind not in kinds for o in objects)
    ]
    absent += [
        (("colored", c), f"{c} {_pick(rng, THINGS)}s")
        for c in COLORS_RGB
        if all(o.color != c for o in objects)
    ]
    if not absent:
        return None
    topic, x = _pick(rng, absent)
    return _query(rng, "none", x, [], wording, topic, frame="many")


def _unknown(rng: np.random.Generator, objects: Objects, wording: Wording) -> Query:
    if rng.random() < 0.3:
        use = _words(rng, UNKNOWN_USES, wording)
        return _query(rng, "none", use, [], wording, ("unknown_use", use), frame="function")
    noun = _words(rng, UNKNOWN, wording)
    color = f"{_pick(rng, list(COLORS_RGB))} " if rng.random() < 0.35 else ""
    x = f"{_pick(rng, ('the', 'a', 'my'))} {color}{noun}"
    return _query(rng, "none", x, [], wording, ("unknown", noun), frame="name")


def _noun_phrase(rng: np.random.Generator, kind: str, color: str, wording: Wording) -> str:
    name = _pick(rng, NAMES[kind])
    if not color:
        return f"{_pick(rng, ('the', 'a'))} {name}"
    return _words(rng, NAME_FORMS, wording).format(c=color, k=name)


def _query(
    rng: np.random.Generator,
    kind: str,
    x: str,
    meant: Objects,
    wording: Wording,
    topic: tuple[str, ...],
    *,
    frame: str | None = None,
) -> Query:
    frames = PHRASINGS[frame or kind]
    text = _pick(rng, frames.test if wording == "test" else frames.train).format(x=x)
    return Query(kind, text, tuple(sorted(o.id for o in meant)), wording, topic)


def _words(rng: np.random.Generator, phrasings: Phrasings, wording: Wording) -> str:
    """A test question may use any noun phrase; its frame is test-only already."""
    if wording == "test":
        return _pick(rng, phrasings.train + phrasings.test)
    return _pick(rng, phrasings.train)


def _pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def _first_possible(
    ways: Sequence[Ask], rng: np.random.Generator, objects: Objects, wording: Wording
) -> Query | None:
    """Try ways of asking in random order, until the table allows one."""
    for i in rng.permutation(len(ways)):
        query = ways[int(i)](rng, objects, wording)
        if query is not None:
            return query
    return None


_ASK: dict[str, Ask] = {
    "name": _name,
    "attribute": _attribute,
    "relation": _relation,
    "function": _function,
    "many": _many,
    "none": _none,
}
_ASK_ABSENT: dict[str, Ask] = {
    "name": _absent_name,
    "color": _wrong_color,
    "use": _absent_use,
    "group": _absent_group,
}
