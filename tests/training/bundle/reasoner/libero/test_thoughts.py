"""What the reasoner learns to think about LIBERO's world."""

from __future__ import annotations

import re
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest

from segzero_core import parse_completion
from training.bundle.reasoner.data import Packer, Sample
from training.bundle.reasoner.encoding import CHOOSING_NUMBER, NOT_WRITTEN, encode_question
from training.bundle.reasoner.libero.questions import completion
from training.bundle.reasoner.libero.thoughts import DISTANCES, PLACES, WORDS
from training.bundle.reasoner.libero.world import WORLD
from training.bundle.reasoner.text import Prompt
from training.bundle.reasoner.tokenizer import extend_tokenizer
from training.bundle.reasoner.world import SeenScene
from worlds.common.scene import Query, SceneObject

BOWL, OTHER_BOWL, RAMEKIN = 1, 2, 3


def item(number: int, kind: str, x: int) -> SceneObject:
    box = (x, 100, x + 40, 140)
    return SceneObject(number, kind, "", box, 900, 1.0, (0, 0, 0), (0, 0, 0, 1), (0.1, 0.1, 0.1))


@pytest.fixture
def seen() -> SeenScene:
    bowl = "akita_black_bowl"
    objects = (
        item(BOWL, bowl, 400),
        item(OTHER_BOWL, bowl, 50),
        item(RAMEKIN, "glazed_rim_porcelain_ramekin", 300),
    )
    prompts = {
        o.id: Prompt((10 * o.id, 20, 10 * o.id + 8, 40), ((10 * o.id + 4, 30), (12, 33)))
        for o in objects
    }
    return SeenScene(objects, prompts, (640, 480), SimpleNamespace())


def relation(*, negated: str = "") -> Query:
    topic = ("relation", "next", "bowl", negated, "")
    meant = OTHER_BOWL if negated else BOWL
    return Query("relation", "x", (meant,), "train", topic, (RAMEKIN,), (BOWL, OTHER_BOWL))


def written(query: Query, seen: SeenScene, style: str, template: str = "multi_object") -> str:
    return "".join(chunk.text for chunk in completion(query, seen, template, style))


def test_a_relation_states_where_anchor_and_candidates_are(seen: SeenScene) -> None:
    reply = parse_completion(written(relation(), seen, PLACES))
    assert reply.thinking == (
        "The question asks for the bowl next to the ramekin. "
        "I start from the ramekin at (34,30). "
        "I see the black bowl at (24,30) and the black bowl at (14,30). "
        "It is the black bowl at (14,30)."
    )
    (prompt,) = reply.prompts
    assert prompt.box.xyxy == (10, 20, 18, 40)


def test_distances_are_stated_and_which_of_the_list_it_is(seen: SeenScene) -> None:
    thinking = parse_completion(written(relation(), seen, DISTANCES)).thinking
    assert (
        "I see the black bowl at (24,30) from (34,30), left by 10, below by 0, away by 10"
        " and the black bowl at (14,30) from (34,30), left by 20, below by 0, away by 20."
        " It is the second, the black bowl at (14,30)."
    ) in thinking


def test_between_two_it_is_the_distance_from_their_middle(seen: SeenScene) -> None:
    topic = ("relation", "between", "ramekin", "", "")
    query = Query("relation", "x", (RAMEKIN,), "train", topic, (BOWL, OTHER_BOWL), (RAMEKIN, BOWL))
    thinking = parse_completion(written(query, seen, DISTANCES)).thinking
    assert "at (24,30) and the black bowl at (14,30), with the middle at (19,30)." in thinking
    assert "the ramekin at (34,30) from (19,30), right by 15, below by 0, away by 15" in thinking


def test_what_is_read_may_be_off_and_the_distances_fit_to_it(seen: SeenScene, processor) -> None:
    moves = iter(range(10, 100, 10))
    chunks = completion(
        relation(), seen, "multi_object", DISTANCES, lambda p: (p[0] + next(moves), p[1])
    )
    encoded = encode_question(processor.tokenizer, "x", chunks, "multi_object")
    read = processor.tokenizer.decode(encoded.ids)
    targets = [token for token in encoded.targets if token != NOT_WRITTEN]
    wanted = processor.tokenizer.decode(targets)
    assert "the ramekin at (64,30)" in read
    offset = "from (64,30), left by {0}, below by 0, away by {0}"
    assert f"the black bowl at (44,30) {offset.format(20)}" in read
    assert f"the black bowl at (24,30) {offset.format(40)}" in read
    assert "the second, the black bowl at (54,30)." in read
    assert "the ramekin at (34,30)" in wanted
    assert f"the black bowl at (24,30) {offset.format(20)}" in wanted
    assert read.endswith(wanted[wanted.index("<answer>") :])  # the answer is exact


def test_words_tell_the_same_without_numbers(seen: SeenScene) -> None:
    thinking = parse_completion(written(relation(), seen, WORDS)).thinking
    assert "the ramekin in the" in thinking
    assert not re.search(r"\d", thinking)


def test_a_negated_relation_is_said_and_means_the_other(seen: SeenScene) -> None:
    reply = parse_completion(written(relation(negated="not"), seen, PLACES))
    assert "not next to the ramekin" in reply.thinking
    assert reply.thinking.endswith("It is the black bowl at (24,30).")


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        (("name", "ketchup"), "I see no ketchup. Nothing fits."),
        (("group", "mugs"), "I see no mugs. Nothing fits."),
        (("unknown", "zebra"), "something that I do not know. Nothing fits."),
    ],
)
def test_what_is_not_there_is_refused(seen: SeenScene, topic: tuple[str, ...], said: str) -> None:
    text = written(Query("none", "x", (), "train", topic), seen, PLACES)
    assert said in text
    assert text.endswith("<answer>[]</answer>")


def test_the_number_that_chooses_is_marked(seen: SeenScene, processor) -> None:
    chunks = completion(relation(), seen, "multi_object", PLACES)
    encoded = encode_question(processor.tokenizer, "x", chunks, "multi_object")
    chosen = [
        t for t, role in zip(encoded.ids, encoded.roles, strict=True) if role == CHOOSING_NUMBER
    ]
    assert processor.tokenizer.decode(chosen) == "14"


def test_without_thinking_only_the_answer_is_written(seen: SeenScene) -> None:
    text = written(relation(), seen, PLACES, "multi_object_direct")
    assert text.startswith("<answer>")


def test_in_front_of_something_is_not_the_frontmost(seen: SeenScene) -> None:
    topic = ("relation", "front", "bowl", "", "")
    query = Query("relation", "x", (BOWL,), "train", topic, (RAMEKIN,), (BOWL, OTHER_BOWL))
    assert "asks for the bowl in front of the ramekin." in written(query, seen, PLACES)
    topic = ("relation", "frontmost", "bowl", "", "")
    query = Query("relation", "x", (BOWL,), "train", topic, (), (BOWL, OTHER_BOWL))
    assert "asks for the bowl at the front." in written(query, seen, PLACES)


def test_numbers_know_from_which_they_follow(seen: SeenScene, processor) -> None:
    tokenizer = extend_tokenizer(deepcopy(processor.tokenizer), WORLD)
    chunks = completion(relation(), seen, "multi_object", DISTANCES)
    encoded = encode_question(tokenizer, "x", chunks, "multi_object")
    follows = [
        (tokenizer.decode([token]), *(tokenizer.decode([encoded.ids[at]]) for at in sources))
        for token, sources in zip(encoded.ids, encoded.sources, strict=True)
        if sources
    ]
    assert follows[:8] == [
        ("34", "34"),  # from where: a copy of the ramekin's place
        ("30", "30"),
        (", left by ", "24", "34"),
        ("10", "24", "34"),
        (", below by ", "30", "30"),
        ("0", "30", "30"),
        ("10", "10", "0"),  # how far away
        ("34", "34"),
    ]
    assert follows[-3:] == [(" the second,", "20"), ("14", "14"), ("30", "30")]


def test_half_of_the_heads_look_at_the_object_and_half_at_the_text(
    seen: SeenScene, processor
) -> None:
    tokenizer = extend_tokenizer(deepcopy(processor.tokenizer), WORLD)
    chunks = completion(relation(), seen, "multi_object", DISTANCES)
    question = encode_question(tokenizer, "x", chunks, "multi_object")
    cells = 144
    cells_of = {item.id: np.arange(cells) == item.id for item in seen.objects}
    nothing = np.zeros(cells, np.int64)
    numbers = np.zeros((cells, 6), np.int64)
    image = np.zeros((336, 336, 3), np.uint8)
    sample = Sample(image, nothing, nothing, numbers, [question], cells_of)
    (group,) = Packer(tokenizer)([sample]).packed.groups
    at = next(i for i, sources in enumerate(question.sources) if len(sources) == 2)
    first, second = group.pointer_targets[0][group.pointer_rows[0] == at - 1][0]
    assert [first.nonzero().item(), second.nonzero().item()] == [
        cells + source for source in question.sources[at]
    ]
    ordinal = tokenizer.convert_tokens_to_ids(" the second,")
    at = question.ids.index(ordinal)
    first, second = group.pointer_targets[0][group.pointer_rows[0] == at - 1][0]
    assert first.nonzero().item() == BOWL
    assert second.nonzero().item() == cells + question.sources[at][0]
    at = next(i for i, number in enumerate(question.object_ids) if number)  # follows from none
    first, second = group.pointer_targets[0][group.pointer_rows[0] == at - 1][0]
    assert first.nonzero().item() == second.nonzero().item() == question.object_ids[at]
