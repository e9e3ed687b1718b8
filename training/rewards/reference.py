"""Completions read and rewarded as the public code of Seg-Zero and VisionReasoner does it.

For metrics that are to be comparable with theirs, and for nothing else. It reads completions for
itself, without `parse_completion`, because what the public code can read is part of its rewards.
Its quirks are kept; the ones that matter most:

- In the single-object form it takes the first `{…}` of the whole text, wherever it stands; in the
  multi-object form the first `<answer>`. It reads strict JSON, so that the single quotes of its
  own prompt are refused.
- A newline after `</answer>` costs the reward for the thinking.
- Boxes hold their last pixel (+1 on every side), but in the single-object form boxes that touch
  in one row of pixels do not overlap. The numbers of the truth are taken as they are.
- Points must lie in the box of the same answer; their distance, called L1, is Euclidean.
- An answer without objects earns nothing, even where nothing fits.
- A full stop ends a sentence, also in "0.5".

What makes the public code raise an error scores 0 there; here those cases are conditions of their
own. Numbers are computed as floats, so integers beyond 2^53 are rounded.

Source: github.com/dvlab-research/Seg-Zero, single object at commit 77f9ea5, multi object at its
head; described from its behavior.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final, Literal

from segzero_core.prompt import SINGLE_OBJECT
from training.rewards.ground_truth import GroundTruth
from training.rewards.matching import MatchRule, Objects
from training.rewards.terms import Answer, compared

MAX_OBJECTS: Final = 120
"""Objects beyond this are cut off on both sides before they are counted."""

_FIRST_BRACES = re.compile(r"\{[^}]+\}")
_THINK_TO_ANSWER = re.compile(r"</think>\s*<answer>")
_STRICT_KEYS: Final = {"bbox": 4, "points_1": 2, "points_2": 2}
_RULE = MatchRule(points_within="answer", point_distance="euclidean", border_px=1)


def read_answers(
    texts: Sequence[str], truths: Sequence[GroundTruth], *, style: Literal["soft", "strict"]
) -> list[Answer]:
    """Read completions as the public code does.

    In the single-object form, `strict` needs exactly the keys of the prompt, `soft` any that
    contain "bbox" and "points". The multi-object form has one way only.
    """
    read = [
        _read_single(text, style) if truth.form == SINGLE_OBJECT else _read_multi(text)
        for text, truth in zip(texts, truths, strict=True)
    ]
    return compared(texts, read, list(map(_cut, truths)), _RULE)


def thinking_format(answer: Answer, truth: GroundTruth) -> float:
    """1 for `<think>…</think><answer>…</answer>` from the first character to the last."""
    text = answer.text
    if not (text.startswith("<think>") and text.endswith("</answer>")):
        return 0.0
    middle = _THINK_TO_ANSWER.search(text, len("<think>"), len(text) - len("</answer>"))
    return float(middle is not None)


def non_repeat(answer: Answer, truth: GroundTruth) -> float:
    """0 where two or more parts between full stops are repetitions of earlier ones."""
    parts = [part.strip() for part in answer.text.split(".") if part.strip()]
    return float(len(parts) - len(set(parts)) < 2)


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


def _is_list_of(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _read_single(text: str, style: Literal["soft", "strict"]) -> tuple[Objects | None, float]:
    """Return the object of the single-object form, and the format share."""
    braces = _FIRST_BRACES.search(text)
    found = _loads(braces.group()) if braces else None
    data: dict[str, Any] = found if isinstance(found, dict) else {}
    if style == "strict":
        box_key, *point_keys = _STRICT_KEYS
        fits = all(_is_list_of(data.get(key), length) for key, length in _STRICT_KEYS.items())
    else:
        box_key = next((key for key in data if "bbox" in key.lower()), "")
        point_keys = [key for key in data if "points" in key.lower()][:2]
        fits = _fits_softly(data, box_key)
    box = data.get(box_key)
    if not _is_list_of(box, 4) or not all(isinstance(number, int | float) for number in box):
        return None, float(fits)
    points = [_whole_pixels(data.get(key)) for key in point_keys]
    numbers = list(chain.from_iterable(points)) if len(points) == 2 else [math.nan] * 4
    return Objects(1, [_float(number) for number in box], numbers), float(fits)


def _fits_softly(data: dict[str, Any], box_key: str) -> bool:
    """A key with "bbox" and two with "point"; a text of the right length passes as well."""
    points = [key for key in data if "point" in key.lower() and key != box_key]
    if box_key not in data or len(points) < 2:
        return False
    wanted = [(box_key, 4), (points[0], 2), (points[1], 2)]
    return all(isinstance(data[k], list | str) and len(data[k]) == n for k, n in wanted)


def _whole_pixels(value: Any) -> tuple[float, float]:
    """The first two values cut to integers, numbers in quotes too; NaN where there are none."""
    try:
        return _float(int(value[0])), _float(int(value[1]))
    except (TypeError, ValueError, IndexError, OverflowError):
        return math.nan, math.nan


def _read_multi(text: str) -> tuple[Objects | None, float]:
    """Return the objects between the first `<answer>` and the next `</answer>`, and the format.

    There are none as soon as one of them is not complete. The format share counts half for a box
    and half for a point, averaged over the items. An item that is no object and cannot be searched
    for the keys ends the sum, and what was counted before it stays.
    """
    start = text.find("<answer>")
    end = text.find("</answer>", start + len("<answer>"))
    value = _loads(text[start + len("<answer>") : end].strip()) if 0 <= start < end else None
    if not isinstance(value, list | dict | str) or not value:
        return None, 0.0
    hits = 0
    for item in value:
        if isinstance(item, dict):
            hits += _is_list_of(item.get("bbox_2d"), 4) + _is_list_of(item.get("point_2d"), 2)
        elif not isinstance(item, list | str) or "bbox_2d" in item or "point_2d" in item:
            break
    return _objects(value), hits / len(value) / 2


def _objects(value: Any) -> Objects | None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return None
    boxes = [item.get("bbox_2d") for item in value]
    points = [item.get("point_2d") for item in value]
    if not all(_is_list_of(box, 4) for box in boxes):
        return None
    if not all(_is_list_of(point, 2) for point in points):
        return None
    if not set(map(type, chain.from_iterable(boxes + points))) <= {int, float, bool}:
        return None
    count = min(len(value), MAX_OBJECTS)
    return Objects(
        count,
        [_float(number) for number in chain.from_iterable(boxes[:count])],
        [_float(number) for number in chain.from_iterable(points[:count])],
    )


def _cut(truth: GroundTruth) -> GroundTruth:
    if len(truth) <= MAX_OBJECTS:
        return truth
    boxes, points = truth.boxes_xyxy[:MAX_OBJECTS], truth.points[:MAX_OBJECTS]
    return replace(truth, boxes_xyxy=boxes, points=points, masks=None)
