"""Several reasoners in order: who is asked, who answers, and what is known of each afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segzero_core import (
    AnswerParseError,
    CancelledError,
    InputError,
    ModelLoadError,
    ReasoningError,
    Result,
    RgbImage,
    SegZero,
)
from segzero_core.reasoner.circuit_breaker import BreakerState
from segzero_core.reasoner.fallback import NamedReasoner
from segzero_core.reasoner.server_reply import ServerError
from segzero_core.testing.fakes import (
    BoxSegmenter,
    FakeEncoder,
    ScriptedReasoner,
    fake_description,
)
from segzero_core.types import Box, ModelIdentity
from tests.core.reasoner.fault_server import FaultServer, silent
from tests.core.reasoner.test_remote import counting, error_page

REPLY = '<answer>[{"bbox_2d": [10, 20, 30, 40], "point_2d": [15, 25]}]</answer>'
DOWN = ServerError("server a: cannot be reached")


class Breaking:
    """Says the beginning of a reply and fails."""

    description = fake_description()

    def stream(self, image: RgbImage, query: str, **_: Any) -> Iterator[str]:
        yield REPLY[:20]
        raise ServerError("server a: broke off", REPLY[:20])


def chain(*reasoners: Any) -> SegZero:
    named = [
        NamedReasoner(ModelIdentity(name, name * 4, "fake"), reasoner)
        for name, reasoner in zip("abc", reasoners, strict=False)
    ]
    first, *others = named
    parts = (first.reasoner, FakeEncoder(), BoxSegmenter(), first.identity)
    return SegZero(*parts, tuple(others))


def states(model: SegZero) -> list[BreakerState]:
    return [health.state for health in model.health]


def ask(model: SegZero, image: RgbImage, **options: Any) -> Result:
    return model.segment(image, "the mug", **options)


def test_the_first_one_answers_and_the_others_are_not_asked(image: RgbImage) -> None:
    second = ScriptedReasoner(REPLY)
    model = chain(ScriptedReasoner(REPLY), second)

    result = ask(model, image)

    assert (result.answered_by, result.model.weights_hash) == ("a", "aaaa")
    assert second.queries == []
    assert [(health.answered, health.failed) for health in model.health] == [(1, 0), (0, 0)]


def test_the_next_one_answers_where_the_first_is_down(image: RgbImage) -> None:
    model = chain(ScriptedReasoner(DOWN), ScriptedReasoner(DOWN), ScriptedReasoner(REPLY))

    result = ask(model, image)

    assert (result.answered_by, result.model.weights_hash) == ("c", "cccc")
    assert [health.failed for health in model.health] == [1, 1, 0]
    assert model.health[0].last_error == str(DOWN)


def test_boxes_are_read_in_the_frame_of_the_one_that_answered(image: RgbImage) -> None:
    other = ScriptedReasoner(REPLY, description=fake_description((200, 200)))

    result = ask(chain(ScriptedReasoner(DOWN), other), image)

    assert result.reasoning.prompts[0].box == Box(4, 6, 12, 12)  # 80x60 in place of 200x200


def test_one_that_failed_too_often_is_left_alone(image: RgbImage) -> None:
    first = ScriptedReasoner(DOWN)
    model = chain(first, ScriptedReasoner(REPLY))

    for _ in range(5):
        assert ask(model, image).answered_by == "b"

    assert len(first.queries) == 2
    assert states(model) == [BreakerState.OPEN, BreakerState.CLOSED]


def test_one_that_is_left_alone_is_the_last_resort(image: RgbImage) -> None:
    first = ScriptedReasoner([DOWN, DOWN, REPLY])
    model = chain(first, ScriptedReasoner([REPLY, REPLY, DOWN]))
    for _ in range(2):
        ask(model, image)

    assert ask(model, image).answered_by == "a"
    assert states(model) == [BreakerState.CLOSED, BreakerState.CLOSED]


def test_where_all_are_down_the_last_failure_is_raised(image: RgbImage) -> None:
    model = chain(ScriptedReasoner(ReasoningError("broken")), ScriptedReasoner(DOWN))

    with pytest.raises(ServerError, match="cannot be reached"):
        ask(model, image)


def test_a_reply_that_has_begun_is_not_begun_again_by_another(image: RgbImage) -> None:
    second = ScriptedReasoner(REPLY)
    model = chain(Breaking(), second)

    with pytest.raises(ServerError, match="broke off"):
        ask(model, image)
    assert second.queries == []
    assert model.health[0].failed == 1


@pytest.mark.parametrize(
    ("reply", "error"),
    [("<answer>{}</answer>", AnswerParseError), (InputError("a special token"), InputError)],
)
def test_an_answer_or_a_query_that_is_no_use_says_nothing_against_the_reasoner(
    image: RgbImage, reply: Any, error: type[Exception]
) -> None:
    second = ScriptedReasoner(REPLY)
    model = chain(ScriptedReasoner(reply), second)

    with pytest.raises(error):
        ask(model, image)
    assert second.queries == []
    assert model.health[0].failed == 0


def test_one_that_is_silent_for_half_of_the_time_is_given_up(image: RgbImage) -> None:
    model = chain(ScriptedReasoner(REPLY, delay_s=3600.0), ScriptedReasoner(REPLY))

    result = ask(model, image, cancel=threading.Event(), timeout_s=0.4)

    assert result.answered_by == "b"
    assert model.health[0].last_error.startswith("no text within 0.2")


def test_one_that_has_begun_in_time_may_take_longer(image: RgbImage) -> None:
    model = chain(ScriptedReasoner(REPLY, delay_s=0.02), ScriptedReasoner(REPLY))

    assert ask(model, image, cancel=threading.Event(), timeout_s=0.4).answered_by == "a"


def test_the_caller_stops_the_one_that_is_asked(image: RgbImage) -> None:
    cancel = threading.Event()
    second = ScriptedReasoner(REPLY)
    model = chain(ScriptedReasoner(REPLY, delay_s=3600.0), second)
    threading.Timer(0.1, cancel.set).start()

    with pytest.raises(CancelledError):
        ask(model, image, cancel=cancel, timeout_s=600.0)
    assert second.queries == []
    assert model.health[0].failed == 0


def test_a_server_that_is_down_at_the_start_is_asked_when_it_is_there(
    tiny_model: Path, image: RgbImage
) -> None:
    with FaultServer(error_page(503)) as server:
        url = server.url
    model = SegZero.load(f"{url}#m={tiny_model}", fallbacks=[str(tiny_model)], device="cpu")

    assert ask(model, image).answered_by == str(tiny_model)
    assert "cannot be reached" in model.health[0].last_error


def test_a_server_that_resizes_is_refused_also_with_a_fallback(tiny_model: Path) -> None:
    with (
        FaultServer(counting(default=500)) as server,
        pytest.raises(ModelLoadError, match="resizes images"),
    ):
        SegZero.load(f"{server.url}#m={tiny_model}", fallbacks=[str(tiny_model)], device="cpu")


def test_without_a_fallback_a_server_that_is_down_is_refused(tiny_model: Path) -> None:
    with FaultServer(silent(0.0)) as server:
        url = server.url
    with pytest.raises(ModelLoadError, match="cannot be reached"):
        SegZero.load(f"{url}#m={tiny_model}", device="cpu")


def test_the_masks_are_those_of_the_one_that_answered(tiny_model: Path, image: RgbImage) -> None:
    alone = SegZero.load(str(tiny_model), device="cpu")
    with FaultServer(error_page(503)) as server:
        url = server.url
    behind = SegZero.load(f"{url}#m={tiny_model}", fallbacks=[str(tiny_model)], device="cpu")

    expected, got = ask(alone, image), ask(behind, image)

    np.testing.assert_array_equal(got.segmentation.masks, expected.segmentation.masks)
    assert got.model.weights_hash == expected.model.weights_hash
