"""The completions that the small reasoner is trained on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from segzero_core import parse_completion
from training.bundle.reasoner.tabletop.questions import completion
from training.bundle.reasoner.text import Prompt
from training.bundle.reasoner.world import SeenScene
from worlds.common.scene import Query
from worlds.tabletop.queries import ask, ask_absent
from worlds.tabletop.vocabulary import QUERY_KINDS


@pytest.mark.parametrize("template", ["multi_object", "single_object"])
def test_every_written_answer_is_read_back_by_the_parser(objects: list, template: str) -> None:
    rng = np.random.default_rng(0)
    prompts = {
        o.id: Prompt((o.id, 20, 40 + o.id, 60), ((10 + o.id, 30), (12, 33)))
        for table in objects
        for o in table
    }
    for table in objects:
        for kind in QUERY_KINDS:
            query = ask(rng, table, kind)
            if query is None or (kind == "many" and template == "single_object"):
                continue
            chunks = completion(query, SeenScene(table, prompts, (640, 480), None), template)
            reasoning = parse_completion("".join(chunk.text for chunk in chunks))
            assert len(reasoning.prompts) == len(query.ids)
            assert {int(p.box.x_min) for p in reasoning.prompts} == set(query.ids)
            assert reasoning.thinking.startswith("The question asks for")


def test_an_unknown_word_is_answered_with_nothing_and_says_so(objects: list) -> None:
    rng = np.random.default_rng(1)
    query = None
    while query is None or query.topic[0] != "unknown":
        query = ask(rng, objects[0], "none")
    seen = SeenScene(objects[0], {}, (640, 480), None)
    text = "".join(p.text for p in completion(query, seen, "multi_object"))
    assert "do not know" in text
    assert text.endswith("<answer>[]</answer>")


def test_every_number_of_an_answer_is_one_token(processor) -> None:
    for number in range(336 + 1):
        assert len(processor.tokenizer(str(number))["input_ids"]) == 1


def thought(table: tuple, query: Query) -> str:
    chunks = completion(query, SeenScene(table, {}, (640, 480), None), "multi_object")
    return parse_completion("".join(chunk.text for chunk in chunks)).thinking


def test_a_color_that_decides_has_its_verdict_in_the_thinking(objects: list) -> None:
    rng = np.random.default_rng(0)
    for table in objects:
        absent = ask_absent(rng, table, "color")
        assert absent is not None
        thinking = thought(table, absent)
        assert " (no)" in thinking
        assert " (yes)" not in thinking
        assert thinking.endswith("Nothing fits.")


def test_the_place_of_a_choice_is_marked_whichever_way_it_falls(objects: list) -> None:
    rng = np.random.default_rng(4)
    marked = {"there": set(), "absent": set()}
    for table in objects:
        prompts = {o.id: Prompt((1, 20, 300, 336), ((10, 30), (12, 33))) for o in table}
        queries = {"there": ask(rng, table, "name"), "absent": ask_absent(rng, table, "name")}
        for way, query in queries.items():
            chunks = completion(query, SeenScene(table, prompts, (640, 480), None), "multi_object")
            for before, chunk in itertools.pairwise(chunks):
                if before.text == " I see":
                    assert before.decides
                    assert chunk.decides
                    marked[way].add(chunk.text.split()[0])
            assert sum(p.decides for p in chunks if p.text in (" Nothing fits.", " It is")) == 1
    assert marked["absent"] == {"no"}
    assert "a" in marked["there"]
    assert "no" not in marked["there"]


@pytest.mark.parametrize("way", ["name", "color", "use"])
def test_what_is_asked_for_in_vain_is_not_there(objects: list, way: str) -> None:
    rng = np.random.default_rng(1)
    for table in objects:
        query = ask_absent(rng, table, way)
        assert query is not None
        assert (query.kind, query.ids) == ("none", ())
        assert thought(table, query).endswith("Nothing fits.")
