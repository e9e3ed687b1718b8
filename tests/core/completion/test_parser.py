"""The one parser, against real and nasty replies."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segzero_core import (
    AnswerParseError,
    Box,
    ObjectPrompt,
    Point,
    Reasoning,
    ReasoningError,
    TruncatedReplyError,
    parse_completion,
)
from segzero_core.completion.answer import AnswerReader, AnswerRuleError, read_answer

MULTI = '[{"bbox_2d": [10, 20, 30, 40], "point_2d": [15, 25]}]'
SINGLE = "{'bbox': [10,100,200,210], 'points_1': [30,110], 'points_2': [35,180]}"
MUG = ObjectPrompt(Box(10, 20, 30, 40), (Point(15, 25),))
SINGLE_MUG = ObjectPrompt(Box(10, 100, 200, 210), (Point(30, 110), Point(35, 180)))


def answered(answer: str) -> str:
    return f"<think>why</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("reply", "thinking", "prompts"),
    [
        pytest.param(answered(MULTI), "why", (MUG,), id="multi object"),
        pytest.param(answered(SINGLE), "why", (SINGLE_MUG,), id="single quotes, as in the prompt"),
        pytest.param(
            answered(SINGLE.replace("'", '"')), "why", (SINGLE_MUG,), id="single object, JSON"
        ),
        pytest.param(answered("[]"), "why", (), id="nothing matched"),
        pytest.param(answered(" [ \n ] "), "why", (), id="nothing matched, with spaces"),
        pytest.param(f"<answer>{MULTI}</answer>", "", (MUG,), id="no thinking"),
        pytest.param(f"<think></think><answer>{MULTI}</answer>", "", (MUG,), id="empty thinking"),
        pytest.param(
            f"<think>width < height</think><answer>{MULTI}</answer>",
            "width < height",
            (MUG,),
            id="less-than in the thinking",
        ),
        pytest.param(
            f"<think>{{1, 2}} and {{'bbox': [1,2,3,4]}}</think><answer>{MULTI}</answer>",
            "{1, 2} and {'bbox': [1,2,3,4]}",
            (MUG,),
            id="braces in the thinking",
        ),
        pytest.param(
            f"<think>{SINGLE}</think><answer>{MULTI}</answer>",
            SINGLE,
            (MUG,),
            id="another answer in the thinking",
        ),
        pytest.param(
            f"<think>I write <answer> tags</think><answer>{MULTI}</answer>",
            "I write <answer> tags",
            (MUG,),
            id="the tag is mentioned in the thinking",
        ),
        pytest.param(
            f"<think>perhaps <answer>[]</answer>, no</think><answer>{MULTI}</answer>",
            "perhaps <answer>[]</answer>, no",
            (MUG,),
            id="a draft in the thinking",
        ),
        pytest.param(
            f"<think>hm <answer>{MULTI}</answer></think>",
            "hm",
            (MUG,),
            id="the only answer stands in the thinking",
        ),
        pytest.param(
            f"<think>hm <answer>{MULTI}</answer>", "hm", (MUG,), id="thinking is never closed"
        ),
        pytest.param(
            "<think>use <think> </think> and <answer> </answer> tags. So:</think>"
            f"<answer>{MULTI}</answer>",
            "use <think> </think> and <answer> </answer> tags. So:",
            (MUG,),
            id="the prompt is quoted in the thinking",
        ),
        pytest.param(
            f"<think>a</think><think>b</think><answer>{MULTI}</answer>",
            "a\n\nb",
            (MUG,),
            id="two blocks of thinking",
        ),
        pytest.param(
            f"<answer>{MULTI}</answer><think>why</think>", "why", (MUG,), id="thinking afterwards"
        ),
        pytest.param(
            f"<answer>{SINGLE}</answer> or <answer>{MULTI}</answer>",
            "",
            (MUG,),
            id="the last of two answers",
        ),
        pytest.param(
            f"<answer>{MULTI}</answer><answer>[{{",
            "",
            (MUG,),
            id="a second answer that is cut off",
        ),
        pytest.param(f"<answer><answer>{MULTI}</answer>", "", (MUG,), id="opened twice"),
        pytest.param(f"Hello. {answered(MULTI)} Bye!", "why", (MUG,), id="text around the tags"),
        pytest.param(answered(MULTI) + "\n", "why", (MUG,), id="trailing newline"),
        pytest.param(answered(MULTI) + "<|im_end|>", "why", (MUG,), id="end token as text"),
        pytest.param(
            f"<THINK>why</Think><Answer>{MULTI}</ANSWER>", "why", (MUG,), id="tags in any case"
        ),
        pytest.param(
            answered(f"```json\n{MULTI}\n```"), "why", (MUG,), id="code fence with a language"
        ),
        pytest.param(answered(f"```\n{SINGLE}```"), "why", (SINGLE_MUG,), id="code fence"),
        pytest.param(
            answered(f"The mug (left) is {MULTI}, I think."), "why", (MUG,), id="prose around it"
        ),
        pytest.param(
            answered(f"The [red one] of {{two}} [1], see [2, 3]: {MULTI} [end]"),
            "why",
            (MUG,),
            id="prose with brackets",
        ),
        pytest.param(
            answered(f"Not [] but {MULTI}"), "why", (MUG,), id="prose with an empty list"
        ),
        pytest.param(
            answered('[{"bbox_2d": [10, 20, 30, 40,], "point_2d": [15, 25,],},]'),
            "why",
            (MUG,),
            id="trailing commas",
        ),
        pytest.param(
            answered('[{"bbox_2d": [30, 40, 10, 20], "point_2d": [15, 25]}]'),
            "why",
            (MUG,),
            id="corners swapped",
        ),
        pytest.param(
            answered('[{"bbox_2d": [30, 20, 10, 40], "point_2d": [15, 25]}]'),
            "why",
            (MUG,),
            id="other corners",
        ),
        pytest.param(
            answered('[{"BBOX_2D": [10, 20, 30, 40], "Point_2d": [15, 25]}]'),
            "why",
            (MUG,),
            id="keys in any case",
        ),
        pytest.param(
            answered('[{"point_2d": [1.5e1, 25.0], "bbox_2d": [+10., 2e1, 30.0, 40]}]'),
            "why",
            (MUG,),
            id="numbers as floats, keys in any order",
        ),
        pytest.param(
            answered(
                '[{"label": "a {mug} \\"[x]\\"", "bbox_2d": [10, 20, 30, 40], "z": {"a": [null]},'
                ' "point_2d": [15, 25], "ok": true, "n": None}]'
            ),
            "why",
            (MUG,),
            id="further keys",
        ),
        pytest.param(answered(MULTI[1:-1]), "why", (MUG,), id="multi-object keys without a list"),
        pytest.param(
            answered(f"{MULTI[1:-1]}\n{MULTI[1:-1]}"), "why", (MUG, MUG), id="one object a line"
        ),
        pytest.param(answered(f"[{SINGLE}, {MULTI[1:-1]}]"), "why", (SINGLE_MUG, MUG), id="mixed"),
        pytest.param(
            answered(f"1. {SINGLE} 2. {MULTI[1:-1]}"), "why", (SINGLE_MUG, MUG), id="numbered"
        ),
        pytest.param(
            answered(f"{SINGLE} and {MULTI[1:-1]}"), "why", (SINGLE_MUG, MUG), id="joined by and"
        ),
        pytest.param(
            answered(f"{MULTI} [1] {{x}}\n[{SINGLE}]"), "why", (MUG, SINGLE_MUG), id="two lists"
        ),
        pytest.param(
            answered(f"{SINGLE} or {MULTI}"), "why", (SINGLE_MUG, MUG), id="an object and a list"
        ),
        pytest.param(
            f"<think>caf\u00e9 \ud800 \x00</think><answer>{MULTI}</answer>",
            "caf\u00e9 \ud800 \x00",
            (MUG,),
            id="broken Unicode in the thinking",
        ),
        pytest.param(
            answered('[{"bbox_2d": [-5, -5, 1000, 9e9], "point_2d": [-1, 0.5]}]'),
            "why",
            (ObjectPrompt(Box(-5, -5, 1000, 9e9), (Point(-1, 0.5),)),),
            id="outside any image, which is not the parser's to know",
        ),
    ],
)
def test_a_usable_reply_is_read(
    reply: str, thinking: str, prompts: tuple[ObjectPrompt, ...]
) -> None:
    reasoning = parse_completion(reply)

    assert reasoning.prompts == prompts
    assert reasoning.thinking == thinking
    assert reasoning.completion == reply


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("<answer>", id="only opened"),
        pytest.param(f"<think>a</think><answer>{MULTI[:-1]}", id="inside the JSON"),
        pytest.param(f"<think>a</think><answer>{MULTI}", id="after the JSON"),
        pytest.param(f"<think>a</think><answer>{MULTI}</answer", id="inside the closing tag"),
        pytest.param("<think>so the <answer> is", id="inside thinking that mentions it"),
        pytest.param(
            f"<think>draft <answer>{MULTI}</answer></think><answer>[",
            id="a draft is no substitute",
        ),
    ],
)
def test_an_answer_that_was_never_closed_is_truncated(reply: str) -> None:
    with pytest.raises(TruncatedReplyError, match="max_new_tokens") as caught:
        parse_completion(reply)

    assert caught.value.completion == reply


def with_box(box: str) -> str:
    return answered(f'[{{"bbox_2d": {box}, "point_2d": [15, 25]}}]')


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        pytest.param("", "no <answer>", id="empty"),
        pytest.param("a red mug", "no <answer>", id="no tags"),
        pytest.param("<think>a red mu", "no <answer>", id="cut off in the thinking"),
        pytest.param(MULTI, "no <answer>", id="JSON without tags"),
        pytest.param("</answer>", "no <answer>", id="only closed"),
        pytest.param(f"<think>{MULTI}</think>", "no <answer>", id="JSON only in the thinking"),
        pytest.param(answered(""), "no JSON", id="empty answer"),
        pytest.param(answered("the red mug"), "no JSON", id="prose"),
        pytest.param(answered("null"), "no JSON", id="null"),
        pytest.param(answered("{}"), "neither", id="empty object"),
        pytest.param(answered("[{}]"), "neither", id="list of an empty object"),
        pytest.param(answered('{"label": "mug"}'), "neither", id="no box"),
        pytest.param(answered("[10, 20, 30, 40]"), "holds no objects", id="only numbers"),
        pytest.param(answered("[[]]"), "holds no objects", id="list of an empty list"),
        pytest.param(answered(f"[{MULTI}]"), "objects and nothing else", id="list of a list"),
        pytest.param(answered(f"[1, {MULTI[1:]}"), "objects and nothing else", id="number first"),
        pytest.param(answered(f"{MULTI[:-1]}, 7]"), "expected an object", id="number last"),
        pytest.param(answered(f"{MULTI[:-1]}, {{}}]"), "object 2", id="second object is empty"),
        pytest.param(
            answered('{"bbox_2d": [1, 2, 3, 4]}'), "'point_2d' is missing", id="no point"
        ),
        pytest.param(answered('{"point_2d": [1, 2]}'), "'bbox_2d' is missing", id="only a point"),
        pytest.param(
            answered("{'bbox': [1,2,3,4], 'points_1': [1,2]}"),
            "'points_2' is missing",
            id="one point of two",
        ),
        pytest.param(
            answered('{"bbox_2d": [1,2,3,4], "points_1": [1,2]}'), "mixes", id="mixed keys"
        ),
        pytest.param(
            answered('{"bbox_2d": [1,2,3,4], "BBOX_2D": [5,6,7,8], "point_2d": [1,2]}'),
            "twice",
            id="two boxes in one object",
        ),
        pytest.param(with_box("[1, 2, 3]"), "got 3 of them", id="three numbers"),
        pytest.param(with_box("[1, 2, 3, 4, 5]"), "got 5 of them", id="five numbers"),
        pytest.param(with_box("[[1, 2], [3, 4]]"), "list of 4 numbers", id="two corners"),
        pytest.param(with_box("[1, 2, 3, [4]]"), "got a list", id="nested number"),
        pytest.param(with_box('{"x": 1}'), "got an object", id="object for a box"),
        pytest.param(with_box('"1 2 3 4"'), "got the text", id="text for a box"),
        pytest.param(with_box("null"), "got null", id="null for a box"),
        pytest.param(with_box('["1", 2, 3, 4]'), "got the text '1'", id="numeric string"),
        pytest.param(with_box("[true, 2, 3, 4]"), "got true", id="true"),
        pytest.param(with_box("[False, 2, 3, 4]"), "got false", id="False"),
        pytest.param(with_box("[null, 2, 3, 4]"), "got null", id="null"),
        pytest.param(with_box("[NaN, 2, 3, 4]"), "got NaN", id="NaN"),
        pytest.param(with_box("[nan, 2, 3, 4]"), "got NaN", id="nan"),
        pytest.param(with_box("[1, 2, Infinity, 4]"), "got Infinity", id="Infinity"),
        pytest.param(with_box("[-Infinity, 2, 3, 4]"), "got Infinity", id="minus Infinity"),
        pytest.param(with_box("[1, 2, inf, 4]"), "got Infinity", id="inf"),
        pytest.param(with_box("[1, 2, 1e999, 4]"), "too large", id="overflow to infinity"),
        pytest.param(with_box(f"[1, 2, {'9' * 5000}, 4]"), "too large", id="5,000 digits"),
        pytest.param(with_box("[-1e308, 2, 1e308, 4]"), "too large", id="width overflows"),
        pytest.param(with_box("[1, 2, 1, 4]"), "no area", id="no width"),
        pytest.param(with_box("[1, 2, 3, 2]"), "no area", id="no height"),
        pytest.param(with_box("[1e-400, 0, 0, 2]"), "no area", id="width underflows"),
        pytest.param(with_box("[1, 2, 3px, 4]"), "broken number", id="unit"),
        pytest.param(with_box("[1, 2, 0x10, 4]"), "broken number", id="hexadecimal"),
        pytest.param(with_box("[1, 2, 1_0, 4]"), "broken number", id="underscore"),
        pytest.param(with_box("[1, 2, ٣, 4]"), "unexpected", id="digit of another script"),
        pytest.param(with_box("[1, 2, 1+2, 4]"), "broken number", id="a sum"),
        pytest.param(with_box("[1, 2, exit(), 4]"), "unexpected word", id="code"),
        pytest.param(with_box("[1 2 3 4]"), "expected ','", id="no commas"),
        pytest.param(with_box("[1,, 2, 3, 4]"), "unexpected ','", id="two commas"),
        pytest.param(with_box("(1, 2, 3, 4)"), "unexpected", id="round brackets"),
        pytest.param(answered(MULTI[:-1]), "not closed", id="list without its end"),
        pytest.param(answered(MULTI[:-2]), "not closed", id="object without its end"),
        pytest.param(answered(f"{MULTI[:-1]} {MULTI[1:]}"), "expected ','", id="comma missing"),
        pytest.param(
            answered(f'{MULTI[:-1]}, {{"bbox_2d": [1, 2'), "not closed", id="half a list"
        ),
        pytest.param(answered(MULTI[1:-1] + '{"bbox_2d": [1'), "not closed", id="half a row"),
        pytest.param(
            answered(f'{MULTI} and [{{"bbox_2d": [1'), "not closed", id="half a second list"
        ),
        pytest.param(
            answered(f"{MULTI} and [{MULTI[1:-1]}, {{}}]"), "neither", id="broken second list"
        ),
        pytest.param(answered("[" * 40 + "]" * 40), "nested", id="deep"),
        pytest.param(answered("[x " * 5_000), "no JSON", id="prose of brackets"),
        pytest.param(
            f"<answer>{MULTI}</answer><answer>no</answer>", "no JSON", id="last is prose"
        ),
        pytest.param(answered("\x00\ud800[\udfff"), "no JSON", id="null byte and surrogates"),
        pytest.param("<thin\u212a><an\u017fwer>[]</an\u017fwer>", "no <answer>", id="look-alikes"),
    ],
)
def test_an_unusable_reply_is_refused_with_its_reason(reply: str, complaint: str) -> None:
    with pytest.raises(AnswerParseError, match=complaint) as caught:
        parse_completion(reply)

    assert caught.value.completion == reply
    assert len(str(caught.value)) < 500


def outcome(reply: str) -> Reasoning | ReasoningError:
    """Read a reply that may be usable or not."""
    try:
        return parse_completion(reply)
    except ReasoningError as error:
        return error


MEGA = 1_000_000
PART = 250_000  # for the combinations


@pytest.mark.parametrize(
    "unit",
    [
        *["[", "{", "[{", "['", '{"', '"', "[0,", '["[",', "[1 ", "[',", "[]", "{}", "[1],", "\\"],
        *[
            "<",
            "<think>",
            "</think>",
            "<answer>",
            "<answer></answer>",
            "<think></think>",
            "</answer>",
        ],
        *["9", "-", "1e9", " ", "\n", "\x00", "\ud800", "[[1],", '{"a":', "[" * 30 + "0,", "'\\"],
        *['{"bbox_2d": [', '[{"bbox_2d": [1,2,3,4], "point_2d": [1,2]},', ",,", "```json", "NaN,"],
    ],
    ids=ascii,
)
@pytest.mark.parametrize("frame", ["{}", "<answer>{}</answer>", "<answer>[{}]</answer>"])
def test_long_nonsense_takes_time_in_proportion(unit: str, frame: str) -> None:
    reply = frame.replace("{}", unit * (PART // len(unit)))

    start = time.process_time()
    assert outcome(reply).completion == reply
    assert time.process_time() - start < 15  # about ten times what the slowest takes


@pytest.mark.parametrize(
    "unit", ["a ", "[{'", "<answer>[", '{"bbox": [[', f"{MULTI}, "], ids=ascii
)
def test_a_megabyte_is_read_in_seconds(unit: str) -> None:
    start = time.process_time()
    with pytest.raises(ReasoningError):
        parse_completion(f"<answer>[{unit * (MEGA // len(unit))}</answer>")
    assert time.process_time() - start < 15


# Pieces from which nearly grammatical replies are made.
FRAGMENTS = [
    *["<think>", "</think>", "<answer>", "</answer>", "<ANSWER>", "<", ">", "</", "answer>"],
    *["[", "]", "{", "}", ",", ":", '"', "'", "\\", "```json\n", "```", "[]", "{}", " ", "\n"],
    *['"bbox_2d"', "'bbox'", '"point_2d"', "'points_1'", "'points_2'", "[1,2,3,4]", "[1,2]"],
    *["1", "-2.5", "1e999", "NaN", "true", "None", "null", '"7"', "the mug", "\ud800", "\x00"],
    *[
        MULTI,
        SINGLE,
        MULTI[1:-1],
        f"<answer>{MULTI}</answer>",
        '{"bbox_2d": [1,2,3,4], "point_2d":',
    ],
]
replies = st.one_of(
    st.text(),
    st.text(st.characters(codec=None)),
    st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join),
    st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(lambda parts: answered("".join(parts))),
)


@given(replies)
@example("<answer>" + "[" * 100_000)
@example("<answer>" + '{"a":' * 100_000 + "</answer>")
@settings(max_examples=600, deadline=None)
def test_no_text_whatever_raises_anything_else(reply: str) -> None:
    result = outcome(reply)

    assert type(result) in (Reasoning, AnswerParseError, TruncatedReplyError)
    assert result.completion == reply


def read_growing(text: str) -> tuple[ObjectPrompt, ...] | str:
    """Read an answer character by character."""
    reader = AnswerReader()
    try:
        for end in range(1, len(text)):
            reader.read(text[:end])
        reader.read(text, final=True)
    except AnswerRuleError as error:
        return str(error)
    return reader.complaint if reader.complaint and not reader.prompts else tuple(reader.prompts)


def read_at_once(text: str) -> tuple[ObjectPrompt, ...] | str:
    try:
        return read_answer(text)
    except AnswerRuleError as error:
        return str(error)


NUMBERS = ["0", "7", "-3", "12.5", "-0.25", "840", "1e2", "007", "-0", "9" * 12, ".5", "5.", "+1"]
PLAIN_PIECES = ['"', "'", " ", "\n", "\ufeff", ",", "[", "]", "\\", *NUMBERS]


@st.composite
def nearly_plain_answers(draw: st.DrawFn) -> str:
    """Lists of objects as a model writes them, one in a few with something odd in it."""
    quote = draw(st.sampled_from(["'", '"']))
    space = draw(st.sampled_from(["", " ", "\n "]))
    number = st.sampled_from(NUMBERS[:4]) if draw(st.booleans()) else st.sampled_from(NUMBERS)
    written = []
    for _ in range(draw(st.integers(1, 4))):
        box, point = (", ".join(draw(number) for _ in range(count)) for count in (4, 2))
        written.append(
            f"{{{quote}bbox_2d{quote}:{space}[{box}],{space}{quote}point_2d{quote}: [{point}]}}"
        )
    text = f"{space}[{f',{space}'.join(written)}]{space}"
    if draw(st.integers(0, 2)) == 0:
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        end = min(end, start + 2)
        text = text[:start] + draw(st.sampled_from(["", *PLAIN_PIECES])) + text[end:]
    return text


@given(st.one_of(nearly_plain_answers(), st.lists(st.sampled_from(FRAGMENTS)).map("".join)))
@settings(max_examples=1000, deadline=None)
def test_an_answer_that_grows_is_read_no_differently(text: str) -> None:
    assert read_growing(text) == read_at_once(text)


coordinates = st.floats(min_value=-1e6, max_value=1e6).map(lambda value: round(value, 3))
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates).filter(
    lambda b: b[0] != b[2] and b[1] != b[3]
)
objects = st.lists(st.tuples(boxes, st.tuples(coordinates, coordinates)), max_size=6)


@given(st.text(st.characters(blacklist_characters="<>")), objects, st.booleans())
@settings(deadline=None)
def test_what_was_written_is_what_is_read(
    thinking: str, written: list[tuple[tuple[float, ...], tuple[float, float]]], python: bool
) -> None:
    values = [{"bbox_2d": list(box), "point_2d": list(point)} for box, point in written]
    answer = repr(values) if python else json.dumps(values)

    reasoning = parse_completion(f"<think>{thinking}</think><answer>{answer}</answer>")

    assert reasoning.thinking == thinking.strip()
    assert [prompt.points for prompt in reasoning.prompts] == [(Point(*p),) for _, p in written]
    for prompt, (box, _) in zip(reasoning.prompts, written, strict=True):
        assert sorted(prompt.box.xyxy) == sorted(box)
