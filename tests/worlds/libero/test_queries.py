"""Questions: sure answers, what the trace needs, test phrasings and forbidden texts kept out."""

from __future__ import annotations

import numpy as np
import pytest

from worlds.common.scene import Scene
from worlds.libero.ask import queries_of
from worlds.libero.package import normalized
from worlds.libero.queries.generate import ask, ask_each_kind, says_any
from worlds.libero.queries.phrasings import PHRASINGS
from worlds.libero.queries.vocabulary import QUERY_KINDS

PLATE, BOWL, RAMEKIN, CABINET, IN_DRAWER, STOVE, ON_STOVE, MILK = range(1, 9)


def asked(facts, kind: str, count: int = 200, wording: str = "train") -> list:
    rng = np.random.default_rng(3)
    queries = [ask(rng, facts, kind, wording) for _ in range(count)]
    return [query for query in queries if query is not None]


@pytest.mark.parametrize("kind", QUERY_KINDS)
def test_each_kind_is_asked_and_says_what_it_means(dinner, kind: str) -> None:
    queries = asked(dinner.facts(), kind)

    if kind == "attribute":  # three bowls of one size and color: only the stove might differ
        assert not queries
        return
    assert queries
    for query in queries:
        assert query.kind == kind
        assert "{" not in query.text
        assert query.topic
        assert bool(query.ids) == (kind != "none")


@pytest.mark.parametrize("frames", PHRASINGS.values(), ids=list(PHRASINGS))
def test_a_kind_has_twenty_phrasings_and_six_of_them_only_for_tests(frames) -> None:
    assert len(set(frames.train) | set(frames.test)) >= 20
    assert len(set(frames.test)) >= 6
    assert not set(frames.train) & set(frames.test)


def test_a_relation_tells_the_trace_its_anchors_and_candidates(dinner) -> None:
    for query in asked(dinner.facts(), "relation"):
        assert set(query.ids) <= set(query.candidates)
        relation = query.topic[1]
        if relation == "between":
            assert len(query.anchors) == 2
        elif relation in ("next", "nearest", "on", "in", "drawer", "left", "right"):
            assert len(query.anchors) == 1
        assert not set(query.anchors) & set(query.ids)


def test_an_instruction_means_what_is_moved_and_a_place_where_it_goes(dinner) -> None:
    facts = dinner.facts()

    for query in asked(facts, "instruction"):
        movable = query.ids[0] not in (CABINET, STOVE)
        assert movable or query.topic[0] == "fixture"
    for query in asked(facts, "place"):
        assert query.ids[0] in (PLATE, CABINET, STOVE)


@pytest.mark.parametrize("wording", ["train", "test"])
def test_an_order_to_open_a_drawer_for_something_means_what_goes_into_it(dinner, wording) -> None:
    facts = dinner.facts()
    marks = ("open the ", " open, ", " opened, ")

    for kind in ("instruction", "place"):
        meant = [
            CABINET in query.ids
            for query in asked(facts, kind, 400, wording)
            if any(mark in query.text for mark in marks) and query.topic[0] != "fixture"
        ]
        assert meant
        assert all(meant) if kind == "place" else not any(meant)


def test_what_is_absent_is_called_by_no_name_of_what_is_there(dinner) -> None:
    facts = dinner.facts()
    present = {noun.text for noun in facts.nouns}

    for query in asked(facts, "none"):
        if query.topic[0] == "name":
            assert query.topic[1] not in present


def test_a_test_question_has_a_phrasing_that_training_never_sees(dinner) -> None:
    facts = dinner.facts()

    train = {normalized(q.text) for kind in ("name", "many") for q in asked(facts, kind, 400)}
    test = {
        normalized(q.text)
        for kind in ("name", "many")
        for q in asked(facts, kind, 400, wording="test")
    }

    assert not train & test


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Put the bowl on the plate.", True),
        ("where does it go: put the bowl on the plate", True),
        ("put the bowl on the plates", False),
        ("put the black bowl on the plate", False),
    ],
)
def test_a_forbidden_text_is_found_inside_of_others(text: str, found: bool) -> None:
    assert says_any(text, frozenset({"put the bowl on the plate"})) is found


def test_a_forbidden_text_is_not_asked(dinner) -> None:
    facts = dinner.facts()
    forbidden = frozenset(normalized(q.text) for q in asked(facts, "name", 30))
    rng = np.random.default_rng(5)

    queries = [ask(rng, facts, "name", "train", forbidden) for _ in range(200)]

    assert all(q is None or normalized(q.text) not in forbidden for q in queries)


def test_the_questions_of_a_scene_depend_on_its_seed_and_the_draw(dinner) -> None:
    scene, truth = dinner.build()

    first = queries_of(scene, truth, frozenset())

    assert queries_of(scene, truth, frozenset()) == first
    assert queries_of(scene, truth, frozenset(), draw=1) != first


def test_training_scenes_have_no_test_phrasing(dinner) -> None:
    scene, truth = dinner.build()
    rng = np.random.default_rng(0)

    train = ask_each_kind(rng, scene, truth, test=False)
    test = [q for _ in range(5) for q in ask_each_kind(rng, scene, truth, test=True)]

    assert {q.split for q in train} == {"train"}
    assert {q.split for q in test} == {"train", "test"}


def test_queries_survive_the_scene_file(dinner) -> None:
    scene, truth = dinner.build()
    queries = queries_of(scene, truth, frozenset())
    kept = Scene.from_json(
        Scene(
            scene.seed,
            scene.image_size_wh,
            scene.intrinsics,
            scene.camera_position_m,
            scene.camera_quaternion_xyzw,
            scene.objects,
            queries,
        ).to_json()
    )

    assert kept.queries == queries
