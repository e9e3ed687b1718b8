"""A scene as a person sees it: names, and where objects are to one another."""

from __future__ import annotations

import pytest

from worlds.libero.object_classes import FIXTURE_KINDS, OBJECT_CLASSES
from worlds.libero.queries.vocabulary import GROUPS, USES
from worlds.libero.scene import Rest

PLATE, BOWL, RAMEKIN, CABINET, IN_DRAWER, STOVE, ON_STOVE, MILK = range(1, 9)


def test_every_use_and_group_of_a_class_has_words() -> None:
    for described in OBJECT_CLASSES.values():
        assert set(described.uses) <= set(USES)
        assert set(described.groups) <= set(GROUPS)
    assert set(FIXTURE_KINDS) <= set(OBJECT_CLASSES)


def test_a_name_means_every_object_that_has_it(dinner) -> None:
    facts = dinner.facts()

    assert facts.called("bowl") == (BOWL, IN_DRAWER, ON_STOVE)
    assert facts.called("milk") == (MILK,)


def test_a_color_is_said_only_where_nobody_could_see_it_otherwise(builder) -> None:
    builder.add("white_bottle", 0.0, 0.0)  # surely green, perhaps white
    builder.add("wine_bottle", 0.3, 0.0)  # surely black, perhaps green

    texts = {noun.text for noun in builder.facts().nouns}

    assert "black wine bottle" in texts
    assert "green wine bottle" not in texts


def test_what_the_surroundings_show_is_never_called_absent(builder) -> None:
    builder.add("milk", 0.0, 0.0)
    scene, truth = builder.build(arena="kitchen")

    from worlds.libero.queries.facts import SceneFacts

    names = SceneFacts(scene, truth).absent_names

    assert "plate" in names
    assert not any("stove" in name for name in names)


@pytest.mark.parametrize(
    ("number", "anchor", "verdict"),
    [
        pytest.param(BOWL, PLATE, True, id="touching"),
        pytest.param(MILK, BOWL, False, id="far away"),
        pytest.param(ON_STOVE, STOVE, False, id="what stands on it is not beside it"),
    ],
)
def test_beside(dinner, number: int, anchor: int, verdict: bool) -> None:
    facts = dinner.facts()

    assert facts.is_next(facts.by_id[number], facts.by_id[anchor]) is verdict


def test_a_gap_that_is_neither_small_nor_large_is_unclear(builder) -> None:
    builder.add("plate", 0.0, 0.0, 0.1)
    builder.add("milk", 0.175, 0.0, 0.1)
    facts = builder.facts()

    assert facts.is_next(*facts.objects) is None


def test_between_is_near_the_middle_of_the_line(dinner) -> None:
    facts = dinner.facts()
    by_id = facts.by_id

    assert facts.is_between(by_id[MILK], by_id[RAMEKIN], by_id[PLATE]) is True
    assert facts.is_between(by_id[BOWL], by_id[RAMEKIN], by_id[PLATE]) is False


def test_what_is_in_a_drawer_is_not_on_the_cabinet(dinner) -> None:
    facts = dinner.facts()
    bowl, cabinet = facts.by_id[IN_DRAWER], facts.by_id[CABINET]

    assert facts.rests(bowl, cabinet, "in", "top") is True
    assert facts.rests(bowl, cabinet, "in", "middle") is False
    assert facts.rests(bowl, cabinet, "on") is False


def test_what_stands_on_something_that_stands_on_it_is_unclear(builder) -> None:
    stove = builder.add("flat_stove", 0.0, 0.0, 0.2, fixture=True)
    plate = builder.add("plate", 0.0, 0.0, 0.14, rest=Rest("on", stove, ""))
    milk = builder.add("milk", 0.0, 0.0, 0.05, rest=Rest("on", plate, ""))
    facts = builder.facts()

    assert facts.rests(facts.by_id[milk], facts.by_id[plate], "on") is True
    assert facts.rests(facts.by_id[milk], facts.by_id[stove], "on") is None


@pytest.mark.parametrize(
    ("x", "y", "side"),
    [(-0.3, 0.0, "left"), (0.3, 0.05, "right"), (0.0, 0.3, "front"), (0.0, -0.3, "behind")],
)
def test_sides_are_those_of_the_image(builder, x: float, y: float, side: str) -> None:
    builder.add("plate", 0.0, 0.0)
    builder.add("milk", x, y)
    plate, milk = builder.facts().objects

    assert builder.facts().side_of(milk, plate) == side


def test_a_diagonal_is_no_side(builder) -> None:
    builder.add("plate", 0.0, 0.0)
    builder.add("milk", 0.2, 0.17)
    plate, milk = builder.facts().objects

    assert builder.facts().side_of(milk, plate) == ""


def test_the_middle_of_the_table_is_where_the_camera_shows_it(builder) -> None:
    builder.add("milk", 0.02, 0.0)
    facts = builder.facts()

    assert facts.is_center(facts.objects[0]) is True
    assert facts.surface_center_px == pytest.approx((320.0, 320.0))
