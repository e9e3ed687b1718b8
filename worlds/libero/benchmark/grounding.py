"""What is asked about a benchmark's task, and what is right.

An instruction is asked as it stands, then by the object alone, as a client of the node would ask;
likewise the place where it goes. What the scene lacks is asked for, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worlds.common.scene import Query, Scene
from worlds.libero.benchmark.instructions import take_apart
from worlds.libero.object_classes import FIXTURE_KINDS, OBJECT_CLASSES
from worlds.libero.queries.facts import SceneFacts
from worlds.libero.queries.vocabulary import UNKNOWN
from worlds.libero.scene import Truth

KINDS_ASKED = ("instruction", "object", "fixture", "place", "target", "none")
"""The order; the object alone; a fixture that is worked, either way; where the order puts the
object; the place alone; what is not there."""

PLACE_FRAME = "where does it go: {order}"
ABSENT_FRAMES = ("the {x}", "pick up the {x}")
_ABSENT_COUNT = 2
_SINGLE_PLACE_AT = 1  # where the second of two objects of interest is the place


class TaskOfInterest(Protocol):
    """What is asked about."""

    suite: str
    index: int
    instruction: str
    of_interest: tuple[str, ...]


@dataclass(frozen=True)
class Omission:
    """A question that is not asked."""

    suite: str  # the suite's name
    task: int  # number of the task
    state: int  # number of the initial state; -1 for all
    kind: str  # one of `KINDS_ASKED`, or "task" where nothing of it is asked
    reason: str  # Why


def ask_task(
    task: TaskOfInterest, state: int, scene: Scene, truth: Truth
) -> tuple[tuple[Query, ...], list[Omission]]:
    """Everything that is asked about one image of a task, and what is left out.

    Args:
        task: What the benchmark wants.
        state: Number of the initial state.
        scene: The image.
        truth: With the names of its objects.
    """
    queries: list[Query] = []
    omitted: list[Omission] = []

    def omit(kind: str, reason: str) -> None:
        omitted.append(Omission(task.suite, task.index, state, kind, reason))

    asked = take_apart(task.instruction)
    interest = task.of_interest
    if not interest or len(interest) > _SINGLE_PLACE_AT + 1:
        omit("instruction", "the task moves several things, or names none")
    else:
        _ask_for_object(queries, omit, task, asked.obj if asked else "", truth)
        if len(interest) > _SINGLE_PLACE_AT:
            _ask_for_place(queries, omit, task, asked.place if asked else "", truth)
    queries += _absent(task, state, SceneFacts(scene, truth))
    return tuple(queries), omitted


def id_of(name: str, truth: Truth) -> int:
    """The id of an object of interest; a region belongs to the object that its name begins with.

    0 where it is not seen.
    """
    found = [i for i, own in truth.names.items() if name == own or name.startswith(f"{own}_")]
    return found[0] if found else 0


def _ask_for_object(
    queries: list[Query], omit: object, task: TaskOfInterest, alone: str, truth: Truth
) -> None:
    number = id_of(task.of_interest[0], truth)
    if not number:
        omit("instruction", f"nothing of {task.of_interest[0]} is visible")  # type: ignore[operator]
        return
    fixed = number in truth.fixtures
    kind = "fixture" if fixed else "instruction"
    queries.append(_query(kind, task.instruction, number))
    if alone:
        queries.append(_query("fixture" if fixed else "object", alone, number))
    else:
        omit("object", "the instruction is of no known form")  # type: ignore[operator]


def _ask_for_place(
    queries: list[Query], omit: object, task: TaskOfInterest, alone: str, truth: Truth
) -> None:
    name = task.of_interest[_SINGLE_PLACE_AT]
    number = id_of(name, truth)
    if not number:
        omit("place", f"{name} is no visible object")  # type: ignore[operator]
        return
    queries.append(_query("place", PLACE_FRAME.format(order=task.instruction), number))
    if alone:
        queries.append(_query("target", alone, number))
    else:
        omit("target", "the instruction is of no known form")  # type: ignore[operator]


def _absent(task: TaskOfInterest, state: int, facts: SceneFacts) -> list[Query]:
    """Two objects that the scene lacks: one of the benchmark's, one of nowhere."""
    rng = np.random.default_rng((task.index, state, _ABSENT_COUNT))
    hidden = {
        n
        for kind in facts.truth.hidden_kinds
        if kind in OBJECT_CLASSES
        for n in OBJECT_CLASSES[kind].names
    }
    plain = {OBJECT_CLASSES[kind].names[0] for kind in OBJECT_CLASSES if kind not in FIXTURE_KINDS}
    words = {word for kind in _kinds(facts) for word in kind.split("_")}
    names = [
        name
        for name in facts.absent_names
        if name in plain and name not in hidden and not set(name.split()) & words
    ]
    nouns = (str(rng.choice(names)), str(rng.choice(UNKNOWN.test)))
    frames = rng.permutation(ABSENT_FRAMES)
    return [
        Query("none", str(frame).format(x=noun), (), "test")
        for frame, noun in zip(frames, nouns, strict=True)
    ]


def _kinds(facts: SceneFacts) -> list[str]:
    return [*(obj.kind for obj in facts.objects), *facts.truth.hidden_kinds]


def _query(kind: str, text: str, number: int) -> Query:
    return Query(kind, text, (number,), "test")
