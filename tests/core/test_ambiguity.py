"""When an answer leaves open which thing was meant."""

from __future__ import annotations

import numpy as np
import pytest

from segzero_core.ambiguity import asks_for_one, is_ambiguous
from segzero_core.types import (
    Box,
    ModelIdentity,
    ObjectPrompt,
    Reasoning,
    Result,
    Segmentation,
    Timings,
)


def answer(query: str, *scores: float) -> Result:
    prompts = tuple(ObjectPrompt(Box(i, 0, i + 1, 1), ()) for i in range(len(scores)))
    masks = np.zeros((len(scores), 4, 4), np.bool_)
    return Result(
        query,
        Reasoning("", prompts, ""),
        Segmentation(masks, np.array(scores, np.float32)),
        Timings(0, 0, 0, 0, 0, 0),
        ModelIdentity("fake", "0", "fake"),
        (4, 4),
    )


@pytest.mark.parametrize(
    "query",
    [
        "the red mug",
        "a mug",
        "something to drive a nail with",
        "what is left of the bowl",
        "my cup",
    ],
)
def test_a_query_in_the_singular_asks_for_one(query: str) -> None:
    assert asks_for_one(query)


@pytest.mark.parametrize(
    "query",
    [
        "all the fruit",
        "the mugs",
        "mugs",
        "both cups",
        "the two bowls",
        "everything round",
        "fruit",
    ],
)
def test_any_other_query_does_not(query: str) -> None:
    assert not asks_for_one(query)


def test_near_equal_objects_for_one_object_are_ambiguous() -> None:
    assert is_ambiguous(answer("the mug", 0.90, 0.85), 0.1)


@pytest.mark.parametrize(
    ("query", "scores"),
    [
        pytest.param("the mug", (), id="nothing"),
        pytest.param("the mug", (0.9,), id="one object"),
        pytest.param("the mug", (0.9, 0.5), id="one clearly better"),
        pytest.param("all mugs", (0.9, 0.9), id="several asked for"),
    ],
)
def test_anything_else_is_not_ambiguous(query: str, scores: tuple[float, ...]) -> None:
    assert not is_ambiguous(answer(query, *scores), 0.1)
