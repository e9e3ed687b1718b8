"""What the reasoner learns to think about LIBERO's world."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from segzero_core import parse_completion
from training.bundle.reasoner.encoding import CHOOSING_NUMBER, NOT_WRITTEN, encode_question
from training.bundle.reasoner.libero.questions import completion
from training.bundle.reasoner.libero.thoughts import DISTANCES, PLACES, WORDS
from training.bundle.reasoner.text import Prompt
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
        "I see the black bowl at (24,30), 10 left and 0 below, 10 away"
        " and the black bowl at (14,30), 20 left and 0 below, 20 away."
        " It is the second, the black bowl at (14,30)."
    ) in thinking


def test_between_two_it_is_the_distance_from_their_middle(seen: SeenScene) -> None:
    topic = ("relation", "between", "ramekin", "", "")
    query = Query("relation", "x", (RAMEKIN,), "train", topic, (BOWL, OTHER_BOWL), (RAMEKIN, BOWL))
    thinking = parse_completion(written(query, seen, DISTANCES)).thinking
    assert "at (24,30) and the black bowl at (14,30), with the middle at (19,30)." in thinking
    assert "the ramekin at (34,30), 15 right and 0 below, 15 away" in thinking


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
    assert "the black bowl at (44,30), 20 left and 0 below, 20 away" in read
    assert "the black bowl at (24,30), 40 left and 0 below, 40 away" in read
    assert "the second, the black bowl at (54,30)." in read
    assert "the ramekin at (34,30)" in wanted
    assert "the black bowl at (24,30), 20 left and 0 below, 20 away" in wanted
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
