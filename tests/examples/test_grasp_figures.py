"""How the grasp benchmark sorts its misses and counts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.grasp import cause_of, object_under, summary
from examples.grasp_client import Step
from worlds.common.scene import Query
from worlds.tabletop.cell import Lift

ONE = Query("name", "the red mug", (2,))
MANY = Query("many", "all the tools", (1, 2))
NONE = Query("none", "the elephant", ())
UP, FLAT = Lift((1,), ()), Lift((), ())


@pytest.mark.parametrize(
    ("query", "step", "lift", "object_id", "overlap", "cause"),
    [
        pytest.param(ONE, Step.HELD, UP, 2, 0.9, "", id="lifted"),
        pytest.param(ONE, Step.HELD, UP, 2, 0.3, "", id="lifted by a bad mask"),
        pytest.param(MANY, Step.HELD, Lift((0,), ()), 1, 0.9, "", id="any of many"),
        pytest.param(ONE, Step.HELD, Lift((1,), (0,)), 2, 0.9, "bad grasp", id="another rose"),
        pytest.param(ONE, Step.HELD, Lift((0, 1), ()), 2, 0.9, "bad grasp", id="two lifted"),
        pytest.param(ONE, Step.HELD, Lift((0,), ()), 1, 0.9, "wrong object", id="another lifted"),
        pytest.param(ONE, Step.FAILED, FLAT, 0, 0.0, "no answer", id="error"),
        pytest.param(ONE, Step.NOTHING, FLAT, 0, 0.0, "no answer", id="found nothing"),
        pytest.param(ONE, Step.ASK, FLAT, 0, 0.0, "no answer", id="asked back"),
        pytest.param(ONE, Step.EMPTY, FLAT, 2, 0.3, "bad mask", id="half a mask"),
        pytest.param(ONE, Step.NO_GRASP, FLAT, 2, 0.9, "bad grasp", id="too large"),
        pytest.param(ONE, Step.EMPTY, FLAT, 2, 0.9, "bad grasp", id="closed on nothing"),
        pytest.param(ONE, Step.SLIPPED, FLAT, 2, 0.9, "slipped", id="slipped"),
        pytest.param(ONE, Step.HELD, FLAT, 2, 0.9, "slipped", id="hangs too low"),
        pytest.param(NONE, Step.NOTHING, FLAT, 0, 0.0, "", id="nothing moved"),
        pytest.param(NONE, Step.ASK, FLAT, 0, 0.0, "", id="nothing moved but asked"),
        pytest.param(NONE, Step.FAILED, FLAT, 0, 0.0, "no answer", id="an error is no refusal"),
        pytest.param(NONE, Step.HELD, UP, 2, 0.9, "wrong object", id="took something"),
    ],
)
def test_each_miss_has_one_cause(
    query: Query, step: Step, lift: Lift, object_id: int, overlap: float, cause: str
) -> None:
    assert cause_of(query, step, lift, object_id, overlap) == cause


def test_a_mask_is_of_the_object_that_it_fits_best() -> None:
    instances = np.zeros((4, 8), np.uint16)
    instances[:, :4], instances[:, 4:] = 1, 2
    mask = np.zeros((4, 8), np.bool_)
    mask[:, 3:8] = True
    object_id, overlap = object_under(mask, instances)
    assert (object_id, overlap) == (2, 16 / 20)
    assert object_under(np.zeros_like(mask), instances) == (0, 0.0)


def test_the_share_counts_every_trial() -> None:
    rows = [
        {"kind": "name", "cause": "", "step": "HELD"},
        {"kind": "name", "cause": "slipped", "step": "SLIPPED"},
        {"kind": "none", "cause": "", "step": "NOTHING"},
        {"kind": "none", "cause": "wrong object", "step": "HELD"},
    ]
    figures = summary(rows, 0.5)
    assert figures["lifted"] == 0.5
    assert list(figures["kinds"]) == ["all", "name", "none"]
    assert figures["kinds"]["name"]["causes"]["slipped"] == 1
