"""The streaming reader says the same as the parser, only earlier."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from segzero_core import (
    AnswerDelta,
    Box,
    ObjectPrompt,
    Point,
    PromptFound,
    Reasoning,
    ReasoningError,
    StreamReader,
    ThinkingDelta,
    parse_completion,
)

MULTI = '[{"bbox_2d": [10, 20, 30, 40], "point_2d": [15, 25]}]'
SINGLE = "{'bbox': [10,100,200,210], 'points_1': [30,110], 'points_2': [35,180]}"
MUG = ObjectPrompt(Box(10, 20, 30, 40), (Point(15, 25),))
OTHER = ObjectPrompt(Box(1, 2, 3, 4), (Point(1, 2),))
TWO = f'[{MULTI[1:-1]}, {{"bbox_2d": [1, 2, 3, 4], "point_2d": [1, 2]}}]'

FRAGMENTS = [
    *["<think>", "</think>", "<answer>", "</answer>", "<ANSWER>", "<", "</", "answer>", "a < b"],
    *["<answer\ufeff>", "\ufeff"],
    *["[", "]", "{", "}", ",", '"', "'", "```", "[]", "{}", " ", '"bbox_2d"', ":", "[1,2,3,4]"],
    *[MULTI, SINGLE, TWO, MULTI[1:-1], f"<answer>{MULTI}</answer>", "the mug", "\ud800"],
]
replies = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)


def answered(answer: str) -> str:
    return f"<think>why</think><answer>{answer}</answer>"


def outcome(reader: StreamReader) -> Reasoning | tuple[type, str, str]:
    try:
        return reader.finish()
    except ReasoningError as error:
        return type(error), str(error), error.completion


def whole(reply: str) -> Reasoning | tuple[type, str, str]:
    try:
        return parse_completion(reply)
    except ReasoningError as error:
        return type(error), str(error), error.completion


def cut(text: str, places: list[int]) -> list[str]:
    """Split a text at these places, taken modulo its length."""
    at = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(at)]


def feed(reader: StreamReader, pieces: list[str]) -> list[object]:
    return [event for piece in pieces for event in reader.feed(piece)]


def text_of(events: list[object], kind: type) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def prompts_of(events: list[object]) -> list[PromptFound]:
    return [event for event in events if isinstance(event, PromptFound)]


@given(replies, st.lists(st.integers(0, 10_000), max_size=40))
@settings(max_examples=400, deadline=None)
def test_the_last_word_is_the_parsers_whatever_the_split(reply: str, places: list[int]) -> None:
    reader = StreamReader()

    feed(reader, cut(reply, places))

    assert outcome(reader) == whole(reply)


well_formed = st.builds(
    lambda thinking, answer: f"<think>{thinking}</think>\n<answer>{answer}</answer>",
    st.text(st.sampled_from("ab <>/{}[]'\n"), max_size=30).filter(lambda t: "think>" not in t),
    st.sampled_from([MULTI, SINGLE, TWO, "[]", f"```json\n{TWO}\n```", f"Here [it] is: {MULTI}."]),
)


@given(well_formed, st.lists(st.integers(0, 10_000), max_size=60))
@settings(max_examples=300, deadline=None)
def test_the_live_view_of_a_good_reply_is_complete(reply: str, places: list[int]) -> None:
    reader = StreamReader()

    events = feed(reader, cut(reply, places))
    reasoning = reader.finish()

    found = [event for event in events if isinstance(event, PromptFound)]
    assert [event.index for event in found] == list(range(len(reasoning.prompts)))
    assert tuple(event.prompt for event in found) == reasoning.prompts
    assert text_of(events, ThinkingDelta).strip() == reasoning.thinking
    assert text_of(events, AnswerDelta) == reply.split("<answer>")[-1].removesuffix("</answer>")
    assert reader.answer_closed


@given(replies)
@example(f"<answer\ufeff>[]<answer>{MULTI}</answer>")
@example(f"<answer>{MULTI[:-1]} 7]</answer>")  # the object before the fault is found
@settings(max_examples=200, deadline=None)
def test_the_live_view_does_not_depend_on_the_split(reply: str) -> None:
    slow, fast = StreamReader(), StreamReader()

    one_by_one = feed(slow, list(reply))
    at_once = feed(fast, [reply])

    assert text_of(one_by_one, ThinkingDelta) == text_of(at_once, ThinkingDelta)
    assert text_of(one_by_one, AnswerDelta) == text_of(at_once, AnswerDelta)
    assert prompts_of(one_by_one) == prompts_of(at_once)
    assert slow.answer_closed == fast.answer_closed


def test_an_object_is_reported_as_soon_as_it_is_complete() -> None:
    reader = StreamReader()
    before, after = answered(TWO).split("}", 1)

    assert not any(isinstance(event, PromptFound) for event in reader.feed(before))
    assert PromptFound(0, MUG) in reader.feed("}")
    assert PromptFound(1, OTHER) in reader.feed(after)


def test_a_second_answer_counts_its_objects_from_the_start() -> None:
    reader = StreamReader()

    events = feed(reader, [answered(TWO), answered(MULTI)])

    assert [event.index for event in events if isinstance(event, PromptFound)] == [0, 1, 0]
    assert reader.finish().prompts == (MUG,)


def test_a_closed_answer_in_open_thinking_does_not_stop_the_model() -> None:
    reader = StreamReader()

    reader.feed("<think>perhaps <answer>[]</answer>")
    assert not reader.answer_closed
    reader.feed("</think><answer>[]</answer>")
    assert reader.answer_closed


def test_a_less_than_sign_is_reported_once_it_can_be_no_tag() -> None:
    reader = StreamReader()

    assert feed(reader, ["<think>a <", "/thi"]) == [ThinkingDelta("a ")]
    assert feed(reader, ["ng"]) == [ThinkingDelta("</thing")]


def test_a_broken_answer_stops_the_live_objects_only() -> None:
    reader = StreamReader()

    events = feed(reader, list(f"<answer>[{MULTI[1:-1]}, 7, {MULTI[1:-1]}]</answer>"))

    assert [event for event in events if isinstance(event, PromptFound)] == [PromptFound(0, MUG)]
    assert outcome(reader) == whole(reader.text)


def test_a_very_long_answer_is_still_read_at_the_end() -> None:
    reader = StreamReader()
    reply = answered("[" + (", " + " " * 40).join([MULTI[1:-1]] * 500) + "]")

    feed(reader, [reply[start : start + 7] for start in range(0, len(reply), 7)])

    assert len(reply) > 40_000
    assert len(reader.finish().prompts) == 500
