"""Replies in Qwen's own form: a fenced list of boxes, with thinking before it or without."""

from __future__ import annotations

import numpy as np
import pytest

from segzero_core import (
    AnswerParseError,
    Box,
    ModelIdentity,
    PromptFound,
    RgbImage,
    SegZero,
    StreamReader,
    ThinkingDelta,
    TruncatedReplyError,
    parse_completion,
)
from segzero_core.testing.fakes import (
    BoxSegmenter,
    FakeEncoder,
    ScriptedReasoner,
    fake_description,
)

TWO = """```json
[
	{"bbox_2d": [100, 200, 300, 400], "label": "red mug"},
	{"bbox_2d": [500, 0, 1000, 250], "label": "mug [\\"2\\"]"}
]
```"""
BOXES = [(100, 200, 300, 400), (500, 0, 1000, 250)]


def boxes(text: str) -> list[tuple[float, ...]]:
    return [prompt.box.xyxy for prompt in parse_completion(text, native=True).prompts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(TWO, BOXES, id="fenced"),
        pytest.param(TWO.strip("`json\n"), BOXES, id="bare"),
        pytest.param(f"Here they are:\n{TWO}\nDone.", BOXES, id="prose around"),
        pytest.param('{"bbox_2d": [1, 2, 3, 4], "label": "a"}', [(1, 2, 3, 4)], id="one object"),
        pytest.param(
            '[{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}]', [(1, 2, 3, 4)], id="with a point"
        ),
        pytest.param("```json\n[]\n```", [], id="nothing"),
    ],
)
def test_the_answer_is_read_without_tags(text: str, expected: list[tuple[float, ...]]) -> None:
    assert boxes(text) == expected


def test_a_box_has_no_point_unless_one_is_said() -> None:
    assert parse_completion(TWO, native=True).prompts[0].points == ()


@pytest.mark.parametrize(
    "text",
    [
        f"<think>Two mugs, one is red. [1]</think>\n\n{TWO}",
        f"Two mugs, one is red. [1]\n</think>\n\n{TWO}",
        f"<THINK>Two mugs, one is red. [1]</THINK>{TWO}",
    ],
    ids=["opened and closed", "closed only", "capitals"],
)
def test_both_ways_of_thinking_are_read(text: str) -> None:
    reasoning = parse_completion(text, native=True)

    assert reasoning.thinking == "Two mugs, one is red. [1]"
    assert len(reasoning.prompts) == 2
    assert reasoning.completion == text


def test_a_draft_in_the_thinking_is_no_answer() -> None:
    draft = '{"bbox_2d": [1, 2, 3, 4], "label": "a"}'
    assert boxes(f"<think>Perhaps {draft}?</think>[]") == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<think>It goes on", TruncatedReplyError),
        (TWO[:60], TruncatedReplyError),
        ("There is no mug in the image.", AnswerParseError),
        ('[{"bbox_2d": [1, 2, 3], "label": "a"}]', AnswerParseError),
        ('[{"label": "a"}]', AnswerParseError),
        ("", AnswerParseError),
    ],
)
def test_what_is_no_answer_is_an_error(text: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        parse_completion(text, native=True)
    assert type(caught.value) is error


def test_the_strict_form_still_asks_for_tags_and_points() -> None:
    with pytest.raises(AnswerParseError, match="no <answer>"):
        parse_completion(TWO)
    with pytest.raises(AnswerParseError, match="'point_2d' is missing"):
        parse_completion(f"<answer>{TWO}</answer>")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_objects_are_found_while_the_reply_grows(size: int) -> None:
    text = f"<think>Two mugs.</think>\n{TWO}"
    reader = StreamReader(native=True)
    found, thinking = [], ""
    for start in range(0, len(text), size):
        for event in reader.feed(text[start : start + size]):
            if isinstance(event, PromptFound):
                found.append((event.index, event.prompt.box.xyxy))
            elif isinstance(event, ThinkingDelta):
                thinking += event.text

    assert found == list(enumerate(BOXES))
    assert thinking == "Two mugs."
    assert reader.finish() == parse_completion(text, native=True)


def test_a_pipeline_reads_thousandths_and_cuts_what_is_over(image: RgbImage) -> None:
    native = fake_description(
        (1024, 1024),
        prompt_template="qwen_native",
        templates=["qwen_native"],
        coordinates="normalized_1000",
    )
    text = '```json\n[{"bbox_2d": [500, 500, 1004, 1010], "label": "mug"}]\n```'
    parts = ScriptedReasoner(text, description=native), FakeEncoder(), BoxSegmenter()
    model = SegZero(*parts, ModelIdentity("m", "0", "f"))

    result = model.segment(image, "the mug")  # of 80x60 pixels

    assert result.reasoning.prompts[0].box == Box(40, 30, 80, 60)
    assert np.count_nonzero(result.segmentation.masks) == 40 * 30
