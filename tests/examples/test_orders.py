"""Instructions are split into what to take and where to put it."""

from __future__ import annotations

import pytest

from examples.pick_and_place.orders import PUT, RELATIONS, TAKE, Step, parse_order, places_of


@pytest.mark.parametrize(
    ("instruction", "steps"),
    [
        (
            "Pick the spoon next to the jar and place it on the towel.",
            [Step("move", "the spoon next to the jar", "on", "the towel")],
        ),
        (
            "grab cup between the jar and the lid and then set on shelf",
            [Step("move", "cup between the jar and the lid", "on", "shelf")],
        ),
        (
            "put the jar on the tray on the shelf",
            [Step("move", "the jar on the tray", "on", "the shelf")],
        ),
        ("push the jar to the front of the oven", [Step("move", "the jar", "front", "the oven")]),
        (
            "move the jar to the oven\N{RIGHT SINGLE QUOTATION MARK}s front",
            [Step("move", "the jar", "front", "the oven")],
        ),
        ("please drop the lid into the bin", [Step("move", "the lid", "in", "the bin")]),
        (
            "put both the jar and the lid in the bin",
            [Step("move", "the jar", "in", "the bin"), Step("move", "the lid", "in", "the bin")],
        ),
        (
            "open the upper drawer and put the jar inside",
            [Step("open", "the upper drawer"), Step("move", "the jar", "in", "the upper drawer")],
        ),
        (
            "put the jar in the oven and close it",
            [Step("move", "the jar", "in", "the oven"), Step("close", "the oven")],
        ),
        (
            "put the red jar on the tray and put the lid to the right of the tray",
            [
                Step("move", "the red jar", "on", "the tray"),
                Step("move", "the lid", "right", "the tray"),
            ],
        ),
        (
            "Take the jar, then set it between the tray and the lid; lift the lid.",
            [
                Step("move", "the jar", "between", "the tray and the lid"),
                Step("pick", "the lid"),
            ],
        ),
        (
            "move the jar, the lid and the spoon into the bin",
            [Step("move", f"the {name}", "in", "the bin") for name in ("jar", "lid", "spoon")],
        ),
        ("lay the jar next to the tray", [Step("move", "the jar", "beside", "the tray")]),
        ("set the lid on top of the jar", [Step("move", "the lid", "on", "the jar")]),
        ("place the lid inside the bin", [Step("move", "the lid", "in", "the bin")]),
        ("put the lid onto the jar", [Step("move", "the lid", "on", "the jar")]),
        ("turn off the lamp", [Step("turn off", "the lamp")]),
        ("take the jar", [Step("pick", "the jar")]),
        ("pick up the jar and the lid", [Step("pick", "the jar"), Step("pick", "the lid")]),
    ],
)
def test_an_instruction_becomes_its_steps(instruction: str, steps: list[Step]) -> None:
    assert list(parse_order(instruction)) == steps


@pytest.mark.parametrize(
    "instruction",
    [
        "",
        "what is on the table?",
        "put the jar",
        "close it",
        "take the jar and open the oven",
        "it",
    ],
)
def test_what_has_no_known_form_has_no_steps(instruction: str) -> None:
    assert parse_order(instruction) == ()


def test_between_has_two_places_and_all_else_one() -> None:
    (step,) = parse_order("put the jar between the tray and the red lid")
    assert places_of(step) == ("the tray", "the red lid")
    (step,) = parse_order("put the jar between the trays")
    assert places_of(step) == ()
    (step,) = parse_order("put the jar on the tray")
    assert places_of(step) == ("the tray",)


@pytest.mark.parametrize("verb", TAKE)
def test_every_verb_of_taking_takes(verb: str) -> None:
    assert parse_order(f"{verb} the jar") == (Step("pick", "the jar"),)


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_verb_of_putting_goes_with_every_word_of_a_relation(relation: str) -> None:
    for verb in PUT:
        for word in RELATIONS[relation]:
            assert parse_order(f"{verb} the jar {word} the tray") == (
                Step("move", "the jar", relation, "the tray"),
            )
