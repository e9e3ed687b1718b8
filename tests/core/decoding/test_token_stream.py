"""Tokens become text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from segzero_core.decoding.token_stream import Detokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model / "reasoner")


def test_characters_of_several_tokens_come_whole(tokenizer: Any) -> None:
    detokenizer = Detokenizer(tokenizer)
    tokens = tokenizer("é ☕!", add_special_tokens=False)["input_ids"]

    chunks = [detokenizer.add(token) for token in tokens]

    assert len(tokens) == 7
    assert chunks == ["", "é", " ", "", "", "☕", "!"]


def test_half_a_character_at_the_end_is_not_lost(tokenizer: Any) -> None:
    detokenizer = Detokenizer(tokenizer)
    (first, _second) = tokenizer("é", add_special_tokens=False)["input_ids"]

    assert detokenizer.add(first) == ""
    assert detokenizer.flush() == "\ufffd"


def test_special_tokens_are_no_text(tokenizer: Any) -> None:
    detokenizer = Detokenizer(tokenizer)

    assert detokenizer.add(tokenizer.convert_tokens_to_ids("<|vision_start|>")) == ""
