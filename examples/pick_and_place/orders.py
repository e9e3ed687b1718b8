"""Splits an instruction into what to take and where to put it.

The grammar; words in capitals are the lists below, and parts in [ ] may be left out:

    order  = [please] clause [("," | ";" | "and" | "then") clause] ...
    clause = TAKE items
           | PUT items RELATION place
           | PUT ["it" | "them"] RELATION place     after a TAKE: the items that were taken
           | PUT items "inside"                    after "open": inside of what was opened
           | WORK item
    items = item | "both" item "and" item | "the" item ["," "the" item] ... ["and the" item]
    item  = a noun phrase, with relations of its own ("the bowl next to the plate")
    place = a noun phrase; after "between" two of them with "and"

"it" as a place or as what is worked is the last place, else the last item. A noun phrase is
handed on as it stands: what it means is the node's business. Where a clause could be split in
several ways, its last relation is the place's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

TAKE: Final = ("pick up", "pick", "lift up", "lift", "take", "grab", "get", "fetch")
PUT: Final = ("place", "put", "set", "drop", "move", "push", "stack", "lay", "bring", "slide")
WORK: Final = {
    "open": ("slide open", "pull open", "open"),
    "close": ("push shut", "close", "shut"),
    "turn on": ("turn on", "switch on"),
    "turn off": ("turn off", "switch off"),
}
RELATIONS: Final = {
    "on": ("on the top of", "on top of", "on to", "onto", "upon", "on"),
    "in": ("inside of", "inside", "within", "into", "in"),
    "front": ("to the front of", "at the front of", "in front of"),
    "left": ("to the left side of", "to the left of", "left of"),
    "right": ("to the right side of", "to the right of", "right of"),
    "behind": ("to the back of", "at the back of", "behind"),
    "beside": ("next to", "beside", "alongside", "close to", "near", "by"),
    "between": ("in between", "between"),
    "under": ("under", "below"),
    "to": ("to",),
}
"""Where something is put, and the words for it."""
_SIDES: Final = {"front": "front", "left side": "left", "right side": "right", "back": "behind"}
"""Of "the stove's front"."""


@dataclass(frozen=True)
class Step:
    """One step of an order."""

    skill: str  # "move", "pick", or a key of `WORK`
    item: str  # the noun phrase of what is moved or worked
    relation: str = ""  # for "move": a key of `RELATIONS`
    place: str = ""  # for "move": the noun phrase of where it goes


def parse_order(instruction: str) -> tuple[Step, ...]:
    """Split an instruction into steps, in their order; none where it is of no known form."""
    text = " ".join(instruction.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    text = re.sub(rf"^(?:{_POLITE}\s+)*", "", text.rstrip(".!? "), flags=re.IGNORECASE)
    steps: list[Step] = []
    taken: tuple[str, ...] = ()
    for clause in re.split(rf"{_THEN}(?={_ALL}\b)", text[:1].lower() + text[1:]):
        found = _clause(clause, steps, taken)
        if found is None:
            return ()
        taken, steps = found
    return (*steps, *(Step("pick", item) for item in taken))


def places_of(step: Step) -> tuple[str, ...]:
    """The noun phrases of where something goes; two for "between", none if they are not two."""
    if step.relation != "between":
        return (step.place,)
    two = re.fullmatch(r"(.+?)\s+and\s+(.+)", step.place)
    return (two[1], two[2]) if two else ()


def _any(*lists: tuple[str, ...]) -> str:
    words = sorted((word for words in lists for word in words), key=len, reverse=True)
    return "(?:" + "|".join(map(re.escape, words)) + ")"


_POLITE: Final = r"(?:please|now|kindly|(?:can|could|would) you)"
_THEN: Final = r"(?:[,;.]\s+|\s+(?=and\s|then\s))(?:and\s+)?(?:then\s+)?"
_IT: Final = r"(?:it|them|that)"
_TAKE, _PUT, _WORK = _any(TAKE), _any(PUT), _any(*WORK.values())
_ALL, _RELATION = f"(?:{_TAKE}|{_PUT}|{_WORK})", _any(*RELATIONS.values())


def _clause(
    text: str, steps: list[Step], taken: tuple[str, ...]
) -> tuple[tuple[str, ...], list[Step]] | None:
    """What is in the hand after a clause, and all steps so far; None where it has no form."""
    last = next((step.place or step.item for step in reversed(steps)), "")
    if found := re.fullmatch(rf"{_TAKE}\s+(.+)", text):
        return None if taken else (_items(found[1]), steps)
    if found := re.fullmatch(rf"({_WORK})\s+(.+)", text):
        skill = next(skill for skill, words in WORK.items() if found[1] in words)
        item = last if re.fullmatch(_IT, found[2]) else found[2]
        return None if taken or not item else ((), [*steps, Step(skill, item)])
    if found := re.fullmatch(rf"{_PUT}\s+(?:{_IT}\s+)?({_RELATION})\s+(.+)", text):
        moved = _moves(taken, found[1], found[2], last)
        return ((), [*steps, *moved]) if moved else None
    if found := re.fullmatch(rf"{_PUT}\s+(.+?)\s+(?:inside|in\s+{_IT})", text):
        moved = [Step("move", item, "in", last) for item in _items(found[1])]
        return ((), [*steps, *moved]) if last and not taken else None
    found = re.fullmatch(rf"{_PUT}\s+(.+)", text)
    if found is None or taken:
        return None
    split = _last_relation(found[1])
    moved = _moves(_items(split[0]), split[1], split[2], last) if split else []
    return ((), [*steps, *moved]) if moved else None


def _last_relation(text: str) -> tuple[str, str, str] | None:
    """Things, relation and place; "to the front of" is one relation, not the "of" of an item."""
    spans = [found.span() for found in re.finditer(rf"(?<=\s){_RELATION}(?=\s)", text)]
    if not spans:
        return None
    start, end = spans[-1]
    return text[:start].strip(), text[start:end], text[end:].strip()


def _moves(items: tuple[str, ...], word: str, place: str, last: str) -> list[Step]:
    relation = next(name for name, words in RELATIONS.items() if word in words)
    if re.fullmatch(_IT, place):
        place = last
    if found := re.fullmatch(rf"(.+)'s ({'|'.join(_SIDES)})", place):
        place, relation = found[1], _SIDES[found[2]]
    return [Step("move", item, relation, place) for item in items] if place else []


def _items(text: str) -> tuple[str, ...]:
    """One noun phrase, or several after "both" or with an article each."""
    if both := re.fullmatch(r"both\s+(.+?)\s+and\s+(.+)", text):
        return both[1], both[2]
    if re.search(r"\bbetween\b", text):  # "the bowl between the plate and the ramekin" is one
        return (text,)
    return tuple(re.split(r"(?:,\s+(?:and\s+)?|\s+and\s+)(?=(?:the|a|an)\s)", text))
