"""The regular expression of replies takes what is well formed, and nothing else."""

from __future__ import annotations

import re

import pytest

from segzero_core.checkpoints.description import BUILT_IN
from segzero_core.reasoner.structured import reply_regex
from segzero_core.testing.fakes import fake_description
from tests.tiny_qwen3_vl import NATIVE_REPLY

ONE = '{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}'
SINGLE = "{'bbox': [10,100,200,210], 'points_1': [30,110], 'points_2': [35,180]}"


def matches(template: str, text: str) -> bool:
    description = fake_description(prompt_template=template, templates=[template])
    return re.fullmatch(reply_regex(description), text) is not None


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("multi_object", f"<think>Two of\n\nthem.</think>\n<answer>[{ONE}, {ONE}]</answer>"),
        ("multi_object", f"<think></think><answer>[{ONE}]</answer>"),
        ("multi_object", "<think>None.</think><answer>[]</answer>"),
        ("multi_object_spaced", f"<think>a</think><answer>[{ONE.replace(',', ', ')}]</answer>"),
        ("multi_object_direct", f"<answer>[{ONE}]</answer>"),
        ("single_object", f"<think>a</think><answer>{SINGLE}</answer>"),
        ("qwen_native", NATIVE_REPLY),
        ("qwen_native", "```json\n[]\n```"),
    ],
)
def test_a_reply_that_can_be_read_is_taken(template: str, text: str) -> None:
    assert matches(template, text)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("multi_object", f"<answer>[{ONE}]</answer>"),
        ("multi_object", f"<think>a</think><answer>[{ONE}</answer>"),
        ("multi_object", f"<think>a</think><answer>[{ONE},]</answer>"),
        ("multi_object", f"<think>a</think><answer>{SINGLE}</answer>"),
        ("multi_object", f"<think>a</think>{' ' * 99}<answer>[{ONE}]</answer>"),
        ("qwen_native", "There is no mug."),
    ],
)
def test_what_cannot_is_not(template: str, text: str) -> None:
    assert not matches(template, text)


def test_a_model_whose_template_opens_the_thinking_may_think() -> None:
    regex = reply_regex(BUILT_IN["Qwen/Qwen3-VL-2B-Thinking"])

    assert re.fullmatch(regex, f"It is red.\n</think>\n\n{NATIVE_REPLY}")
    assert re.fullmatch(regex, NATIVE_REPLY)  # the thinking came on its own
