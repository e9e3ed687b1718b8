"""The table of completions that every protocol is checked on: by hand, and made from a seed."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.training.rewards.plain_rewards import Case, Said
from training.rewards.ground_truth import GroundTruth
from training.rewards.protocols import PROTOCOLS, RewardProtocol, score

SINGLE, MULTI = "single_object", "multi_object"

# --- by hand: the single-object form -----------------------------------------------------------

BOX, LEFT, RIGHT = (100, 100, 300, 300), (150, 200), (250, 200)
RIGHT_ONE: tuple[Said, ...] = ((BOX, (LEFT, RIGHT)),)
ONE = '{"bbox": [100, 100, 300, 300], "points_1": [150, 200], "points_2": [250, 200]}'
WRONG = '{"bbox": [500, 500, 600, 600], "points_1": [520, 520], "points_2": [560, 560]}'
SAID_WRONG: tuple[Said, ...] = (((500, 500, 600, 600), ((520, 520), (560, 560))),)
FAR = '{"bbox": [100, 100, 300, 300], "points_1": [150, 299], "points_2": [250, 299]}'
SAID_FAR: tuple[Said, ...] = ((BOX, ((150, 299), (250, 299))),)


def reply(answer: str, thinking: str = "The mug is red.") -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def one(
    id: str,
    text: str,
    said: tuple[Said, ...] | None,
    paper: float,
    reference: float,
    segzero: float,
) -> Case:
    expected = {"paper": paper, "reference": reference, "segzero": segzero}
    return Case(text, said, RIGHT_ONE, (840, 840), "single_object", id, expected)


# The rows that the public code is known to get wrong, with what it gives for them.
KNOWN_DEFECTS = [
    one("correct", reply(ONE), RIGHT_ONE, 5, 5, 7),
    one("single quotes, as in the prompt", reply(ONE.replace('"', "'")), RIGHT_ONE, 5, 1, 7),
    one("braces in the thinking", reply(ONE, "the set {1,2}"), RIGHT_ONE, 5, 1, 7),
    one("less-than in the thinking", reply(ONE, "width < height"), RIGHT_ONE, 5, 5, 7),
    one("no thinking", f"<answer>{ONE}</answer>", RIGHT_ONE, 4, 4, 6),
    one("no JSON", reply("the mug"), None, 1, 1, 2),
    one("trailing newline", reply(ONE) + "\n", RIGHT_ONE, 5, 4, 7),
    one("right in the thinking, wrong in the answer", reply(WRONG, ONE), SAID_WRONG, 2, 5, 4),
    one("text around the JSON", reply(f"Here: {ONE} so"), RIGHT_ONE, 5, 5, 7),
    one("both points 99 px off", reply(FAR), SAID_FAR, 5, 5, 7),
]


def single(box: list[float], first: list[float], second: list[float]) -> tuple[str, Said]:
    text = json.dumps({"bbox": box, "points_1": first, "points_2": second})
    return text, (tuple(box), (tuple(first), tuple(second)))  # type: ignore[return-value]


def one_of(
    id: str, numbers: tuple[str, Said], paper: float, reference: float, segzero: float
) -> Case:
    return one(id, reply(numbers[0]), (numbers[1],), paper, reference, segzero)


BY_HAND_SINGLE = [
    *KNOWN_DEFECTS,
    one_of("points swapped", single([100, 100, 300, 300], [250, 200], [150, 200]), 5, 5, 7),
    one_of("points 100 px off", single([100, 100, 300, 302], [150, 300], [250, 300]), 4, 4, 6),
    one_of("a point outside", single([100, 100, 300, 300], [150, 200], [301, 200]), 4, 4, 6),
    one_of("on the far side", single([100, 100, 300, 300], [150, 200], [300, 200]), 4, 5, 6),
    # Its own box is large enough for the point, the true one is not; IoU 0.83, L1 10.
    one_of("box too large", single([100, 100, 340, 300], [150, 200], [310, 200]), 4, 4, 5),
    one_of("sides 9 px off", single([109, 109, 309, 309], [150, 200], [250, 200]), 5, 5, 7),
    one_of("sides 10 px off", single([110, 110, 310, 310], [150, 200], [250, 200]), 4, 4, 6),
    # 100·200 of 200·200 pixels: half is not more than half. With +1: 101·201 of 201·201 is.
    one_of("half of the box", single([100, 100, 200, 300], [150, 200], [199, 200]), 3, 4, 5),
    one_of("the whole image", single([0, 0, 840, 840], [150, 200], [250, 200]), 3, 3, 5),
    one("empty list", reply("[]"), (), 1, 1, 2),
    one("cut off", reply(ONE)[:-9], None, 0, 4, 1),
    one("nothing at all", "", None, 0, 0, 1),
    one("blank thinking", reply(ONE, "  "), RIGHT_ONE, 5, 5, 6),
    one("two answers in a row", reply(f"{ONE} {ONE}"), RIGHT_ONE * 2, 2.5, 5, 4.5),
    one("tags in capitals", reply(ONE).replace("think", "THINK"), RIGHT_ONE, 4, 4, 6),
    one("keys in capitals", reply(ONE.replace("bbox", "BBOX")), RIGHT_ONE, 5, 1, 7),
    one("wrong keys", reply(ONE.replace("points_", "spot_")), None, 1, 3, 2),
    one(
        "the other form",
        reply('[{"bbox_2d": [100, 100, 300, 300], "point_2d": [150, 200]}]'),
        ((BOX, (LEFT,)),),
        *(3, 1, 5),
    ),
    one("space around", f" \n{reply(ONE)} ", RIGHT_ONE, 5, 4, 7),
    one("text before", f"Sure! {reply(ONE)}", RIGHT_ONE, 4, 4, 6),
    one("answer within the thinking", f"<think>{reply(ONE)}</think>", RIGHT_ONE, 4, 4, 6),
    one("numbers in quotes", reply(ONE.replace("150", '"150"')), None, 1, 5, 2),
    one("no number", reply(ONE.replace("150", "NaN")), None, 1, 4, 2),
    one("corners swapped", reply(ONE.replace("100, 100, 300, 300", "300, 300, 100, 100")),
        RIGHT_ONE, 5, 2, 7),
]  # fmt: skip

# --- by hand: the multi-object form ------------------------------------------------------------

A: Said = ((0, 0, 100, 100), ((50, 50),))
B: Said = ((200, 200, 300, 300), ((250, 250),))
OTHERS: tuple[Said, ...] = tuple(((x, 500, x + 50, 550), ((x + 25, 525),)) for x in (0, 100, 200))
CROSSED: tuple[Said, ...] = ((A[0], B[1]), (B[0], A[1]))


def listed(said: tuple[Said, ...]) -> str:
    return json.dumps([{"bbox_2d": list(box), "point_2d": list(p[0])} for box, p in said])


def many(
    id: str,
    text: str,
    said: tuple[Said, ...] | None,
    paper: float,
    reference: float,
    segzero: float,
    right: tuple[Said, ...] = (A, B),
) -> Case:
    expected = {"paper": paper, "reference": reference, "segzero": segzero}
    return Case(text, said, right, (840, 840), "multi_object", id, expected)


def many_said(
    id: str,
    said: tuple[Said, ...],
    paper: float,
    reference: float,
    segzero: float,
    right: tuple[Said, ...] = (A, B),
) -> Case:
    return many(id, reply(listed(said)), said, paper, reference, segzero, right)


BROKEN = (
    '[{"bbox_2d": [0, 0, 100, 100], "point_2d": [50, 50]}, {"bbox_2d": [1], "point_2d": [2, 3]}]'
)
BY_HAND_MULTI = [
    many_said("both", (A, B), 7, 7, 7),
    many_said("both, the other way round", (B, A), 7, 7, 7),
    many_said("one of two", (A,), 5.5, 5.5, 5.5),
    many_said("the same twice", (A, A), 5.5, 5.5, 5.5),
    many_said("both, and one again", (A, B, A), 6, 6, 6),
    many_said("both and three others", (A, B, *OTHERS), 4 + 6 / 5, 4 + 6 / 5, 4 + 6 / 5),
    many_said("boxes right, points crossed", CROSSED, 6, 6, 6),
    many_said("only others", OTHERS, 4, 4, 4),
    many_said("nothing, though something is meant", (), 2, 2, 2),
    many_said("nothing where nothing fits", (), 2, 2, 7, ()),
    many_said("an object where nothing fits", (A,), 4, 4, 2, ()),
    many("an unusable answer where nothing fits", reply("no"), None, 2, 2, 2, ()),
    many("one of two is broken", reply(BROKEN), None, 2, 3.5, 2),
    many("single quotes", reply(listed((A, B)).replace('"', "'")), (A, B), 7, 2, 7),
    many("newline at the end", reply(listed((A, B))) + "\n", (A, B), 7, 6, 7),
    many("fractions", reply(listed((A, B)), "0.5 and 0.5 and 0.5 and 0.5"), (A, B), 7, 6, 7),
    many("said again", reply(listed((A, B)), "It is red. " * 4), (A, B), 6, 6, 6),
    many("said twice", reply(listed((A, B)), "It is red. " * 2), (A, B), 7, 7, 7),
    many(
        "a draft in the thinking",
        reply(listed((A, B)), "perhaps <answer>[]</answer>"),
        (A, B),
        *(6, 2, 6),
    ),
    many("an object alone", reply(listed((A,))[1:-1]), (A,), 5.5, 2, 5.5),
    many("code fence", reply(f"```json\n{listed((A, B))}\n```"), (A, B), 7, 2, 7),
    many("no thinking", f"<answer>{listed((A, B))}</answer>", (A, B), 6, 6, 6),
]

# --- from a seed ------------------------------------------------------------------------------


def generated(count: int = 300, seed: int = 7) -> list[Case]:
    """Write completions with known meaning: right, off by a little or a lot, and badly written."""
    rng = random.Random(seed)
    return [_case(rng, f"seed {seed}, row {index}") for index in range(count)]


def _case(rng: random.Random, id: str) -> Case:
    form = rng.choice(("single_object", "multi_object"))
    size = rng.choice(((840, 840), (420, 420), (560, 840), (1000, 700)))
    n = 1 if form == "single_object" else rng.choice((1, 2, 3, 4))
    right = tuple(_object(rng, size) for _ in range(0 if rng.random() < 0.1 else n))
    said = [_said(rng, obj, form) for obj in right if rng.random() < 0.9]
    if said and form == "multi_object" and rng.random() < 0.2:
        said.append(rng.choice(said))
    if rng.random() < 0.15 and form == "multi_object":
        said.append(_said(rng, _object(rng, size), form))
    rng.shuffle(said)
    text, readable = _written(rng, said, form)
    return Case(text, tuple(said) if readable else None, right, size, form, id)


def _object(rng: random.Random, size: tuple[int, int]) -> Said:
    x, y = rng.randint(0, size[0] - 130), rng.randint(0, size[1] - 130)
    w, h = rng.randint(20, 120), rng.randint(20, 120)
    return (x, y, x + w, y + h), ((x + w // 3, y + h // 2), (x + 2 * w // 3, y + h // 2))


def _said(rng: random.Random, obj: Said, form: str) -> Said:
    (x0, y0, x1, y1), points = obj
    reach = rng.choice((0, 2, 9, 12, 40))
    move = [rng.randint(-reach, reach) for _ in range(4)]
    box = (x0 + move[0], y0 + move[1], x1 + move[2], y1 + move[3])
    if box[0] >= box[2] or box[1] >= box[3]:
        box = (x0, y0, x1, y1)
    far = rng.choice((0, 0, 3, 25, 45, 120))
    moved = [(x + rng.randint(-far, far), y + rng.randint(-far, far)) for x, y in points]
    if rng.random() < 0.3:
        moved.reverse()
        if form == "multi_object":
            moved = [(x + 0.5, y + 0.25) for x, y in moved]
    return box, tuple(moved if form == "single_object" else moved[:1])


def _written(rng: random.Random, said: list[Said], form: str) -> tuple[str, bool]:
    """Write the objects down, and say whether that can be read."""
    values = [
        {"bbox": box, "points_1": p[0], "points_2": p[1]}
        if form == "single_object"
        else {"bbox_2d": box, "point_2d": p[0]}
        for box, p in said
    ]
    alone = form == "single_object" and len(values) == 1
    answer = json.dumps(values[0] if alone else values, indent=rng.choice((None, None, 1)))
    style = rng.choice(("plain",) * 5 + ("quotes", "fence", "prose", "comma", "half", "key"))
    readable = True
    if style == "quotes":
        answer = answer.replace('"', "'")
    elif style == "fence":
        answer = f"```json\n{answer}\n```"
    elif style == "prose":
        answer = f"I think it is {answer}."
    elif style == "comma" and values:
        answer = answer[:-1] + "," + answer[-1]
    elif style == "half" and values:
        answer, readable = answer[: len(answer) // 2], False
    elif style == "key" and values:
        answer, readable = answer.replace("bbox", "box", 1), False
    thinking = rng.choice(
        (
            *("It is on the left.", "", "a {set} of things", "x < y", "One. Two. Three!"),
            *("It is red. It is red. It is red. It is red.", "0.5 m. Then 0.5 m, or 0.5 m."),
            'The box is {"bbox": [1, 2, 3, 4], "points_1": [1, 2], "points_2": [2, 3]}.',
        )
    )
    frame = rng.choice(
        ("<think>{t}</think><answer>{a}</answer>",) * 6
        + (
            *("<answer>{a}</answer>", "<think>{t}</think>\n<answer>{a}</answer>\n"),
            *("<think>{t}</think> So: <answer>{a}</answer>", "<think>{t}<answer>{a}</answer>"),
            *("<think>{t}</think><answer>{a}", "<THINK>{t}</THINK><answer>{a}</answer>"),
        )
    )
    readable &= frame != "<think>{t}</think><answer>{a}"
    return frame.replace("{t}", thinking).replace("{a}", answer), readable


A = ((0, 0, 100, 100), ((50, 50), (40, 40)))
B = ((200, 200, 300, 300), ((250, 250), (240, 240)))


def truth_of(case: Case) -> GroundTruth:
    boxes, points = tuple(b for b, _ in case.right), tuple(p for _, p in case.right)
    return GroundTruth(boxes, points, case.size, case.form)


def truth(*objects: Any, size: tuple[int, int] = (840, 840), form: str = MULTI) -> GroundTruth:
    return GroundTruth(tuple(b for b, _ in objects), tuple(p for _, p in objects), size, form)


def score_one(protocol: RewardProtocol | str, text: str, right: GroundTruth) -> dict[str, float]:
    protocol = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    scores = score(protocol, [text], [right])
    return {name: float(values[0]) for name, values in scores.terms.items()}


def total_of(protocol: RewardProtocol | str, text: str, right: GroundTruth) -> float:
    return sum(score_one(protocol, text, right).values())
