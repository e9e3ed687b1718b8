"""What is asked about a benchmark's task, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from worlds.libero.benchmark.grounding import ask_task, id_of
from worlds.libero.benchmark.instructions import take_apart


@dataclass(frozen=True)
class Asked:
    """A task as the questions need it."""

    instruction: str
    of_interest: tuple[str, ...]
    suite: str = "libero_spatial"
    index: int = 3


@pytest.mark.parametrize(
    ("instruction", "obj", "place"),
    [
        ("Put the jar on the tray", "the jar", "the tray"),
        ("put the jar on top of the tray.", "the jar", "the tray"),
        ("Pick the jar by the pan and place it in the pot", "the jar by the pan", "the pot"),
        ("lift jar from pan and set on tray", "jar from pan", "tray"),
        ("grab jar and put it into pot", "jar", "pot"),
        ("Open the top drawer and put the jar inside", "the jar", "the top drawer"),
        ("slide open the top drawer and place the jar in it", "the jar", "the top drawer"),
        ("Push the jar to the front of the pan", "the jar", "the front of the pan"),
        ("Switch on the lamp", "the lamp", ""),
    ],
)
def test_an_instruction_is_taken_apart_in_its_own_words(instruction, obj, place) -> None:
    asked = take_apart(instruction)

    assert asked is not None
    assert (asked.obj, asked.place) == (obj, place)


@pytest.mark.parametrize(
    "instruction",
    [
        "put both jars on the tray",
        "put the jar on the tray and put the pan on the stove",
        "put the jar in the drawer and close it",
        "turn on the lamp and put the jar on it",
        "dance",
    ],
)
def test_an_instruction_of_several_deeds_is_not(instruction: str) -> None:
    assert take_apart(instruction) is None


def test_the_order_the_object_and_the_place_are_asked(dinner) -> None:
    task = Asked(
        "Pick the bowl next to the plate and place it on the plate",
        ("akita_black_bowl_1", "plate_1"),
    )

    queries, omitted = ask_task(task, 0, *dinner.build())

    assert not omitted
    assert [(q.kind, q.ids) for q in queries[:4]] == [
        ("instruction", (2,)),
        ("object", (2,)),
        ("place", (1,)),
        ("target", (1,)),
    ]
    assert [q.text for q in queries[1:4:2]] == ["the bowl next to the plate", "the plate"]
    assert [(q.kind, q.ids) for q in queries[4:]] == [("none", ()), ("none", ())]


def test_a_region_belongs_to_its_object() -> None:
    from worlds.libero.scene import Truth

    names = {4: "wooden_cabinet_1", 5: "wooden_cabinet_10"}
    truth = Truth("table", "agentview", (0, 0, 0), (4,), {}, {}, {}, (), (), names=names)

    assert id_of("wooden_cabinet_1_top_region", truth) == 4
    assert id_of("wooden_cabinet_10_top_side", truth) == 5
    assert id_of("main_table_front_region", truth) == 0


def test_what_works_a_fixture_is_a_kind_of_its_own(dinner) -> None:
    queries, _ = ask_task(Asked("Turn on the stove", ("flat_stove_1",)), 0, *dinner.build())

    assert [(q.kind, q.ids) for q in queries[:2]] == [("fixture", (6,)), ("fixture", (6,))]


def test_a_hidden_object_is_an_omission_with_its_reason(dinner) -> None:
    task = Asked("Pick the ketchup and place it on the plate", ("ketchup_1", "plate_1"))

    queries, omitted = ask_task(task, 7, *dinner.build())

    assert [(o.suite, o.task, o.state, o.kind) for o in omitted] == [
        ("libero_spatial", 3, 7, "instruction")
    ]
    assert omitted[0].reason == "nothing of ketchup_1 is visible"
    assert {q.kind for q in queries} == {"place", "target", "none"}


def test_a_place_on_the_bare_table_is_an_omission(dinner) -> None:
    task = Asked(
        "Push the plate to the front of the stove", ("plate_1", "main_table_front_region")
    )

    queries, omitted = ask_task(task, 0, *dinner.build())

    assert [o.kind for o in omitted] == ["place"]
    assert [q.kind for q in queries[:2]] == ["instruction", "object"]


def test_a_task_of_several_objects_is_an_omission(dinner) -> None:
    task = Asked(
        "put both bowls on the plate", ("akita_black_bowl_1", "akita_black_bowl_2", "plate_1")
    )

    queries, omitted = ask_task(task, 0, *dinner.build())

    assert len(omitted) == 1
    assert {q.kind for q in queries} == {"none"}


def test_what_is_lacking_depends_on_task_and_state_alone(dinner) -> None:
    task = Asked("Turn on the stove", ("flat_stove_1",))
    lacking = [
        [q.text for q in ask_task(task, state, *dinner.build())[0] if q.kind == "none"]
        for state in (0, 0, 1)
    ]

    assert lacking[0] == lacking[1] != lacking[2]
    assert not any(name in text for text in lacking[0] for name in ("bowl", "milk", "plate"))
