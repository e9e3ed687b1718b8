"""Picks a thing by where it is: between, beside, on, in, at a side, in the middle, or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from worlds.libero.choices import pick
from worlds.libero.kinds import KINDS
from worlds.libero.looking import (
    ANCHORS_APART_M,
    CLEAR_STEP_PX,
    CLEARLY_NEARER,
    Look,
    Noun,
)
from worlds.libero.vocabulary import ENDS, THINGS
from worlds.tabletop.scene import SceneObject

BESIDE_M = 0.08  # a gap up to which the nearest candidate may be said to be next to something
_AHEAD_M = 0.05  # by how much the next candidate must be further


@dataclass(frozen=True)
class Picked:
    """A thing told apart by a relation.

    Attributes:
        relation: A key of `RELATIONS`, of `ENDS`, "drawer" or "compartment".
        noun: What the candidates are called.
        thing: The one that is meant.
        anchors: What it is compared with.
        part: The drawer or compartment, else empty.
        negated: Whether it is the one of which the relation does not hold.
    """

    relation: str
    noun: Noun
    thing: SceneObject
    anchors: tuple[SceneObject, ...] = ()
    part: str = ""
    negated: bool = False


def pick_by_relation(look: Look, noun: Noun) -> list[Picked]:
    """Every way in which one of the candidates stands out clearly by where it is."""
    candidates = [look.by_id[i] for i in noun.ids]
    anchors = [o for o in look.objects if o.id not in noun.ids and unique_noun(look, o)]
    found = [*_center(look, noun, candidates), *_ends(look, noun, candidates)]
    for anchor in anchors:
        found += _resting(look, noun, candidates, anchor)
        found += _beside(look, noun, candidates, anchor)
        found += _sides(look, noun, candidates, anchor)
    for one, other in combinations(anchors, 2):
        if look.distance_m(one, other) >= ANCHORS_APART_M:
            found += _by_test(
                noun,
                candidates,
                "between",
                (one, other),
                lambda thing, a=one, b=other: look.is_between(thing, a, b),
            )
    return found


def candidate_nouns(look: Look) -> list[Noun]:
    """Nouns whose things can be told apart, and "thing", which is everything in sight."""
    everything = Noun(THINGS[0], tuple(sorted(o.id for o in look.objects)))
    return [*look.nouns, everything]


@lru_cache(maxsize=4)
def all_picked(look: Look) -> list[Picked]:
    """Every way in which something here stands out by where it is."""
    return [picked for noun in candidate_nouns(look) for picked in pick_by_relation(look, noun)]


def choose_picked(rng: np.random.Generator, look: Look, *, movable: bool) -> Picked | None:
    """A thing told apart by a relation; rather among its like.

    Args:
        rng: Decides on the relation, then on the thing and its noun.
        look: The scene.
        movable: Whether it must be one that can be picked up.
    """
    found = all_picked(look)
    if movable:
        found = [picked for picked in found if picked.thing in look.movables]
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
        return 0.35
    if negated:
        return 1.5
    return {"left": 2.0, "right": 2.0, "front": 2.0, "behind": 2.0, "nearest": 3.0}.get(
        relation, 4.0
    )


def topic_of(picked: Picked) -> tuple[str, ...]:
    """What a question by this relation asks, for the writer of the training texts."""
    negated = "not" if picked.negated else ""
    return ("relation", picked.relation, picked.noun.text, negated, picked.part)


def unique_noun(look: Look, thing: SceneObject) -> bool:
    """Whether some noun means this thing alone."""
    return bool(look.nouns_of(thing, unique=True))


def _by_test(
    noun: Noun,
    candidates: list[SceneObject],
    relation: str,
    anchors: tuple[SceneObject, ...],
    test: Callable[[SceneObject], bool | None],
    part: str = "",
) -> list[Picked]:
    """The one candidate that passes, or the one that does not, where all others are clear."""
    verdicts = [test(thing) for thing in candidates]
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


def _center(look: Look, noun: Noun, candidates: list[SceneObject]) -> list[Picked]:
    if look.truth.view != "agentview":
        return []
    return _by_test(noun, candidates, "center", (), look.is_center)


def _ends(look: Look, noun: Noun, candidates: list[SceneObject]) -> list[Picked]:
    """Leftmost, rightmost, at the front, at the back."""
    if len(candidates) < 2:
        return []
    found = []
    for end, axis, sign in (
        ("leftmost", 0, 1),
        ("rightmost", 0, -1),
        ("front", 1, -1),
        ("back", 1, 1),
    ):
        if axis == 1 and look.truth.view != "agentview":
            continue
        row = sorted(candidates, key=lambda o, a=axis, s=sign: s * look.center_px(o)[a])
        step = look.center_px(row[1])[axis] - look.center_px(row[0])[axis]
        if sign * step >= CLEAR_STEP_PX:
            found.append(Picked(end, noun, row[0]))
    return found


def _resting(
    look: Look, noun: Noun, candidates: list[SceneObject], anchor: SceneObject
) -> list[Picked]:
    found: list[Picked] = []
    for relation in ("on", "in"):
        found += _by_test(
            noun,
            candidates,
            relation,
            (anchor,),
            lambda thing, r=relation: look.rests(thing, anchor, r),
        )
    parts = {
        rest.part
        for rest in look.truth.rests.values()
        if rest.holder == anchor.id and rest.relation == "in" and rest.part
    }
    word = "drawer" if "cabinet" in KINDS[anchor.kind].names else "compartment"
    for part in sorted(parts):
        found += _by_test(
            noun,
            candidates,
            word,
            (anchor,),
            lambda thing, p=part: look.rests(thing, anchor, "in", p),
            part,
        )
    return found


def _beside(
    look: Look, noun: Noun, candidates: list[SceneObject], anchor: SceneObject
) -> list[Picked]:
    """Next to, where one candidate is; nearest to, where one is clearly nearer than the rest."""
    free = [c for c in candidates if not look.is_stacked(c, anchor)]
    if not free:
        return []
    row = sorted(free, key=lambda o: look.gap_m(o, anchor))
    gaps = [look.gap_m(o, anchor) for o in row]
    in_image = sorted(free, key=lambda o: look.distance_px(o, anchor))
    found = []
    if row[0] is in_image[0]:
        alone = len(row) == 1
        if gaps[0] <= BESIDE_M and (alone or gaps[1] >= gaps[0] + _AHEAD_M):
            found.append(Picked("next", noun, row[0], (anchor,)))
        if not alone and _nearest(look, free, anchor) is row[0]:
            found.append(Picked("nearest", noun, row[0], (anchor,)))
    return found + _not_beside(look, noun, candidates, anchor)


def _nearest(look: Look, row: list[SceneObject], anchor: SceneObject) -> SceneObject | None:
    """The candidate that is clearly nearest, on the table and in the image."""
    for distance in (look.distance_m, look.distance_px):
        first, second = sorted(row, key=lambda o, d=distance: d(o, anchor))[:2]
        if distance(first, anchor) > CLEARLY_NEARER * distance(second, anchor):
            return None
    return first


def _not_beside(
    look: Look, noun: Noun, candidates: list[SceneObject], anchor: SceneObject
) -> list[Picked]:
    if noun.text in THINGS or len(candidates) != 2:
        return []
    picked = _by_test(
        noun, candidates, "next", (anchor,), lambda thing: look.is_next(thing, anchor)
    )
    return [p for p in picked if p.negated]


def _sides(
    look: Look, noun: Noun, candidates: list[SceneObject], anchor: SceneObject
) -> list[Picked]:
    """At a side: the one candidate there, or the clearly nearest there."""
    found = []
    sides = {c.id: look.side_of(c, anchor) for c in candidates}
    words = ("left", "right", "front", "behind")
    for side in words if look.truth.view == "agentview" else words[:2]:
        row = [c for c in candidates if sides[c.id] == side]
        if not row:
            continue
        first = row[0] if len(row) == 1 else _nearest(look, row, anchor)
        if first is None:
            continue
        near = look.distance_px(first, anchor)
        vague = [
            c
            for c in candidates
            if not sides[c.id] and look.distance_px(c, anchor) < near / CLEARLY_NEARER
        ]
        if not vague:
            found.append(Picked(side, noun, first, (anchor,)))
    return found
