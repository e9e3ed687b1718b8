"""Orders to a robot: which object is meant, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worlds.common.scene import Query, SceneObject
from worlds.common.wording import Wording, first_that_works, frame, pick, words
from worlds.libero.composition.roles import (
    BASKETS,
    BOWLS,
    CABINETS,
    DRAWERS,
    PAN,
    PLATES,
    STOVES,
    TRAY,
)
from worlds.libero.object_classes import OBJECT_CLASSES
from worlds.libero.queries.facts import Noun, SceneFacts
from worlds.libero.queries.phrases import say_anchor, say_noun, say_picked
from worlds.libero.queries.phrasings import (
    FIXTURE_ORDERS,
    OPENING_ORDERS,
    PHRASINGS,
    PUT,
    TAKE,
)
from worlds.libero.queries.relations import choose_picked, topic_of, unique_noun
from worlds.libero.queries.vocabulary import (
    DRAWER_NAMES,
    IN_PLACES,
    ON_PLACES,
    PLACES_ALONE,
    SIDE_PLACES,
)

_ON = (*PLATES, *STOVES, TRAY, "wine_rack", "brown_rack", "wooden_two_layer_shelf", "cookies")
_IN = (*BASKETS, *BOWLS, PAN, TRAY, "desk_caddy", "microwave")
_ALSO_ON = (*BOWLS, "microwave")  # what people say is put on them, too
_BRIEF_CHANCE = 0.15
_RELATION_CHANCE = 0.55  # of the object to be told apart by where it is
_FIXTURE_CHANCE = 0.1
_SIDE_CHANCE = 0.12  # of the place to be beside something
_OPENING_CHANCE = 0.4  # of an order into a drawer or a microwave to say that it is to be opened
_ALONE_CHANCE = 0.3  # of a question about a place to name the place only
_COMPARTMENTS = ("left", "right", "front", "back")


@dataclass(frozen=True)
class _Moved:
    """What an order moves, in words and in truth; `objects` is empty where it is not there."""

    text: str
    objects: tuple[SceneObject, ...]
    topic: tuple[str, ...]
    anchors: tuple[int, ...]
    candidates: tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    """Where an order puts it: words with a preposition, the object, and what it is called."""

    text: str
    obj: SceneObject
    noun: str
    opened: str = ""  # what is opened for it, in words


def ask_instruction(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    """A whole order; the answer is what is to be moved, or worked."""
    if rng.random() < _FIXTURE_CHANCE:
        query = _fixture_order(rng, facts, wording)
        if query is not None:
            return query
    brief = bool(rng.random() < _BRIEF_CHANCE)
    moved = _moved(rng, facts, wording, brief=brief)
    if moved is None:
        return None
    place = _place(rng, facts, wording, moved, brief=brief, sides=True)
    if place is None:
        return None
    text = _order(rng, moved, place, wording)
    ids = tuple(obj.id for obj in moved.objects)
    return Query("instruction", text, ids, wording, moved.topic, moved.anchors, moved.candidates)


def ask_place(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    """Where an order puts the object: the answer is what it is put on or in."""
    moved = _moved(rng, facts, wording, brief=bool(rng.random() < _BRIEF_CHANCE))
    if moved is None:
        return None
    place = _place(rng, facts, wording, moved, brief=False, sides=False)
    if place is None:
        return None
    if rng.random() < _ALONE_CHANCE:
        text = frame(rng, PLACES_ALONE, wording).format(p=place.text)
    else:
        order = _order(rng, moved, place, "train")
        text = frame(rng, PHRASINGS["place"], wording).format(order=order.rstrip("?"))
    ids = (place.obj.id,)
    return Query("place", text, ids, wording, ("place", place.noun), (), ids)


def ask_absent_order(
    rng: np.random.Generator, facts: SceneFacts, wording: Wording
) -> Query | None:
    """An order about something that is not there."""
    name = pick(rng, facts.absent_names)
    topic = ("name", name)
    moved = _Moved(say_noun(rng, Noun(name, ())), (), topic, (), ())
    place = _place(rng, facts, wording, moved, brief=False, sides=True)
    if place is None:
        return None
    return Query("none", _order(rng, moved, place, wording), (), wording, topic)


def _order(rng: np.random.Generator, moved: _Moved, place: _Place, wording: Wording) -> str:
    opens = place.opened and rng.random() < _OPENING_CHANCE
    phrasings = OPENING_ORDERS if opens else PHRASINGS["instruction"]
    template = frame(rng, phrasings, wording)
    take, put = pick(rng, TAKE), pick(rng, PUT)
    return template.format(take=take, put=put, x=moved.text, p=place.text, o=place.opened)


def _moved(
    rng: np.random.Generator, facts: SceneFacts, wording: Wording, *, brief: bool
) -> _Moved | None:
    if rng.random() < _RELATION_CHANCE:
        picked = choose_picked(rng, facts, movable=True)
        if picked is not None:
            anchors = tuple(anchor.id for anchor in picked.anchors)
            text = say_picked(rng, facts, picked, wording, brief=brief)
            return _Moved(text, (picked.obj,), topic_of(picked), anchors, picked.noun.ids)
    objects = [obj for obj in facts.movables if unique_noun(facts, obj)]
    if not objects:
        return None
    obj = pick(rng, objects)
    noun = pick(rng, facts.nouns_of(obj, unique=True))
    text = say_noun(rng, noun, brief=brief)
    return _Moved(text, (obj,), ("name", noun.text), (), noun.ids)


def _place(
    rng: np.random.Generator,
    facts: SceneFacts,
    wording: Wording,
    moved: _Moved,
    *,
    brief: bool,
    sides: bool,
) -> _Place | None:
    """Something that can take it, called by a name that only it has."""
    free = [
        obj
        for obj in facts.objects
        if obj not in moved.objects
        and unique_noun(facts, obj)
        and not any(
            obj.id in facts.holders(o) or o.id in facts.holders(obj) for o in moved.objects
        )
    ]
    if sides and free and rng.random() < _SIDE_CHANCE:
        obj = pick(rng, free)
        return _said(rng, facts, obj, words(rng, SIDE_PLACES, wording), brief=brief)
    takers = [obj for obj in free if obj.kind in (*_ON, *_IN, *CABINETS)]
    if not takers:
        return None
    obj = pick(rng, takers)
    if obj.kind in CABINETS and rng.random() < 0.5:
        return _drawer_place(rng, facts, obj, wording)
    if obj.kind == "desk_caddy" and rng.random() < 0.5:
        part = pick(rng, _COMPARTMENTS)
        anchor = say_anchor(rng, facts, obj)
        return _Place(f"in the {part} compartment of {anchor}", obj, anchor)
    ways = []
    if obj.kind in (*_ON, *_ALSO_ON, *CABINETS):
        ways.append(ON_PLACES)
    if obj.kind in _IN:
        ways += [IN_PLACES, IN_PLACES]
    return _said(rng, facts, obj, words(rng, pick(rng, ways), wording), brief=brief)


def _said(
    rng: np.random.Generator, facts: SceneFacts, obj: SceneObject, template: str, *, brief: bool
) -> _Place:
    anchor = say_anchor(rng, facts, obj, brief=brief)
    if obj.kind in CABINETS and template.startswith(("on", "down")) and rng.random() < 0.25:
        anchor = "the top of the drawers" if len(facts.called("cabinet")) == 1 else anchor
        template = template.replace("on top of", "on")
    inside = obj.kind == "microwave" and template in IN_PLACES.train + IN_PLACES.test
    opened = anchor if inside else ""
    return _Place(template.format(a=anchor), obj, anchor.removeprefix("the "), opened)


def _drawer_place(
    rng: np.random.Generator, facts: SceneFacts, obj: SceneObject, wording: Wording
) -> _Place:
    drawer = pick(rng, DRAWER_NAMES[pick(rng, DRAWERS)])
    anchor = say_anchor(rng, facts, obj)
    inside = words(rng, IN_PLACES, wording)
    alone = len(facts.called("cabinet")) == 1
    said = f"the {drawer}" if alone and rng.random() < 0.5 else f"the {drawer} of {anchor}"
    return _Place(inside.format(a=said), obj, anchor.removeprefix("the "), said)


def _fixture_order(rng: np.random.Generator, facts: SceneFacts, wording: Wording) -> Query | None:
    """Open, shut, switch: the fixture itself is meant."""

    def order(name: str) -> Query | None:
        alike = [o for o in facts.objects if name in OBJECT_CLASSES[o.kind].names]
        objects = [o for o in alike if unique_noun(facts, o)]
        if not objects:
            return None
        obj = pick(rng, objects)
        templates = FIXTURE_ORDERS[name]
        template = (
            words(rng, templates, wording)
            if wording == "train"
            else frame(rng, templates, wording)
        )
        if "{x}" not in template and len(alike) > 1:
            return None
        text = template.format(d=pick(rng, DRAWERS), x=say_anchor(rng, facts, obj))
        ids = (obj.id,)
        return Query("instruction", text, ids, wording, ("fixture", name), (), ids)

    return first_that_works(rng, [lambda name=name: order(name) for name in FIXTURE_ORDERS])
