"""The questions about a table: sure answers, test phrasings kept apart."""

from __future__ import annotations

import numpy as np
import pytest

from worlds.common.scene import SceneObject, split_of_seed
from worlds.tabletop.object_classes import COLORS_RGB, MODELS, TEST_ONLY_PAIRS, colors_of
from worlds.tabletop.queries import CLEARLY_NEARER, ask, ask_each_kind, distance_px, on_side
from worlds.tabletop.vocabulary import (
    GROUPS,
    NAMES,
    PHRASINGS,
    PLURALS,
    QUERY_KINDS,
    UNKNOWN,
    UNKNOWN_USES,
    USES,
)


def make_object(
    number: int, kind: str, color: str, box: tuple[int, int, int, int], size_m: float = 0.1
) -> SceneObject:
    area = (box[2] - box[0]) * (box[3] - box[1])
    pose = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    return SceneObject(number, kind, color, box, area, 1.0, *pose, (size_m, size_m, size_m))


TABLE = (
    make_object(1, "mug", "red", (50, 200, 110, 260)),
    make_object(2, "mug", "blue", (300, 200, 380, 280), 0.14),
    make_object(3, "hammer", "black", (150, 205, 250, 255)),
    make_object(4, "apple", "green", (500, 100, 540, 140)),
    make_object(5, "banana", "yellow", (480, 380, 560, 430)),
)


def asked(kind: str, count: int = 400, wording: str = "train") -> list:
    rng = np.random.default_rng(7)
    found = [ask(rng, TABLE, kind, wording) for _ in range(count)]
    return [query for query in found if query is not None]


def meant(query) -> list[SceneObject]:
    return [o for o in TABLE if o.id in query.ids]


def test_a_name_is_said_of_one_object_only() -> None:
    for query in asked("name"):
        (only,) = meant(query)
        assert only.color in query.text
        assert any(name in query.text for name in NAMES[only.kind])


def test_the_largest_of_a_kind_is_clearly_larger() -> None:
    texts = {q.text: q.ids for q in asked("attribute") if q.topic[0] == "largest"}
    assert texts
    assert set(texts.values()) == {(2,)}


def test_the_nearest_on_a_side_is_on_that_side_and_clearly_nearer() -> None:
    checked = 0
    for query in asked("relation"):
        side, noun, anchor_kind, color = (*query.topic, "", "")[:4]
        if not anchor_kind:
            continue
        (anchor,) = [o for o in TABLE if o.kind == anchor_kind and color in ("", o.color)]
        row = [o for o in on_side(TABLE, anchor, side) if noun in ("thing", o.kind)]
        assert query.ids == (row[0].id,)
        if len(row) > 1:
            assert distance_px(anchor, row[0]) <= CLEARLY_NEARER * distance_px(anchor, row[1])
        checked += 1
    assert checked > 100


def test_left_of_the_black_hammer_is_the_red_mug() -> None:
    assert [o.id for o in on_side(TABLE, TABLE[2], "left")] == [1]
    assert on_side(TABLE, TABLE[2], "right")[0].id == 2


def test_a_use_is_asked_for_only_where_one_object_serves_it() -> None:
    for query in asked("function"):
        kinds, _ = USES[query.topic[1]]
        assert [o.id for o in TABLE if o.kind in kinds] == list(query.ids)
    assert any(q.topic == ("use", "hammer") for q in asked("function"))


def test_many_means_every_member_and_at_least_two() -> None:
    for query in asked("many"):
        assert len(query.ids) >= 2
        if query.topic == ("group", "fruit"):
            assert query.ids == (4, 5)


def test_none_means_nothing_and_nothing_fits() -> None:
    for query in asked("none"):
        assert query.ids == ()
        if query.topic[0] == "name":
            kind, color = query.topic[1:]
            assert not [o for o in TABLE if o.kind == kind and color in ("", o.color)]


@pytest.mark.parametrize("kind", QUERY_KINDS[:-1])
def test_each_kind_has_fifteen_phrasings_five_of_them_for_tests_only(kind: str) -> None:
    phrasings = PHRASINGS[kind]
    assert len(set(phrasings.train)) >= 10
    assert len(set(phrasings.test)) >= 5
    assert not set(phrasings.train) & set(phrasings.test)


def test_training_wordings_never_use_a_test_frame_or_word() -> None:
    test_words = {*UNKNOWN.test, *UNKNOWN_USES.test}
    for kind in QUERY_KINDS:
        for query in asked(kind, 200):
            assert not any(f" {word}" in query.text for word in test_words)
            for frames in PHRASINGS.values():
                for frame in frames.test:
                    before, after = frame.split("{x}")
                    assert not (
                        query.text.startswith(before)
                        and query.text.endswith(after)
                        and len(before + after) > 8
                    ), query.text


def test_test_scenes_use_both_wordings() -> None:
    rng = np.random.default_rng(0)
    splits = {q.split for _ in range(20) for q in ask_each_kind(rng, TABLE, test=True)}
    assert splits == {"train", "test"}


def test_every_kind_has_a_name_a_plural_and_a_colour_for_training() -> None:
    assert len(MODELS) >= 14
    for kind in MODELS:
        assert NAMES[kind]
        assert PLURALS[kind]
        assert colors_of(kind, with_test_only=False)
    for kind, color in TEST_ONLY_PAIRS:
        assert color in COLORS_RGB
        assert color not in colors_of(kind, with_test_only=False)
        assert color in colors_of(kind, with_test_only=True)
    for kinds, _ in (*GROUPS.values(), *USES.values()):
        assert set(kinds) <= set(MODELS)


@pytest.mark.parametrize(
    ("seed", "split"),
    [
        (0, "train"),
        (799_999, "train"),
        (800_000, "validation"),
        (999_999, "validation"),
        (1_000_000, "test"),
    ],
)
def test_the_seed_alone_tells_the_split(seed: int, split: str) -> None:
    assert split_of_seed(seed) == split


def test_a_table_with_every_colour_and_every_group_still_gets_its_none_question() -> None:
    kinds = ("apple", "hammer", "mug", "can", "book", "ball", "bowl", "phone")
    full = [
        make_object(i + 1, kind, color, (60 * i + 10, 100, 60 * i + 50, 160))
        for i, (kind, color) in enumerate(zip(kinds, COLORS_RGB, strict=True))
    ]
    rng = np.random.default_rng(3)
    queries = [ask(rng, full, "none") for _ in range(300)]
    assert all(query is not None and query.ids == () for query in queries)
