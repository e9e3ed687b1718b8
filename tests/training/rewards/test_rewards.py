"""Rewards: against figures by hand, a plain second implementation, and what must always hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segzero_core.errors import ConfigError
from tests.training.rewards.plain_rewards import Case, plain_terms
from tests.training.rewards.reward_table import (
    BY_HAND_MULTI,
    BY_HAND_SINGLE,
    KNOWN_DEFECTS,
    MULTI,
    SINGLE,
    A,
    B,
    generated,
    listed,
    reply,
    score_one,
    total_of,
    truth,
    truth_of,
)
from training.rewards.ground_truth import GroundTruth
from training.rewards.protocols import (
    PROTOCOLS,
    RewardProtocol,
    Term,
    make_protocol,
    score,
)

REPOSITORY = Path(__file__).parents[3]
BY_HAND = [*BY_HAND_SINGLE, *BY_HAND_MULTI]
TABLE = [*BY_HAND, *generated()]
ANSWER_TERMS = ("segmentation_format", "box_iou", "box_l1", "point_l1")


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: case.id)
def test_the_total_is_the_one_worked_out_by_hand(case: Case, name: str) -> None:
    assert total_of(name, case.text, truth_of(case)) == pytest.approx(case.expected[name])


def test_the_reference_gives_what_the_public_code_gives_for_its_known_defects() -> None:
    cases = KNOWN_DEFECTS
    scores = score(PROTOCOLS["reference"], [c.text for c in cases], [truth_of(c) for c in cases])

    assert scores.totals.tolist() == [5, 1, 1, 5, 4, 1, 4, 5, 5, 5]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_term_agrees_with_the_plain_implementation(name: str) -> None:
    assert len(TABLE) >= 200
    scores = score(PROTOCOLS[name], [c.text for c in TABLE], [truth_of(c) for c in TABLE])

    for index, case in enumerate(TABLE):
        expected = plain_terms(name, case)
        got = {term: scores.terms[term][index] for term in expected}
        assert got == pytest.approx(expected), case
        assert scores.totals[index] == pytest.approx(sum(expected.values())), case


def test_the_table_holds_every_kind_of_outcome() -> None:
    cases = generated()
    scores = score(PROTOCOLS["segzero"], [c.text for c in cases], [truth_of(c) for c in cases])

    assert 0.05 < scores.unusable_share < 0.5
    for values in scores.terms.values():
        assert 0 < np.count_nonzero(values) < len(cases)
    assert np.count_nonzero((scores.terms["box_l1"] % 1) > 0) > 20


def test_unusable_completions_are_counted() -> None:
    scores = score(PROTOCOLS["segzero"], [reply("[]"), "no", reply("[{")], [truth(A)] * 3)

    assert scores.unusable.tolist() == [False, True, True]
    assert scores.unusable_share == pytest.approx(2 / 3)


def test_what_the_model_is_paid_for_reading_is_what_parse_completion_reads() -> None:
    cases = [case for case in TABLE if case.id]
    scores = score(PROTOCOLS["paper"], [c.text for c in cases], [truth_of(c) for c in cases])

    assert scores.unusable.tolist() == [case.said is None for case in cases]


def test_an_unusable_completion_still_earns_its_thinking_format() -> None:
    terms = score_one("segzero", reply("the mug"), truth(A))

    assert terms["thinking_format"] == 1.0
    assert [terms[name] for name in (*ANSWER_TERMS, "refusal")] == [0.0] * 5


def test_no_completions_are_no_scores() -> None:
    scores = score(PROTOCOLS["segzero"], [], [])

    assert scores.totals.shape == (0,)
    assert scores.unusable_share == 0.0


# --- what must always hold -----------------------------------------------------------------------

FRAGMENTS = [
    *["<think>", "</think>", "<answer>", "</answer>", "why.", "\n", " ", "[", "]", "{", "}", ","],
    *['"bbox_2d":', '"bbox":', '"point_2d":', '"points_1":', '"points_2":', "[1,2,3,4]", "[5,6]"],
    *["NaN", "1e999", "-1e308", "9" * 400, "true", "null", '"x"', "[[1],[2],[3],[4]]", "\ud800"],
    *['{"bbox_2d": [0,0,100,100], "point_2d": [50,50]}', listed((A, B))],
    '{"bbox": [-1e308,0,1e308,9], "points_1": [1,2], "points_2": [1e308,-1e308]}',
    '{"bbox_2d": [1e307,0,1.5e307,9e307], "point_2d": [-9e307,0]}',
]
texts = st.one_of(
    st.text(st.characters(codec=None)),
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join),
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map(lambda parts: reply("".join(parts))),
)
TRUTHS = [truth(), truth(A), truth(A, B), truth(form=SINGLE), truth(A, form=SINGLE)]
VARIANTS = [
    *PROTOCOLS.values(),
    make_protocol("reference", format="soft"),
    *(
        make_protocol(name, accuracy="soft", format="soft", parts=parts, thinking=False)
        for name in ("paper", "segzero")
        for parts in (("box",), ("points",), ("box", "points"))
    ),
]


@given(texts, st.sampled_from(TRUTHS), st.sampled_from(VARIANTS))
@settings(max_examples=600, deadline=None)
def test_no_text_whatever_raises_or_leaves_the_bounds(
    text: str, right: GroundTruth, protocol: RewardProtocol
) -> None:
    terms = score_one(protocol, text, right)

    for name, earned in terms.items():
        assert 0 <= earned <= protocol.terms[name].weight(right.form) + 1e-9


coordinate = st.integers(0, 400)
sides = st.integers(10, 400)


@st.composite
def objects(draw: st.DrawFn) -> Any:
    x, y, w, h = draw(coordinate), draw(coordinate), draw(sides), draw(sides)
    return (x, y, x + w, y + h), ((x + w // 2, y + h // 2), (x + w // 3, y + h // 3))


several = st.lists(objects(), min_size=1, max_size=5)


def said_near(right: list[Any], moves: list[int]) -> list[Any]:
    """Objects that are off by the moves, in turn."""
    moved = []
    for index, (box, points) in enumerate(right):
        by = moves[index % len(moves)]
        moved.append((tuple(v + by for v in box), tuple((x + by, y) for x, y in points)))
    return moved


moves = st.lists(st.sampled_from([0, 0, 4, 8, 20, 60]), min_size=1, max_size=5)


@given(several, moves, st.randoms(use_true_random=False), st.sampled_from(VARIANTS))
@settings(max_examples=200, deadline=None)
def test_the_order_of_objects_does_not_matter(
    right: list[Any], moves: list[int], rng: Any, protocol: RewardProtocol
) -> None:
    said = said_near([*right, right[0]], moves)
    shuffled, shuffled_right = rng.sample(said, len(said)), rng.sample(right, len(right))

    first = score_one(protocol, reply(listed(tuple(said))), truth(*right))
    second = score_one(protocol, reply(listed(tuple(shuffled))), truth(*shuffled_right))

    if protocol in PROTOCOLS.values():
        assert first == pytest.approx(second)
    assert sum(first.values()) == pytest.approx(sum(second.values()), abs=1e-3)


@given(several, moves, st.sampled_from(["paper", "segzero", "reference"]))
@settings(max_examples=200, deadline=None)
def test_pixels_are_counted_in_the_size_that_was_seen(
    right: list[Any], moves: list[int], name: str
) -> None:
    def scaled(some: list[Any], factor: int) -> tuple[Any, ...]:
        return tuple(
            (tuple(v * factor for v in box), tuple((x * factor, y * factor) for x, y in points))
            for box, points in some
        )

    said = said_near(right, moves)
    small = score_one(name, reply(listed(tuple(said))), truth(*right))
    large = score_one(
        name, reply(listed(scaled(said, 4))), truth(*scaled(right, 4), size=(3360, 3360))
    )

    assert large == pytest.approx(small)


@given(several, st.sampled_from(VARIANTS))
@settings(deadline=None)
def test_a_perfect_answer_earns_everything(right: list[Any], protocol: RewardProtocol) -> None:
    total = total_of(protocol, reply(listed(tuple(right))), truth(*right))

    assert total == pytest.approx(protocol.maximum(MULTI))


@given(objects(), st.sampled_from(VARIANTS))
@settings(deadline=None)
def test_a_perfect_single_object_earns_everything(obj: Any, protocol: RewardProtocol) -> None:
    box, (first, second) = obj
    answer = json.dumps({"bbox": box, "points_1": first, "points_2": second})

    total = total_of(protocol, reply(answer), truth(obj, form=SINGLE))

    assert total == pytest.approx(protocol.maximum(SINGLE))


# --- what must not pay ---------------------------------------------------------------------------


@given(several, st.integers(1, 5))
@settings(deadline=None)
def test_saying_objects_again_costs(right: list[Any], extra: int) -> None:
    said = [*right, *(right[index % len(right)] for index in range(extra))]

    terms = score_one("segzero", reply(listed(tuple(said))), truth(*right))

    assert terms["box_iou"] <= len(right) / len(said) + 1e-9
    assert terms["point_l1"] <= len(right) / len(said) + 1e-9


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_list_of_everything_earns_less_than_the_answer(name: str) -> None:
    grid = [((x, y, x + 100, y + 100), ((x + 50, y + 50),)) for x in range(0, 800, 100)
            for y in range(0, 800, 100)]  # fmt: skip
    everything = score_one(name, reply(listed(tuple(grid))), truth(A, B))

    assert everything["box_iou"] == pytest.approx(2 / 64)


@pytest.mark.parametrize("accuracy", ["hard", "soft"])
@pytest.mark.parametrize("form", [SINGLE, MULTI])
def test_refusing_pays_only_where_nothing_fits(accuracy: Any, form: str) -> None:
    protocol = make_protocol("segzero", accuracy=accuracy)

    refused = score_one(protocol, reply("[]"), truth(A, form=form))
    rightly = score_one(protocol, reply("[]"), truth(form=form))
    wrongly = score_one(protocol, reply(listed((A,))), truth(form=form))

    assert [refused[name] for name in (*ANSWER_TERMS, "refusal")] == [0.0] * 5
    assert sum(rightly.values()) == protocol.maximum(form)
    assert [wrongly[name] for name in (*ANSWER_TERMS, "refusal")] == [0.0] * 5


def test_a_huge_box_does_not_make_room_for_a_point() -> None:
    huge = ((0, 0, 840, 840), ((130, 50),))
    right = (A[0], ((120, 50), (40, 40)))

    assert score_one("paper", reply(listed((huge,))), truth(right))["point_l1"] == 1.0
    assert score_one("segzero", reply(listed((huge,))), truth(right))["point_l1"] == 0.0


def test_a_point_in_the_hole_of_a_mask_is_outside() -> None:
    mask = np.zeros((1, 420, 420), bool)
    mask[0, :50, :50] = True
    mask[0, 20:30, 20:30] = False
    right = replace(truth((A[0], ((50, 50),))), masks=mask)
    beside = (A[0], ((30, 50),))

    assert score_one("segzero", reply(listed((A,))), right)["point_l1"] == 0.0
    assert score_one("segzero", reply(listed((beside,))), right)["point_l1"] == 1.0


def test_a_point_outside_the_image_is_outside_every_mask() -> None:
    right = replace(truth(A), masks=np.ones((1, 840, 840), bool))
    outside = (A[0], ((-1, 50),))

    assert score_one("segzero", reply(listed((outside,))), right)["point_l1"] == 0.0


# --- variants -----------------------------------------------------------------------------------


def test_the_largest_rewards_are_those_of_the_papers() -> None:
    maxima = {n: (p.maximum(SINGLE), p.maximum(MULTI)) for n, p in PROTOCOLS.items()}

    assert maxima == {"paper": (5, 7), "reference": (5, 7), "segzero": (7, 7)}


def test_soft_accuracy_is_in_proportion() -> None:
    protocol = make_protocol("paper", accuracy="soft")
    half = ((0, 0, 100, 50), ((50, 29),))

    terms = score_one(protocol, reply(listed((half,))), truth(A))

    assert terms["box_iou"] == 0.5
    assert terms["box_l1"] == pytest.approx(1 - 12.5 / 840)
    assert terms["point_l1"] == pytest.approx(1 - 21 / 840)


def test_the_soft_format_takes_the_other_form() -> None:
    other, right = reply(listed((A,))), truth(A, form=SINGLE)

    soft = score_one(make_protocol("paper", format="soft"), other, right)
    strict = score_one(make_protocol("paper", format="strict"), other, right)

    assert soft["segmentation_format"] == 1.0
    assert strict["segmentation_format"] == 0.0


def test_the_soft_format_of_the_reference_takes_any_key_with_bbox_and_points() -> None:
    answer = reply('{"my_bbox": [0, 0, 100, 100], "points a": [50, 50], "points b": [40, 40]}')
    right = truth(A, form=SINGLE)

    assert total_of(make_protocol("reference", format="soft"), answer, right) == 5
    assert total_of(make_protocol("reference", format="strict"), answer, right) == 1


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        pytest.param(("box",), {"box_iou", "box_l1"}, id="box"),
        pytest.param(("points",), {"point_l1"}, id="points"),
    ],
)
def test_parts_leave_the_other_terms_out(parts: tuple[str, ...], kept: set[str]) -> None:
    protocol = make_protocol("paper", parts=parts, thinking=False)

    assert set(protocol.terms) == {"segmentation_format", "non_repeat"} | kept


def test_with_points_alone_the_pairing_looks_at_points() -> None:
    # Boxes and points of two objects crossed: a pairing can honour the one or the other.
    wide = [((0, 0, 400, 400), ((50, 50),)), ((0, 0, 400, 401), ((250, 250),))]
    said = [(wide[0][0], wide[1][1]), (wide[1][0], wide[0][1])]

    terms = score_one(make_protocol("paper", parts=("points",)), reply(listed(tuple(said))),
                      truth(*wide))  # fmt: skip

    assert terms["point_l1"] == 1.0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        pytest.param({"name": "ours"}, "protocol", id="protocol"),
        pytest.param({"accuracy": "medium"}, "accuracy", id="accuracy"),
        pytest.param({"format": "loose"}, "format", id="format"),
        pytest.param({"parts": ()}, "parts", id="no part"),
        pytest.param({"parts": ("mask",)}, "parts", id="unknown part"),
        pytest.param({"name": "reference", "accuracy": "soft"}, "public code", id="soft"),
    ],
)
def test_an_unknown_variant_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make_protocol(**settings)


def test_a_term_that_is_not_there_cannot_be_left_out() -> None:
    with pytest.raises(ConfigError, match="beauty"):
        PROTOCOLS["paper"].without_terms("beauty")


def test_a_weight_scales_a_term() -> None:
    protocol = PROTOCOLS["paper"].with_terms(non_repeat=Term(lambda answer, right: 0.5, 1.0, 3.0))

    assert score_one(protocol, reply("[]"), truth(A))["non_repeat"] == 1.5
