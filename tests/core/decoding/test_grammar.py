"""Under the grammar, every reply that a model completes is usable."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segzero_core import QwenReasoner, load_image, parse_completion
from segzero_core.checkpoints.registry import find_model
from segzero_core.decoding.grammar import AnswerGrammar, State, grammar_of
from segzero_core.prompt import (
    MULTI_OBJECT,
    MULTI_OBJECT_DIRECT,
    SINGLE_OBJECT,
    SINGLE_OBJECT_DIRECT,
)
from tests.tiny_models import save_tiny_reasoner

ROOT = Path(__file__).parents[3]
FRAME_WH = (120, 80)
ALPHABET = "".join(map(chr, range(32, 127))) + "\n"
ONE = '{"bbox_2d": [1,2,30,40], "point_2d": [5,6]}'


def whole(grammar: AnswerGrammar, text: str) -> bool:
    state = grammar.advance(State(), text)
    return state is not None and grammar.is_over(state)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<think>a < b</think><answer>[]</answer>", id="nothing"),
        pytest.param(f"<think></think>\n<answer>[{ONE}]</answer>", id="one, after a line"),
        pytest.param(f"<think>{{}}</think><answer>[{ONE}, {ONE}]</answer>", id="two"),
        pytest.param(
            f"<think>x</think><answer>[{ONE.replace(',2', ', 2')}]</answer>", id="spaces"
        ),
    ],
)
def test_a_well_formed_reply_is_accepted(text: str) -> None:
    assert whole(grammar_of(MULTI_OBJECT, FRAME_WH), text)
    assert parse_completion(text)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ONE, id="no list"),
        pytest.param(f"[{ONE}] ", id="space behind"),
        pytest.param('[{"bbox_2d": [1,  2', id="spaces without end"),
        pytest.param('[{"bbox_2d": [1,2,130,40]', id="beyond the right side"),
        pytest.param('[{"bbox_2d": [1,2,30,81]', id="below the image"),
        pytest.param('[{"bbox_2d": [1,2,1,40]', id="without width"),
        pytest.param('[{"bbox_2d": [1,2,30,2]', id="without height"),
        pytest.param('[{"bbox_2d": [01', id="leading zero"),
        pytest.param('[{"bbox_2d": [-1', id="negative"),
        pytest.param('[{"bbox_2d": [,', id="no number"),
        pytest.param('[{"bbox_2d": [120,2,120', id="no other number can follow"),
    ],
)
def test_a_reply_that_cannot_be_used_is_not(answer: str) -> None:
    grammar = grammar_of(MULTI_OBJECT_DIRECT, FRAME_WH)

    assert grammar.advance(State(), f"<answer>{answer}") is None


@pytest.mark.parametrize(
    "template", [MULTI_OBJECT, SINGLE_OBJECT, MULTI_OBJECT_DIRECT, SINGLE_OBJECT_DIRECT]
)
def test_every_text_that_ends_can_be_used(template: str) -> None:
    grammar = grammar_of(template, FRAME_WH)
    dice = random.Random(0)
    for _ in range(60):
        text, state = "", State()
        while not grammar.is_over(state):
            hurry = len(text) > 300
            forced = grammar.forced(state, hurry=hurry)
            if grammar.is_thinking(state) and len(text) > 40:
                forced = grammar.closing(state)
            options = [forced] if forced else dice.sample(ALPHABET, len(ALPHABET))
            allowed = ((o, grammar.advance(state, o, hurry=hurry)) for o in options)
            option, state = next((o, s) for o, s in allowed if s is not None)
            text += option
        for prompt in parse_completion(text).prompts:
            box = prompt.box
            assert 0 <= box.x_min < box.x_max <= FRAME_WH[0]
            assert 0 <= box.y_min < box.y_max <= FRAME_WH[1]


def test_fixed_text_is_forced() -> None:
    grammar = grammar_of(MULTI_OBJECT, FRAME_WH)
    inside = grammar.advance(State(), '<think>x</think><answer>[{"bbox_2d": [1,2,30,40]')
    assert inside is not None

    assert grammar.forced(State()) == "<think>"
    assert grammar.forced(inside) == ', "point_2d": ['
    ended = grammar.advance(inside, ', "point_2d": [5,6]')
    assert ended is not None
    assert grammar.forced(ended) == "}"
    assert grammar.forced(ended, hurry=True) == "}]</answer>"


@pytest.mark.parametrize("begun", ["[{", '[{"bbox', "[" + ONE + ", "])
def test_an_object_that_has_begun_is_completed_near_the_limit(begun: str) -> None:
    grammar = grammar_of(MULTI_OBJECT_DIRECT, FRAME_WH)
    state = grammar.advance(State(), f"<answer>{begun}")
    assert state is not None

    rest = f"{ONE}]</answer>".removeprefix(begun.lstrip("[").removeprefix(f"{ONE}, "))
    ended = grammar.advance(state, rest, hurry=True)

    assert ended is not None
    assert grammar.is_over(ended)


@pytest.mark.parametrize("spoken", ["", "</thi", "x</think", "a<</"])
def test_the_thinking_is_closed_from_where_it_stands(spoken: str) -> None:
    grammar = grammar_of(MULTI_OBJECT, FRAME_WH)
    state = grammar.advance(State(), f"<think>{spoken}")
    assert state is not None

    closed = grammar.advance(state, grammar.closing(state))

    assert (spoken + grammar.closing(state)).endswith("</think>")
    assert closed is not None
    assert not grammar.is_thinking(closed)


@pytest.mark.parametrize("template", [MULTI_OBJECT, SINGLE_OBJECT])
def test_the_bundled_model_gives_the_same_reply_under_the_grammar(template: str) -> None:
    files = find_model("tabletop")
    description = dataclasses.replace(files.description, prompt_template=template)
    free = QwenReasoner(files.reasoner, description)
    bound = QwenReasoner(files.reasoner, description, grammar=True)
    image = load_image(ROOT / "tests" / "table.png")[:, :640]

    for query in ("the red mug", "something to drive a nail with"):
        assert "".join(bound.stream(image, query)) == "".join(free.stream(image, query))


@pytest.mark.parametrize("limit", [60, 130, 240, 300])
def test_a_model_that_generates_nonsense_gives_a_usable_reply(tmp_path: Path, limit: int) -> None:
    spoken = "<think>on and on and never to an end, <answer> [1,2 {'bbox': [9,9,9,9]} and again"
    files = find_model(str(save_tiny_reasoner(tmp_path, spoken, segmenter="a/b")))
    reasoner = QwenReasoner(files.reasoner, files.description, max_new_tokens=limit, grammar=True)
    image = np.zeros((60, 80, 3), np.uint8)

    chunks = list(reasoner.stream(image, "the red mug"))

    assert len(chunks) <= limit
    parse_completion("".join(chunks))


def test_fixed_text_costs_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    files = find_model("tabletop")
    reasoner = QwenReasoner(files.reasoner, files.description, grammar=True)
    stepper: Any = reasoner._decoder._stepper
    passes: list[list[int]] = []
    forward = stepper.forward

    def count(tokens: list[int], position: int, start: int) -> torch.Tensor:
        passes.append(tokens)
        return forward(tokens, position, start)

    monkeypatch.setattr(stepper, "forward", count)
    image = load_image(ROOT / "tests" / "table.png")[:, :640]
    chunks = list(reasoner.stream(image, "the red mug"))

    assert len(passes) < len(chunks)
