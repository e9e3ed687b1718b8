"""A chat template is a program: it runs once, apart, with limits, and must ask the question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segzero_core import ConfigError
from segzero_core.checkpoints.registry import bundled_folder
from segzero_core.prompt import build_messages, build_prompt
from segzero_core.reasoner.chat_template import read_template

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


class FakeProcessor:
    """What is read of a processor."""

    image_token = "<|image_pad|>"

    class tokenizer:  # noqa: N801 - an attribute of that name
        special_tokens_map = {"eos_token": "<|im_end|>"}  # noqa: RUF012

    def __init__(self, chat_template: Any) -> None:
        self.chat_template = chat_template


def asks(before: str) -> str:
    return before + IMAGE + "{{ messages[0]['content'][1]['text'] }}"


def test_it_says_what_transformers_makes_of_it(good_model: Path) -> None:
    from transformers import AutoProcessor

    for folder in (good_model / "reasoner", bundled_folder("tabletop") / "reasoner"):
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        for query in ("the red mug", "mugs, {{ 7 * 7 }} & <b>'x'</b>"):
            expected = processor.apply_chat_template(
                build_messages("multi_object", query), tokenize=False, add_generation_prompt=True
            )
            template = read_template(processor)
            assert template.render(build_prompt("multi_object", query)) == expected


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        pytest.param(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "took more than",
            id="loops",
        ),
        pytest.param("{{ 'a' * 10**9 * 9 }}", "Memory", id="product"),
        pytest.param("{{ 'a' | center(10**10) }}", "Memory", id="filter"),
        pytest.param("{{ 'a' * 60000 }}", "at most 50000", id="long"),
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe", id="sandbox"),
        pytest.param("{{ cycler.__init__.__globals__ }}", "unsafe", id="globals"),
        pytest.param("{% include '/etc/passwd' %}", "", id="include"),
        pytest.param("{% if %}", "", id="syntax"),
        pytest.param("{{ raise_exception('no') }}", "no", id="raises"),
        pytest.param("x" * 50_001, "at most 50000", id="source"),
        pytest.param(None, "expected a text", id="none"),
    ],
)
def test_a_template_that_takes_too_much_or_leaves_its_box_is_refused(
    source: Any, complaint: str
) -> None:
    source = asks(source) if isinstance(source, str) else source
    with pytest.raises(ConfigError, match=f"chat template: .*{complaint}") as caught:
        read_template(FakeProcessor(source))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{{ messages[0]['content'][1]['text'] }}", "0 places for the image"),
        (asks(IMAGE), "2 places for the image"),
        (IMAGE, "does not say the question"),
        (asks("{{ messages[0]['content'][1]['text'] }}"), "does not say the question once"),
        (IMAGE + "{{ messages[0]['content'][1]['text'] | upper }}", "does not say the question"),
        (asks("{{ messages[0]['content'][1]['text'] | length }}"), "once and unchanged"),
    ],
)
def test_a_template_that_asks_something_else_is_refused(source: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_template(FakeProcessor(source))
