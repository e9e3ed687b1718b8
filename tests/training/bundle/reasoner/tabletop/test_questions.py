"""Questions of the small reasoner as tokens."""

from __future__ import annotations

import numpy as np

from training.bundle.reasoner.encoding import encode_question, until_choice
from training.bundle.reasoner.tabletop.questions import ask_choice, completion
from training.bundle.reasoner.text import CHOSEN, Prompt
from training.bundle.reasoner.world import SeenScene
from worlds.tabletop.queries import ask
from worlds.tabletop.vocabulary import QUERY_KINDS


def test_where_only_the_choice_is_learned_the_text_ends_with_it(objects: list, processor) -> None:
    rng = np.random.default_rng(3)
    prompts = {o.id: Prompt((1, 20, 300, 336), ((10, 30), (12, 33))) for o in objects[0]}
    for _ in range(40):
        query = ask_choice(rng, objects[0])
        seen = SeenScene(objects[0], prompts, (640, 480), None)
        chunks = until_choice(completion(query, seen, "multi_object"))
        assert chunks[-1].text in CHOSEN
        assert (chunks[-1].text == "</think>") == (not query.ids)
        ids, *_ = encode_question(
            processor.tokenizer, query.text, chunks, "multi_object", closed=False
        )
        assert processor.tokenizer.decode(ids).endswith(chunks[-1].text)


def test_tokens_of_the_pieces_are_the_tokens_of_the_whole_text(objects: list, processor) -> None:
    rng = np.random.default_rng(2)
    prompts = {o.id: Prompt((1, 20, 300, 336), ((10, 30), (12, 33))) for o in objects[0]}
    for kind in QUERY_KINDS:
        query = ask(rng, objects[0], kind)
        seen = SeenScene(objects[0], prompts, (640, 480), None)
        chunks = completion(query, seen, "multi_object")
        ids, *_ = encode_question(processor.tokenizer, query.text, chunks, "multi_object")
        whole = processor.tokenizer.decode(ids)
        assert processor.tokenizer(whole)["input_ids"] == ids
        assert "".join(p.text for p in chunks) in whole
