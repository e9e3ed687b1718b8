"""Asks questions about a table that have one certain answer.

A question is only asked where the answer is beyond doubt: sizes differ clearly, the object that is
"left of the bowl" is clearly nearer than the next one, and no name fits two objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from worlds.common.scene import Query, SceneObject
from worlds.common.wording import Phrasings, Wording, first_that_works, frame, pick, words
from worlds.tabletop.object_classes import COLORS_RGB
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
)

Objects = Sequence[SceneObject]
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
    """Ask one question of a kind, or None where this table allows none.

    The wording "test" is a phrasing that training never sees.
    """
    return _ASK[kind](_Asker(rng, objects, wording))


def ask_absent(
    rng: np.random.Generator, objects: Objects, way: str, wording: Wording = "train"
) -> Query | None:
    """Ask for what the vocabulary knows and this table lacks; `way` is one of `ABSENT`."""
    return _ASK_ABSENT[way](_Asker(rng, objects, wording))


def ask_each_kind(rng: np.random.Generator, objects: Objects, *, test: bool) -> tuple[Query, ...]:
    """One question of each kind that the table allows, in the order of `QUERY_KINDS`."""
    queries = []
    for kind in QUERY_KINDS:
        wording: Wording = "test" if test and rng.random() < TEST_WORDING_SHARE else "train"
        queries.append(ask(rng, objects, kind, wording))
    return tuple(query for query in queries if query is not None)


def same_name(objects: Objects, item: SceneObject) -> list[SceneObject]:
    """All objects of the object's kind and color, itself included."""
    return [o for o in objects if (o.kind, o.color) == (item.kind, item.color)]


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


@dataclass(frozen=True)
class _Asker:
    """Asks about one table; each method makes one sort of question, or None."""

    rng: np.random.Generator
    objects: Objects
    wording: Wording

    def name(self) -> Query | None:
        unique = [o for o in self.objects if len(same_name(self.objects, o)) == 1]
        if not unique:
            return None
        twins = [o for o in unique if sum(p.kind == o.kind for p in self.objects) > 1]
        item = self._pick(twins if twins and self.rng.random() < 0.7 else unique)
        x = self._noun_phrase(item.kind, item.color)
        return self._query("name", x, [item], ("name", item.kind, item.color))

    def attribute(self) -> Query | None:
        ways = [self._by_size, self._by_size, self._by_color, self._by_color_of_group]
        return first_that_works(self.rng, ways)

    def _by_size(self) -> Query | None:
        found = []
        for kind in sorted({o.kind for o in self.objects}):
            row = sorted((o for o in self.objects if o.kind == kind), key=lambda o: max(o.size_m))
            if len(row) < 2:
                continue
            if max(row[1].size_m) >= CLEARLY_LARGER * max(row[0].size_m):
                found.append(("smallest", row[0]))
            if max(row[-1].size_m) >= CLEARLY_LARGER * max(row[-2].size_m):
                found.append(("largest", row[-1]))
        if not found:
            return None
        word, item = self._pick(found)
        x = self._words(SIZE_WORDS[word]).format(k=self._pick(NAMES[item.kind]))
        return self._query("attribute", x, [item], (word, item.kind))

    def _by_color(self) -> Query | None:
        single = [o for o in self.objects if sum(p.color == o.color for p in self.objects) == 1]
        if not single:
            return None
        item = self._pick(single)
        x = f"the {item.color} {self._pick((*THINGS, 'one'))}"
        return self._query("attribute", x, [item], ("color", item.color))

    def _by_color_of_group(self) -> Query | None:
        found = []
        for group, (kinds, _) in GROUPS.items():
            members = [o for o in self.objects if o.kind in kinds]
            for item in members:
                if len(members) > 1 and sum(o.color == item.color for o in members) == 1:
                    found.append((group, item))
        if not found:
            return None
        group, item = self._pick(found)
        x = f"the {item.color} {SINGULAR_OF_GROUP[group]}"
        return self._query("attribute", x, [item], ("color_group", item.color, group))

    def relation(self) -> Query | None:
        return first_that_works(self.rng, [self._beside, self._beside, self._at_the_end])

    def _beside(self) -> Query | None:
        found = []
        for anchor in self.objects:
            if len(same_name(self.objects, anchor)) > 1:
                continue
            for side in SIDES:
                row = on_side(self.objects, anchor, side)
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
        anchor, side, item, noun = self._pick(
            plain if plain and self.rng.random() < 0.6 else found
        )
        word = self._pick(THINGS if noun == "thing" else NAMES[noun])
        alone = sum(o.kind == anchor.kind for o in self.objects) == 1
        color = "" if alone and self.rng.random() < 0.6 else anchor.color
        said = " ".join(filter(None, ("the", color, self._pick(NAMES[anchor.kind]))))
        x = self._words(SIDES[side]).format(k=word, a=said)
        return self._query("relation", x, [item], (side, noun, anchor.kind, color))

    def _at_the_end(self) -> Query | None:
        found = []
        for noun in ("thing", *sorted({o.kind for o in self.objects})):
            row = [o for o in self.objects if noun in ("thing", o.kind)]
            if len(row) < 2:
                continue
            for end in ENDS:
                ordered = order_towards(row, end)
                first, second = end_value(ordered[0], end), end_value(ordered[1], end)
                if abs(first - second) >= CLEAR_STEP_PX:
                    found.append((end, noun, ordered[0]))
        if not found:
            return None
        end, noun, item = self._pick(found)
        word = self._pick(THINGS if noun == "thing" else NAMES[noun])
        return self._query("relation", self._words(ENDS[end]).format(k=word), [item], (end, noun))

    def function(self) -> Query | None:
        fits = {u: [o for o in self.objects if o.kind in kinds] for u, (kinds, _) in USES.items()}
        found = [(use, objects[0]) for use, objects in fits.items() if len(objects) == 1]
        if not found:
            return None
        use, item = self._pick(found)
        return self._query("function", self._pick(USES[use][1]), [item], ("use", use))

    def many(self) -> Query | None:
        found: list[tuple[tuple[str, ...], str, list[SceneObject]]] = []
        for group, (kinds, names) in GROUPS.items():
            members = [o for o in self.objects if o.kind in kinds]
            found.append((("group", group), self._pick(names), members))
        for color in COLORS_RGB:
            members = [o for o in self.objects if o.color == color]
            found.append((("colored", color), f"{color} {self._pick(THINGS)}s", members))
        for kind, plural in PLURALS.items():
            members = [o for o in self.objects if o.kind == kind]
            found.append((("kind", kind), plural, members))
        found = [item for item in found if 2 <= len(item[2]) < len(self.objects)]
        if not found:
            return None
        topic, x, members = self._pick(found)
        return self._query("many", x, members, topic)

    def none(self) -> Query | None:
        ways = [self.absent_name, self.wrong_color, self.absent_use, self.absent_group]
        return first_that_works(self.rng, [*ways, self._unknown])

    def absent_name(self) -> Query | None:
        kind = self._pick([k for k in NAMES if all(o.kind != k for o in self.objects)])
        color = self._pick(list(COLORS_RGB)) if self.rng.random() < 0.6 else ""
        return self._absent("name", self._noun_phrase(kind, color), ("name", kind, color))

    def wrong_color(self) -> Query | None:
        kind = self._pick(self.objects).kind
        there = {o.color for o in self.objects if o.kind == kind}
        color = self._pick([c for c in COLORS_RGB if c not in there])
        return self._absent("name", self._noun_phrase(kind, color), ("name", kind, color))

    def absent_use(self) -> Query | None:
        there = {o.kind for o in self.objects}
        use = self._pick([u for u, (kinds, _) in USES.items() if there.isdisjoint(kinds)])
        return self._absent("function", self._pick(USES[use][1]), ("use", use))

    def absent_group(self) -> Query | None:
        kinds_there, colors_there = (
            {o.kind for o in self.objects},
            {o.color for o in self.objects},
        )
        absent = [
            (("group", group), self._pick(names))
            for group, (kinds, names) in GROUPS.items()
            if kinds_there.isdisjoint(kinds)
        ]
        absent += [
            (("colored", color), f"{color} {self._pick(THINGS)}s")
            for color in COLORS_RGB
            if color not in colors_there
        ]
        if not absent:
            return None
        topic, x = self._pick(absent)
        return self._absent("many", x, topic)

    def _unknown(self) -> Query:
        if self.rng.random() < 0.3:
            use = self._words(UNKNOWN_USES)
            return self._absent("function", use, ("unknown_use", use))
        noun = self._words(UNKNOWN)
        color = f"{self._pick(list(COLORS_RGB))} " if self.rng.random() < 0.35 else ""
        x = f"{self._pick(('the', 'a', 'my'))} {color}{noun}"
        return self._absent("name", x, ("unknown", noun))

    def _noun_phrase(self, kind: str, color: str) -> str:
        name = self._pick(NAMES[kind])
        if not color:
            return f"{self._pick(('the', 'a'))} {name}"
        return self._words(NAME_FORMS).format(c=color, k=name)

    def _absent(self, like: str, x: str, topic: tuple[str, ...]) -> Query:
        """Ask in the frames of another kind for what is not there."""
        return self._query("none", x, [], topic, PHRASINGS[like])

    def _query(
        self,
        kind: str,
        x: str,
        meant: Objects,
        topic: tuple[str, ...],
        frames: Phrasings | None = None,
    ) -> Query:
        text = frame(self.rng, frames or PHRASINGS[kind], self.wording).format(x=x)
        return Query(kind, text, tuple(sorted(o.id for o in meant)), self.wording, topic)

    def _words(self, phrasings: Phrasings) -> str:
        return words(self.rng, phrasings, self.wording)

    def _pick(self, choices: Sequence[T]) -> T:
        return pick(self.rng, choices)


def _clear(anchor: SceneObject, row: Objects) -> bool:
    if len(row) == 1:
        return True
    return distance_px(anchor, row[0]) <= CLEARLY_NEARER * distance_px(anchor, row[1])


_ASK = {kind: getattr(_Asker, kind) for kind in QUERY_KINDS}
_ASK_ABSENT = {
    "name": _Asker.absent_name,
    "color": _Asker.wrong_color,
    "use": _Asker.absent_use,
    "group": _Asker.absent_group,
}
