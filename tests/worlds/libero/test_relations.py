"""Objects told apart by where they are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from worlds.libero.queries.facts import Noun
from worlds.libero.queries.phrases import say_picked
from worlds.libero.queries.relations import choose_picked, pick_by_relation
from worlds.libero.queries.vocabulary import ENDS, RELATIONS
from worlds.libero.scene import Rest

PLATE, BOWL, RAMEKIN, CABINET, IN_DRAWER, STOVE, ON_STOVE, MILK = range(1, 9)


def picked(facts, noun: str) -> dict[tuple, int]:
    """(relation, negated, part, anchors) -> the one that is meant."""
    found = pick_by_relation(facts, Noun(noun, facts.called(noun)))
    return {
        (p.relation, p.negated, p.part, tuple(a.id for a in p.anchors)): p.obj.id for p in found
    }


@pytest.mark.parametrize(
    ("relation", "anchors", "meant"),
    [
        pytest.param(("next", False, ""), (PLATE,), BOWL, id="next to the plate"),
        pytest.param(("on", False, ""), (STOVE,), ON_STOVE, id="on the stove"),
        pytest.param(("drawer", False, "top"), (CABINET,), IN_DRAWER, id="in the top drawer"),
        pytest.param(("in", False, ""), (CABINET,), IN_DRAWER, id="in the cabinet"),
        pytest.param(("frontmost", False, ""), (), BOWL, id="at the front"),
    ],
)
def test_one_of_three_bowls_stands_apart(dinner, relation, anchors, meant) -> None:
    assert picked(dinner.facts(), "bowl")[(*relation, anchors)] == meant


def test_in_front_of_something_is_said_with_its_name(builder) -> None:
    plate = builder.add("plate", 0.0, 0.0, 0.14)
    builder.add("milk", 0.0, 0.3, 0.05)
    builder.add("milk", 0.0, -0.3, 0.05)
    facts = builder.facts()
    noun = Noun("milk", facts.called("milk"))
    by_relation = {(p.relation, p.anchors): p for p in pick_by_relation(facts, noun)}
    said = {
        relation: say_picked(
            np.random.default_rng(0), facts, by_relation[relation, anchors], "train"
        )
        for relation, anchors in (("front", (facts.by_id[plate],)), ("frontmost", ()))
    }
    assert "front of the plate" in said["front"]
    assert "plate" not in said["frontmost"]
    assert not set(ENDS) & set(RELATIONS)


def test_nothing_is_said_of_a_bowl_that_two_share(dinner) -> None:
    found = picked(dinner.facts(), "bowl")

    assert ("next", False, "", (MILK,)) not in found
    assert not any(relation == "center" for relation, *_ in found)


def test_not_is_said_where_all_others_fit(builder) -> None:
    plate = builder.add("plate", 0.0, 0.0, 0.14)
    builder.add("milk", 0.0, 0.12, 0.05)
    away = builder.add("milk", 0.4, -0.4, 0.05)

    found = picked(builder.facts(), "milk")

    assert found["next", True, "", (plate,)] == away


def test_between_needs_anchors_that_have_names_of_their_own(dinner) -> None:
    found = picked(dinner.facts(), "milk")

    assert found["between", False, "", (PLATE, RAMEKIN)] == MILK
    assert all(not {BOWL, ON_STOVE} & set(anchors) for *_, anchors in found)


def test_a_hand_that_looks_down_knows_no_front(dinner) -> None:
    found = picked(dinner.facts("hand"), "bowl")

    by_depth = {"front", "frontmost", "backmost", "behind", "center"}
    assert not {relation for relation, *_ in found} & by_depth
    assert ("next", False, "", (PLATE,)) in found


def test_every_relation_is_chosen_now_and_then_and_only_of_what_can_be_moved(dinner) -> None:
    facts = dinner.facts()
    rng = np.random.default_rng(0)

    chosen = [choose_picked(rng, facts, movable=True) for _ in range(300)]

    relations = Counter(p.relation for p in chosen)
    assert {"next", "on", "drawer", "between", "left", "nearest"} <= set(relations)
    assert all(p.obj.id not in (CABINET, STOVE) for p in chosen)


def test_of_two_that_stand_in_one_another_no_place_is_said(builder) -> None:
    plate = builder.add("plate", 0.0, 0.0, 0.14)
    outer = builder.add("akita_black_bowl", 0.0, 0.13, 0.11)
    inner = builder.add("white_bowl", 0.0, 0.13, 0.08, rest=Rest("in", outer, ""))

    found = picked(builder.facts(), "bowl")

    assert ("next", False, "", (plate,)) not in found
    assert inner not in found.values()


def test_what_leans_over_something_is_not_said_to_be_beside_it(builder) -> None:
    builder.add("plate", 0.0, 0.0, 0.14)
    builder.add("milk", 0.05, 0.05, 0.05, rest=Rest("leaning", 0, ""))

    assert not picked(builder.facts(), "milk").keys() & {("next", False, "", (1,))}
