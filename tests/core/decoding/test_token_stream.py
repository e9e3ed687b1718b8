"""Tokens become text."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from segzero_core.decoding.token_stream import Detokenizer, TokenStream
from segzero_core.errors import CancelledError


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


def test_no_text_comes_after_it_was_cancelled(tokenizer: Any) -> None:
    cancel = threading.Event()
    (token,) = tokenizer("a", add_special_tokens=False)["input_ids"]

    class Late(queue.Queue[str | None]):
        """It is cancelled while the reader waits for the first token."""

        def get(self, block: bool = True, timeout: float | None = None) -> str | None:
            chunk = super().get(block, timeout)
            cancel.set()
            return chunk

    stream = TokenStream(tokenizer, set(), lambda on_token: on_token(token), threading.Lock())
    stream._chunks = Late()

    with pytest.raises(CancelledError):
        next(stream.chunks(cancel))
