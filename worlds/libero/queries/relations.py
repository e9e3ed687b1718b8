"""Picks an object by where it is: between, beside, on, in, at a side, in the middle, or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from worlds.common.scene import SceneObject
from worlds.common.wording import pick
from worlds.libero.object_classes import OBJECT_CLASSES
from worlds.libero.queries.facts import (
    ANCHORS_APART_M,
    CLEAR_STEP_PX,
    CLEARLY_NEARER,
    Noun,
    SceneFacts,
)
from worlds.libero.queries.vocabulary import ENDS, THINGS

BESIDE_M = 0.08  # a gap up to which the nearest candidate may be said to be next to something
_WANTED = {"next": 4.0, "between": 4.0, "on": 9.0, "in": 7.0, "center": 4.0, "nearest": 3.0}
_WANTED |= {"drawer": 12.0, "compartment": 6.0}  # rare, so that they are asked where they can be
_AHEAD_M = 0.05  # by how much the next candidate must be further


@dataclass(frozen=True)
class Picked:
    """An object told apart by a relation.

    Attributes:
        relation: A key of `RELATIONS`, of `ENDS`, "drawer" or "compartment".
        noun: What the candidates are called.
        object: The one that is meant.
        anchors: What it is compared with.
        part: The drawer or compartment, else empty.
        negated: Whether it is the one of which the relation does not hold.
    """

    relation: str
    noun: Noun
    obj: SceneObject
    anchors: tuple[SceneObject, ...] = ()
    part: str = ""
    negated: bool = False


def pick_by_relation(facts: SceneFacts, noun: Noun) -> list[Picked]:
    """Every way in which one of the candidates stands out clearly by where it is."""
    candidates = [facts.by_id[i] for i in noun.ids]
    anchors = [o for o in facts.objects if o.id not in noun.ids and unique_noun(facts, o)]
    found = [*_center(facts, noun, candidates), *_ends(facts, noun, candidates)]
    for anchor in anchors:
        found += _beside(facts, noun, candidates, anchor)
        found += _sides(facts, noun, candidates, anchor)
    for one, other in combinations(anchors, 2):
        if facts.distance_m(one, other) >= ANCHORS_APART_M:
            found += _by_test(
                noun,
                candidates,
                "between",
                (one, other),
                lambda obj, a=one, b=other: facts.is_between(obj, a, b),
            )
    # Where one candidate stands in another, both are in the same place.
    found = [p for p in found if not any(facts.is_stacked(p.obj, c) for c in candidates)]
    for anchor in anchors:
        found += _resting(facts, noun, candidates, anchor)
    return found


def candidate_nouns(facts: SceneFacts) -> list[Noun]:
    """Nouns whose objects can be told apart, and "object", which is everything in sight."""
    everything = Noun(THINGS[0], tuple(sorted(o.id for o in facts.objects)))
    return [*facts.nouns, everything]


@lru_cache(maxsize=4)
def all_picked(facts: SceneFacts) -> list[Picked]:
    """Every way in which something here stands out by where it is."""
    return [picked for noun in candidate_nouns(facts) for picked in pick_by_relation(facts, noun)]


def choose_picked(rng: np.random.Generator, facts: SceneFacts, *, movable: bool) -> Picked | None:
    """An object told apart by a relation; rather among its like.

    Args:
        rng: Decides on the relation, then on the object and its noun.
        facts: The scene.
        movable: Whether it must be one that can be picked up.
    """
    found = all_picked(facts)
    if movable:
        found = [picked for picked in found if picked.obj in facts.movables]
    if not found:
        return None
    several = [p for p in found if len(p.noun.ids) > 1 and p.noun.text not in THINGS]
    plain = [p for p in found if p.noun.text in THINGS]
    alone = [p for p in found if len(p.noun.ids) == 1 and p.relation not in ENDS]
    groups = [(0.72, several), (0.16, plain), (0.12, alone)]
    weights = np.array([weight if group else 0.0 for weight, group in groups])
    if not weights.any():
        return None
    group = groups[int(rng.choice(len(groups), p=weights / weights.sum()))][1]
    relations = sorted({(p.relation, p.negated) for p in group})
    wanted = np.array([_wanted(*relation) for relation in relations])
    chosen = relations[int(rng.choice(len(relations), p=wanted / wanted.sum()))]
    return pick(rng, [p for p in group if (p.relation, p.negated) == chosen])


def _wanted(relation: str, negated: bool) -> float:  # noqa: FBT001 - a key of the pair
    """How often a relation is to be asked where others are possible too."""
    if relation in ENDS:
        return 0.25
    if negated:
        return 1.5
    return _WANTED.get(relation, 2.0)


def topic_of(picked: Picked) -> tuple[str, ...]:
    """What a question by this relation asks, for the writer of the training texts."""
    negated = "not" if picked.negated else ""
    return ("relation", picked.relation, picked.noun.text, negated, picked.part)


def unique_noun(facts: SceneFacts, obj: SceneObject) -> bool:
    """Whether some noun means this object alone."""
    return bool(facts.nouns_of(obj, unique=True))


def _by_test(
    noun: Noun,
    candidates: list[SceneObject],
    relation: str,
    anchors: tuple[SceneObject, ...],
    test: Callable[[SceneObject], bool | None],
    part: str = "",
) -> list[Picked]:
    """The one candidate that passes, or the one that does not, where all others are clear."""
    verdicts = [test(obj) for obj in candidates]
    if any(verdict is None for verdict in verdicts):
        return []
    fit = [c for c, verdict in zip(candidates, verdicts, strict=True) if verdict]
    unfit = [c for c, verdict in zip(candidates, verdicts, strict=True) if not verdict]
    found = []
    if len(fit) == 1:
        found.append(Picked(relation, noun, fit[0], anchors, part))
    if len(unfit) == 1 and fit and noun.text not in THINGS and relation != "drawer":
        found.append(Picked(relation, noun, unfit[0], anchors, part, negated=True))
    return found


def _center(facts: SceneFacts, noun: Noun, candidates: list[SceneObject]) -> list[Picked]:
    if facts.truth.view != "agentview":
        return []
    return _by_test(noun, candidates, "center", (), facts.is_center)


def _ends(facts: SceneFacts, noun: Noun, candidates: list[SceneObject]) -> list[Picked]:
    """Leftmost, rightmost, at the front, at the back."""
    if len(candidates) < 2:
        return []
    found = []
    for end, axis, sign in (
        ("leftmost", 0, 1),
        ("rightmost", 0, -1),
        ("frontmost", 1, -1),
        ("backmost", 1, 1),
    ):
        if axis == 1 and facts.truth.view != "agentview":
            continue
        row = sorted(candidates, key=lambda o, a=axis, s=sign: s * facts.center_px(o)[a])
        step = facts.center_px(row[1])[axis] - facts.center_px(row[0])[axis]
        if sign * step >= CLEAR_STEP_PX:
            found.append(Picked(end, noun, row[0]))
    return found


def _resting(
    facts: SceneFacts, noun: Noun, candidates: list[SceneObject], anchor: SceneObject
) -> list[Picked]:
    found: list[Picked] = []
    for relation in ("on", "in"):
        found += _by_test(
            noun,
            candidates,
            relation,
            (anchor,),
            lambda obj, r=relation: facts.rests(obj, anchor, r),
        )
    parts = {
        rest.part
        for rest in facts.truth.rests.values()
        if rest.holder == anchor.id and rest.relation == "in" and rest.part
    }
    word = "drawer" if "cabinet" in OBJECT_CLASSES[anchor.kind].names else "compartment"
    for part in sorted(parts):
        found += _by_test(
            noun,
            candidates,
            word,
            (anchor,),
            lambda obj, p=part: facts.rests(obj, anchor, "in", p),
            part,
        )
    return found


def _beside(
    facts: SceneFacts, noun: Noun, candidates: list[SceneObject], anchor: SceneObject
) -> list[Picked]:
    """Next to, where one candidate is; nearest to, where one is clearly nearer than the rest."""
    free = [c for c in candidates if not facts.is_stacked(c, anchor)]
    if not free:
        return []
    row = sorted(free, key=lambda o: facts.gap_m(o, anchor))
    gaps = [facts.gap_m(o, anchor) for o in row]
    in_image = sorted(free, key=lambda o: facts.distance_px(o, anchor))
    found = []
    if row[0] is in_image[0]:
        alone = len(row) == 1
        if gaps[0] <= BESIDE_M and (alone or gaps[1] >= gaps[0] + _AHEAD_M):
            found.append(Picked("next", noun, row[0], (anchor,)))
        if not alone and _nearest(facts, free, anchor) is row[0]:
            found.append(Picked("nearest", noun, row[0], (anchor,)))
    return found + _not_beside(facts, noun, candidates, anchor)


def _nearest(facts: SceneFacts, row: list[SceneObject], anchor: SceneObject) -> SceneObject | None:
    """The candidate that is clearly nearest, on the table and in the image."""
    for distance in (facts.distance_m, facts.distance_px):
        first, second = sorted(row, key=lambda o, d=distance: d(o, anchor))[:2]
        if distance(first, anchor) > CLEARLY_NEARER * distance(second, anchor):
            return None
    return first


def _not_beside(
    facts: SceneFacts, noun: Noun, candidates: list[SceneObject], anchor: SceneObject
) -> list[Picked]:
    if noun.text in THINGS or len(candidates) != 2:
        return []
    picked = _by_test(noun, candidates, "next", (anchor,), lambda obj: facts.is_next(obj, anchor))
    return [p for p in picked if p.negated]


def _sides(
    facts: SceneFacts, noun: Noun, candidates: list[SceneObject], anchor: SceneObject
) -> list[Picked]:
    """At a side: the one candidate there, or the clearly nearest there."""
    found = []
    sides = {c.id: facts.side_of(c, anchor) for c in candidates}
    words = ("left", "right", "front", "behind")
    for side in words if facts.truth.view == "agentview" else words[:2]:
        row = [c for c in candidates if sides[c.id] == side]
        if not row:
            continue
        first = row[0] if len(row) == 1 else _nearest(facts, row, anchor)
        if first is None:
            continue
        near = facts.distance_px(first, anchor)
        vague = [
            c
            for c in candidates
            if not sides[c.id] and facts.distance_px(c, anchor) < near / CLEARLY_NEARER
        ]
        if not vague:
            found.append(Picked(side, noun, first, (anchor,)))
    return found
