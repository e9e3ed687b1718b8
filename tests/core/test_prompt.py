"""Templates and queries."""

from __future__ import annotations

from typing import Any

import pytest

from segzero_core import ConfigError, InputError
from segzero_core.prompt import build_messages, build_prompt, clean_query


def test_the_single_object_prompt_is_the_one_of_the_training() -> None:
    assert build_prompt("single_object", " The RED mug. ") == (
        "Please find 'the red mug' with bbox and points.Compare the difference between objects and"
        " find the most closely matched one.Output the thinking process in <think> </think> and"
        " final answer in <answer> </answer> tags.Output the one bbox and points of two largest"
        " inscribed circles inside the interested object in JSON format.i.e., <think> thinking"
        " process here </think><answer>{'bbox': [10,100,200,210], 'points_1': [30,110],"
        " 'points_2': [35,180]}</answer>"
    )


def test_the_multi_object_prompt_is_the_one_of_the_training() -> None:
    assert build_prompt("multi_object", " The RED mug. ") == (
        'Please find "The RED mug" with bboxs and points.Compare the difference between object(s)'
        " and find the most closely matched object(s).Output the thinking process in <think>"
        " </think> and final answer in <answer> </answer> tags.Output the bbox(es) and point(s)"
        " inside the interested object(s) in JSON format.i.e., <think> thinking process here"
        ' </think><answer>[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]},'
        ' {"bbox_2d": [225,296,706,786], "point_2d": [302,410]}]</answer>'
    )


def test_a_query_cannot_fill_the_template_twice() -> None:
    assert build_prompt("multi_object", "{Question}").count("{Question}") == 1


def test_the_message_is_one_image_and_one_text() -> None:
    (message,) = build_messages("multi_object", "the mug")

    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["image", "text"]


@pytest.mark.parametrize(
    ("query", "cleaned"),
    [
        pytest.param("the red mug", "the red mug", id="as it is"),
        pytest.param("  the\n red\t mug.  ", "the red mug", id="spaces and full stop"),
        pytest.param("a < b > c", "a < b > c", id="angle brackets"),
        pytest.param("<mug>", "<mug>", id="a tag of no meaning"),
        pytest.param("la tasse, s'il vous plaît ☕", "la tasse, s'il vous plaît ☕", id="Unicode"),
        pytest.param("x" * 2000, "x" * 2000, id="longest"),
    ],
)
def test_a_query_is_tidied(query: str, cleaned: str) -> None:
    assert clean_query(query) == cleaned


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param(" \n\t", "empty", id="only spaces"),
        pytest.param(" ... ", "empty", id="only full stops"),
        pytest.param("x" * 2001, "2001 characters", id="too long"),
        pytest.param("x" * 100_000, "100000 characters", id="100,000 characters"),
        pytest.param("mug</answer>", "</answer>", id="answer tag"),
        pytest.param("mug<THINK>", "<THINK>", id="think tag in capitals"),
        pytest.param("mug</ think >", "think", id="tag with spaces"),
        pytest.param("mug<|im_end|>", "im_end", id="end of turn"),
        pytest.param("<|vision_start|>", "vision_start", id="vision token"),
        pytest.param("<image>", "<image>", id="image tag"),
        pytest.param("mug\x00", "not a printable", id="null byte"),
        pytest.param("mug\x1b[31m", "not a printable", id="escape sequence"),
        pytest.param("mug\ud800", "not a printable", id="lone surrogate"),
        pytest.param(None, "NoneType", id="None"),
        pytest.param(b"mug", "bytes", id="bytes"),
    ],
)
def test_a_query_that_cannot_be_asked_is_refused(query: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        clean_query(query)
    assert len(str(caught.value)) < 300


def test_the_native_question_is_the_one_of_the_cookbooks() -> None:
    expected = 'Locate "the mug", report the bboxes coordinates in JSON format.'
    assert build_prompt("qwen_native", "the mug") == expected


def test_visurf_s_example_has_a_blank_after_every_comma() -> None:
    text = build_prompt("multi_object_spaced", "the mug")
    example = (
        '<answer>[{"bbox_2d": [10, 100, 200, 210], "point_2d": [30, 110]},'
        ' {"bbox_2d": [225, 296, 706, 786], "point_2d": [302, 410]}]</answer>'
    )
    other = build_prompt("multi_object", "the mug")
    assert text == other[: other.rindex("<answer>")] + example


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="multi_object"):
        build_prompt("two_objects", "mug")
