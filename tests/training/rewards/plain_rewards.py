"""The three protocols once more: slow, plain, one completion at a time, and written from the text.

Nothing of `training.rewards.terms` is used. What a completion says comes with it as `Case.said`,
so that the parser is tested here too; only the protocol `reference` has to read for itself.
Pairings are found by trying all of them.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

Said = tuple[tuple[float, float, float, float], tuple[tuple[float, float], ...]]


@dataclass(frozen=True)
class Case:
    """A completion, what it says (None: cannot be read), and what is right."""

    text: str
    said: tuple[Said, ...] | None
    right: tuple[Said, ...]
    size: tuple[int, int] = (840, 840)
    form: str = "multi_object"
    id: str = ""
    expected: dict[str, float] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        return self.form == "single_object"


def plain_terms(protocol: str, case: Case) -> dict[str, float]:
    """Every term of a protocol for one case."""
    return {"paper": paper, "reference": reference, "segzero": segzero}[protocol](case)


def paper(case: Case) -> dict[str, float]:
    said = case.said or ()
    terms = {"thinking_format": float(well_formed(case.text) is not None)}
    if case.single:
        fits = len(said) == 1 and len(said[0][1]) == 2
        terms["segmentation_format"] = float(fits)
    else:
        fitting = [len(points) == 1 for _, points in said]
        terms["segmentation_format"] = 2 * sum(fitting) / len(fitting) if fitting else 0.0
        terms["non_repeat"] = float(repeats(case.text) < 2)
    return terms | accuracy(case, own_box=True)


def segzero(case: Case) -> dict[str, float]:
    inner = well_formed(case.text)
    refused = case.said == ()
    terms = {
        "thinking_format": float(inner is not None and inner.strip() != ""),
        "refusal": float(case.said is not None and refused == (not case.right)),
        "non_repeat": float(repeats(case.text) < 2),
    }
    if not case.right:
        names = ("segmentation_format", "box_iou", "box_l1", "point_l1")
        return terms | dict.fromkeys(names, float(refused))
    said = case.said or ()
    fitting = [len(points) == (2 if case.single else 1) for _, points in said]
    too_many = case.single and len(said) > 1
    share = sum(fitting) / len(fitting) if fitting and not too_many else 0.0
    return terms | {"segmentation_format": share} | accuracy(case, own_box=False)


def well_formed(text: str) -> str | None:
    """The thinking, if the text is exactly one thinking and one answer."""
    no_tag = r"((?:(?!</?(?i:think|answer)>).)*)"
    pattern = rf"\s*<think>{no_tag}</think>\s*<answer>{no_tag}</answer>\s*"
    match = re.fullmatch(pattern, text, re.DOTALL)
    return match and match.group(1)


def repeats(text: str) -> int:
    """How many sentences before the last answer were said already."""
    head = text.rsplit("<answer>", 1)[0] if "<answer>" in text else text
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        head = re.sub(tag, "\n", head, flags=re.IGNORECASE)
    sentences, current = [], ""
    for index, char in enumerate(head):
        following = head[index + 1] if index + 1 < len(head) else " "
        if char == "\n" or (char in ".!?" and (following.isspace() or following in ".!?")):
            sentences.append(current)
            current = ""
        else:
            current += char
    said = [" ".join(s.strip().lower().split()) for s in [*sentences, current]]
    said = [s for s in said if s]
    return sum(sentence in said[:index] for index, sentence in enumerate(said))


def accuracy(case: Case, *, own_box: bool) -> dict[str, float]:
    names = ("box_iou", "box_l1", "point_l1")
    said, right = case.said or (), case.right
    if not said or not right:
        return dict.fromkeys(names, 0.0)
    hits = [[pair_hits(case, s, r, own_box) for r in right] for s in said]
    best = best_pairing(hits, len(said), len(right))
    return {n: total / max(len(said), len(right)) for n, total in zip(names, best, strict=True)}


def best_pairing(hits: list[list[tuple[int, ...]]], rows: int, columns: int) -> tuple[int, ...]:
    """The largest sum of hits; of these the one with most IoU, then with most L1 of boxes."""
    sums = []
    if rows <= columns:
        orders = [list(enumerate(p)) for p in permutations(range(columns), rows)]
    else:
        orders = [[(r, c) for c, r in enumerate(p)] for p in permutations(range(rows), columns)]
    for order in orders:
        chosen = [hits[r][c] for r, c in order]
        sums.append(tuple(sum(hit[i] for hit in chosen) for i in range(3)))
    return max(sums, key=lambda s: (sum(s), s[0], s[1]))


def pair_hits(case: Case, said: Said, right: Said, own_box: bool) -> tuple[int, int, int]:
    (box, points), (true_box, true_points) = said, right
    overlap = iou(box, true_box) > 0.5
    w, h = case.size
    off = [abs(box[i] - true_box[i]) * 840 / (w, h)[i % 2] for i in range(4)]
    needed = 2 if case.single else 1
    near = False
    if len(points) == needed:
        x0, y0, x1, y1 = box if own_box else true_box
        inside = all(x0 <= x < x1 and y0 <= y < y1 for x, y in points)
        orders = permutations(true_points[:needed])
        distances = [
            sum(
                abs(a[0] - b[0]) * 840 / w + abs(a[1] - b[1]) * 840 / h
                for a, b in zip(points, order, strict=True)
            )
            / needed
            for order in orders
        ]
        near = inside and min(distances) < (100 if case.single else 30)
    return int(overlap), int(sum(off) / 4 < 10), int(near)


def iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    return shared / (sum(areas) - shared)


# --- the public code's way -------------------------------------------------------------------


def reference(case: Case) -> dict[str, float]:
    whole = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
    terms = {"thinking_format": float(whole.fullmatch(case.text) is not None)}
    if case.single:
        return terms | reference_single(case)
    pieces = [piece.strip() for piece in case.text.split(".")]
    pieces = [piece for piece in pieces if piece]
    again = sum(piece in pieces[:index] for index, piece in enumerate(pieces))
    return terms | {"non_repeat": float(again < 2)} | reference_multi(case)


def reference_single(case: Case) -> dict[str, float]:
    terms = dict.fromkeys(("segmentation_format", "box_iou", "box_l1", "point_l1"), 0.0)
    found = re.search(r"{[^}]+}", case.text)
    data = strict_json(found.group()) if found else None
    if not isinstance(data, dict):
        return terms
    wanted = {"bbox": 4, "points_1": 2, "points_2": 2}
    lists = {k: data[k] for k, n in wanted.items() if k in data and is_list(data[k], n)}
    terms["segmentation_format"] = float(len(lists) == 3)
    if "bbox" not in lists or not numbers(lists["bbox"]) or not case.right:
        return terms
    box = scale(lists["bbox"], case)
    (right_box, right_points), *_ = case.right
    true_box = scale(right_box, case)
    touches = min(box[2], true_box[2]) > max(box[0], true_box[0]) and min(
        box[3], true_box[3]
    ) > max(box[1], true_box[1])
    terms["box_iou"] = float(touches and pixel_iou(box, true_box) > 0.5)
    terms["box_l1"] = float(sum(abs(a - b) for a, b in zip(box, true_box, strict=True)) / 4 < 10)
    points = [whole(data.get(key)) for key in ("points_1", "points_2")]
    if all(points):
        points = [scale(point, case) for point in points]
        terms["point_l1"] = float(
            all(box[0] <= x <= box[2] and box[1] <= y <= box[3] for x, y in points)
            and nearest(points, [scale(p, case) for p in right_points]) < 100
        )
    return terms


def reference_multi(case: Case) -> dict[str, float]:
    terms = dict.fromkeys(("segmentation_format", "box_iou", "box_l1", "point_l1"), 0.0)
    found = re.search(r"<answer>\s*(.*?)\s*</answer>", case.text, re.DOTALL)
    data = strict_json(found.group(1)) if found else None
    if not isinstance(data, list) or not data:
        return terms
    for item in data:
        if not isinstance(item, dict):
            break
        terms["segmentation_format"] += is_list(item.get("bbox_2d"), 4) / len(data)
        terms["segmentation_format"] += is_list(item.get("point_2d"), 2) / len(data)
    complete = [
        isinstance(item, dict)
        and is_list(item.get("bbox_2d"), 4)
        and is_list(item.get("point_2d"), 2)
        and numbers(item["bbox_2d"] + item["point_2d"])
        for item in data
    ]
    if not all(complete) or not case.right:
        return terms
    hits = []
    for item in data:
        box, point = scale(item["bbox_2d"], case), scale(item["point_2d"], case)
        inside = box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
        row = []
        for right_box, right_points in case.right:
            true_box, true_point = scale(right_box, case), scale(right_points[0], case)
            l1 = sum(abs(a - b) for a, b in zip(box, true_box, strict=True)) / 4
            near = inside and math.dist(point, true_point) < 30
            row.append((int(pixel_iou(box, true_box) > 0.5), int(l1 < 10), int(near)))
        hits.append(row)
    best = best_pairing(hits, len(data), len(case.right))
    longest = max(len(data), len(case.right))
    for name, total in zip(("box_iou", "box_l1", "point_l1"), best, strict=True):
        terms[name] = total / longest
    return terms


def strict_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def whole(values: Any) -> list[int] | None:
    """Two integers from whatever `int` takes, quoted ones too."""
    try:
        return [int(values[0]), int(values[1])]
    except Exception:
        return None


def scale(values: Any, case: Case) -> list[float]:
    return [value * 840 / case.size[index % 2] for index, value in enumerate(values)]


def pixel_iou(first: list[float], second: list[float]) -> float:
    """Boxes that hold their last pixel."""
    width = min(first[2], second[2]) - max(first[0], second[0]) + 1
    height = min(first[3], second[3]) - max(first[1], second[1]) + 1
    shared = max(width, 0) * max(height, 0)
    union = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (first, second)) - shared
    return shared / union if shared else 0.0


def nearest(found: list[list[float]], right: list[list[float]]) -> float:
    return min(
        sum(math.dist(a, b) for a, b in zip(found, order, strict=True)) / 2
        for order in permutations(right[:2])
    )
