"""Limits on completions and depth: what is larger or odder is refused, in little time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from segzero_core import AnswerParseError, InputError
from segzero_core.completion.parser import StreamReader, parse_completion
from segzero_core.config import GraspConfig
from segzero_core.depth import CameraModel, depth_in_meters, measure_object
from segzero_core.limits import MAX_COMPLETION_CHARS, MAX_DEPTH_M, MAX_OBJECTS
from segzero_core.testing.fakes import ScriptedReasoner, fake_segzero

OBJECT = '{"bbox_2d": [1, 1, 9, 9], "point_2d": [5, 5]}'


def test_a_completion_has_a_largest_length() -> None:
    text = f"<answer>[{OBJECT}]</answer>"
    fill = " " * (MAX_COMPLETION_CHARS - len(text))
    assert len(parse_completion(fill + text).prompts) == 1
    with pytest.raises(AnswerParseError, match=f"at most {MAX_COMPLETION_CHARS} are read"):
        parse_completion(fill + " " + text)


def test_an_answer_has_a_largest_number_of_objects() -> None:
    for objects in (", ".join([OBJECT] * MAX_OBJECTS), " and ".join([OBJECT] * MAX_OBJECTS)):
        assert len(parse_completion(f"<answer>{objects}</answer>").prompts) == MAX_OBJECTS
        with pytest.raises(AnswerParseError, match=f"more than {MAX_OBJECTS} objects"):
            parse_completion(f"<answer>{objects} {OBJECT}</answer>")


def test_a_reasoner_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    said = itertools.count()

    def endless(*_: Any, **__: Any) -> Iterator[str]:
        while next(said) < 10_000:
            yield "<think>" + "a" * 1000

    monkeypatch.setattr(ScriptedReasoner, "stream", endless)
    with pytest.raises(AnswerParseError, match="at most"):
        fake_segzero("").segment(np.zeros((20, 20, 3), np.uint8), "a mug")
    assert next(said) < 300


def test_a_stream_that_is_too_long_makes_no_more_events() -> None:
    reader = StreamReader()
    assert reader.feed("<answer>" + "x" * 100)
    reader.feed("y" * MAX_COMPLETION_CHARS)
    assert reader.is_too_long
    assert reader.feed(OBJECT) == []


CAMERA = CameraModel(np.array([[60.0, 0, 80], [0, 60.0, 60], [0, 0, 1]]), (), (160, 120))


@pytest.mark.parametrize("far", [np.inf, np.nan, 1e30, 2 * MAX_DEPTH_M, -1.0])
def test_depth_that_no_camera_measures_is_unknown(far: float) -> None:
    depth = np.full((120, 160), far, np.float32)
    assert np.isnan(depth_in_meters(depth, "32FC1")).all()
    mask = np.zeros((120, 160), np.bool_)
    mask[40:80, 40:80] = True
    with pytest.raises(InputError, match="no depth under the mask"):
        measure_object(mask, depth, CAMERA, grasping=GraspConfig())
