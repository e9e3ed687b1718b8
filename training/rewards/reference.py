"""The rewards as the public code of Seg-Zero and VisionReasoner computes them, quirks included.

For figures that are to be comparable with theirs, and for nothing else. Its quirks are not
repaired here; the ones that matter most:

- It does not read the answer: in the single-object form the first `{…}` of the whole text wins,
  wherever it stands; in the multi-object form the first `<answer>`. Strict JSON, so the single
  quotes of its own prompt are refused.
- A newline after `</answer>` costs the point for the thinking.
- Boxes hold their last pixel (+1 on every side), but in the single-object form boxes that touch
  in one row of pixels do not overlap. The numbers of the truth are taken as they are.
- Points must lie in the box of the same answer; their distance, called L1, is Euclidean.
- An answer without objects earns nothing, whatever is right.
- A full stop ends a sentence, also in "0.5".

What makes the public code raise scores 0 there; here those cases are conditions of their own.
Numbers are computed as floats, so integers beyond 2^53 are rounded.

Source: github.com/dvlab-research/Seg-Zero, single object at commit 77f9ea5, multi object at its
head; described from its behaviour.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, Literal

from segzero_core.prompt import SINGLE_OBJECT
from training.rewards.ground_truth import Truth, Xy, XyXy
from training.rewards.matching import (
    HARD_BOX_L1_PX,
    HARD_IOU,
    HARD_POINT_PX,
    NOTHING_RIGHT,
    PAPER_SIDE_PX,
    Accuracy,
    MatchRule,
    Objects,
    match,
)

MAX_OBJECTS: Final = 120
"""Objects beyond this are cut off on both sides before they are counted."""

_FIRST_BRACES = re.compile(r"\{[^}]+\}")
_THINK_TO_ANSWER = re.compile(r"</think>\s*<answer>")
_STRICT_KEYS: Final = ("bbox", "points_1", "points_2")
_RULE = MatchRule(points_within="answer", point_distance="euclidean", border_px=1)


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceAnswer:
    """A completion as the public code reads it.

    Attributes:
        text: The completion.
        format_share: Its reward for the format, as a share of the largest.
        accuracy: Its rewards for accuracy, as shares.
        unusable: No box could be read.
    """

    text: str
    format_share: float
    accuracy: Accuracy
    unusable: bool


def read_answers(
    texts: Sequence[str], truths: Sequence[Truth], *, style: Literal["soft", "strict"]
) -> list[ReferenceAnswer]:
    """Read completions the public code's way.

    Args:
        texts: The completions.
        truths: What is right for each of them.
        style: `strict` wants exactly the keys of the prompt in the single-object form, `soft` any
            that contain "bbox" and "points"; the multi-object form knows one way only.
    """
    values = [
        None if truth.form == SINGLE_OBJECT else _answer_value(text)
        for text, truth in zip(texts, truths, strict=True)
    ]
    objects = [_objects(value) for value in values]
    accuracies = match(objects, [_cut(truth) for truth in truths], _RULE)
    return [
        _read_single(text, truth, style)
        if truth.form == SINGLE_OBJECT
        else ReferenceAnswer(text, _format_share(value), accuracy, some is None)
        for text, truth, value, some, accuracy in zip(
            texts, truths, values, objects, accuracies, strict=True
        )
    ]


def thinking_format(answer: ReferenceAnswer, truth: Truth) -> float:
    """1 for `<think>…</think><answer>…</answer>` from the first character to the last."""
    text = answer.text
    if not (text.startswith("<think>") and text.endswith("</answer>")):
        return 0.0
    middle = _THINK_TO_ANSWER.search(text, len("<think>"), len(text) - len("</answer>"))
    return float(middle is not None)


def segmentation_format(answer: ReferenceAnswer, truth: Truth) -> float:
    """The share of keys that are there with the right number of values."""
    return answer.format_share


def non_repeat(answer: ReferenceAnswer, truth: Truth) -> float:
    """0 where two or more pieces between full stops have stood in the text before."""
    pieces = [piece.strip() for piece in answer.text.split(".") if piece.strip()]
    return float(len(pieces) - len(set(pieces)) < 2)


def _loads(text: str) -> Any:
    """Read strict JSON; None where there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _float(number: float) -> float:
    """A number as a float; an integer beyond all floats becomes infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


# --- single object ---------------------------------------------------------------------------


def _read_single(text: str, truth: Truth, style: Literal["soft", "strict"]) -> ReferenceAnswer:
    braces = _FIRST_BRACES.search(text)
    found = _loads(braces.group()) if braces else None
    data: dict[str, Any] = found if isinstance(found, dict) else {}
    if style == "strict":
        box_key, *point_keys = _STRICT_KEYS
        format_share = float(_fits_strictly(data))
    else:
        box_key = next((key for key in data if "bbox" in key.lower()), "")
        point_keys = [key for key in data if "points" in key.lower()][:2]
        format_share = float(_fits_softly(data))
    box = _single_box(data.get(box_key))
    points = [_whole_pixels(data.get(key)) for key in point_keys]
    accuracy = _single_accuracy(box, points, truth) if box and len(truth) else NOTHING_RIGHT
    return ReferenceAnswer(text, format_share, accuracy, box is None)


def _fits_strictly(data: dict[str, Any]) -> bool:
    return all(
        isinstance(data.get(key), list) and len(data[key]) == length
        for key, length in zip(_STRICT_KEYS, (4, 2, 2), strict=True)
    )


def _fits_softly(data: dict[str, Any]) -> bool:
    """A key with "bbox" and two with "point"; a text of the right length passes as well."""
    boxes = [key for key in data if "bbox" in key.lower()]
    points = [key for key in data if "point" in key.lower() and key not in boxes[:1]]
    if not boxes or len(points) < 2:
        return False
    wanted = [(boxes[0], 4), (points[0], 2), (points[1], 2)]
    return all(isinstance(data[k], list | str) and len(data[k]) == n for k, n in wanted)


def _single_box(value: Any) -> XyXy | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(number, int | float) for number in value):
        return None
    x_min, y_min, x_max, y_max = map(_float, value)
    return x_min, y_min, x_max, y_max


def _whole_pixels(value: Any) -> Xy | None:
    """The first two values cut to integers; numbers in quotes pass, as they do for `int`."""
    try:
        return _float(int(value[0])), _float(int(value[1]))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _single_accuracy(box: XyXy, points: Sequence[Xy | None], truth: Truth) -> Accuracy:
    width, height = truth.seen_size_wh
    scale = (PAPER_SIDE_PX / width, PAPER_SIDE_PX / height)
    (true_box,), (true_points,) = truth.boxes_xyxy, truth.points
    found, right = _scaled(box, scale), _scaled(true_box, scale)
    l1 = sum(abs(a - b) for a, b in zip(found, right, strict=True)) / 4
    near = False
    usable = [_scaled(point, scale) for point in points if point is not None]
    if len(usable) == 2 and all(
        found[0] <= x <= found[2] and found[1] <= y <= found[3] for x, y in usable
    ):
        distance = _distance_of_two(usable, [_scaled(p, scale) for p in true_points[:2]])
        near = distance < HARD_POINT_PX[SINGLE_OBJECT]
    return Accuracy(
        float(_inclusive_iou(found, right) > HARD_IOU), float(l1 < HARD_BOX_L1_PX), float(near)
    )


def _scaled(numbers: Sequence[float], scale: Xy) -> tuple[float, ...]:
    return tuple(number * scale[index % 2] for index, number in enumerate(numbers))


def _inclusive_iou(first: Sequence[float], second: Sequence[float]) -> float:
    x_min, y_min = max(first[0], second[0]), max(first[1], second[1])
    x_max, y_max = min(first[2], second[2]), min(first[3], second[3])
    if not (x_min < x_max and y_min < y_max):
        return 0.0
    shared = (x_max - x_min + 1) * (y_max - y_min + 1)
    areas = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second))
    return shared / (areas - shared) if areas != shared else 0.0


def _distance_of_two(found: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    (a, b), (c, d) = found, right
    return min(math.dist(a, c) + math.dist(b, d), math.dist(a, d) + math.dist(b, c)) / 2


# --- multi object ----------------------------------------------------------------------------


def _answer_value(text: str) -> Any:
    """The JSON between the first `<answer>` and the next `</answer>`; None where there is none."""
    start = text.find("<answer>")
    end = text.find("</answer>", start + len("<answer>"))
    return _loads(text[start + len("<answer>") : end].strip()) if 0 <= start < end else None


def _format_share(value: Any) -> float:
    """Half a point for a box and half for a point, averaged over the items of the answer.

    An item that is no object and cannot be searched for the keys ends the sum, and what was
    counted before it stays.
    """
    if not isinstance(value, list | dict | str) or not value:
        return 0.0
    hits = 0
    for item in value:
        if isinstance(item, dict):
            hits += _is_list_of(item.get("bbox_2d"), 4) + _is_list_of(item.get("point_2d"), 2)
        elif not isinstance(item, list | str) or "bbox_2d" in item or "point_2d" in item:
            break
    return hits / len(value) / 2


def _is_list_of(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _objects(value: Any) -> Objects | None:
    """All objects of an answer, or None as soon as one of them is not complete."""
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(item, dict) for item in value):
        return None
    boxes = [item.get("bbox_2d") for item in value]
    points = [item.get("point_2d") for item in value]
    if not (_are_numbers(boxes, 4) and _are_numbers(points, 2)):
        return None
    count = min(len(value), MAX_OBJECTS)
    return Objects(
        count,
        [_float(number) for box in boxes[:count] for number in box],
        [_float(number) for point in points[:count] for number in point],
    )


def _are_numbers(lists: Sequence[Any], length: int) -> bool:
    if not all(_is_list_of(numbers, length) for numbers in lists):
        return False
    return set(map(type, chain.from_iterable(lists))) <= {int, float, bool}


def _cut(truth: Truth) -> Truth:
    if len(truth) <= MAX_OBJECTS:
        return truth
    return replace(
        truth,
        boxes_xyxy=truth.boxes_xyxy[:MAX_OBJECTS],
        points=truth.points[:MAX_OBJECTS],
        masks=None,
    )
