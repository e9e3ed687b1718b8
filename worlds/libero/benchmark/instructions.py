"""Takes a benchmark's instruction apart: the object to be moved, and where it goes.

This is what a client of the node does that picks and places: it asks for the object, then for the
place. The words stay the instruction's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAKE = r"(?:pick up|pick|lift up|lift|take|grab|get|fetch)"
_PUT = r"(?:place|put|set|drop|move|push)"
_ONTO = r"(?:on top of|on to|onto|on|into|inside of|inside|in|to|under)"
_OPEN = r"(?:slide open|pull open|open|close|shut)"
_WORK = r"(?:turn on|turn off|switch on|switch off|slide open|pull open|open|close|shut)"

_PATTERNS = (
    # open the top drawer and put the bowl inside
    rf"(?P<work>{_OPEN}) (?P<p>.+?) and {_PUT} (?P<x>.+?) (?:inside|in it|in)",
    # pick the bowl next to the plate and place it on the plate; lift bowl and set on plate
    rf"{_TAKE} (?P<x>.+) and (?:then )?{_PUT} (?:it |them )?{_ONTO} (?P<p>.+)",
    # put the wine bottle on the rack
    rf"{_PUT} (?P<x>.+) {_ONTO} (?P<p>.+)",
    # turn on the stove
    rf"(?P<work>{_WORK}) (?P<x>(?:(?! and ).)+)",
)


@dataclass(frozen=True)
class Asked:
    """An instruction's parts.

    Attributes:
        object: What is to be moved or worked.
        place: Where it goes; empty where it goes nowhere.
    """

    obj: str
    place: str


def take_apart(instruction: str) -> Asked | None:
    """The parts of an instruction; None where it is of no form that is known here.

    Instructions that move several objects, one after the other, are of none.
    """
    text = " ".join(instruction.strip().rstrip(".").split())
    text = text[:1].lower() + text[1:]
    if re.search(r"\bboth\b|\bstack\b| and (?:close|shut|open|turn on) ", text):
        return None
    if len(re.findall(rf"\b{_PUT}\b", text)) > 1:
        return None
    for pattern in _PATTERNS:
        found = re.fullmatch(pattern, text)
        if found is not None:
            parts = found.groupdict()
            return Asked(parts["x"], parts.get("p") or "")
    return None
