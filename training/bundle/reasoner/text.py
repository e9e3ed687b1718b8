"""What the model is to think and answer about a table, with the object that each piece speaks of.

A completion is a row of pieces. A piece that names or measures an object carries the object's id,
so that the training can tell the model where to look while it writes that piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segzero_core.prompt import asks_to_think, is_single_object
from worlds.tabletop.queries import centre_px
from worlds.tabletop.scene import Query, SceneObject
from worlds.tabletop.vocabulary import GROUPS, NAMES, SINGULAR_OF_GROUP, USES

_YES, _NO = " (yes)", " (no)"
Objects = Sequence[SceneObject]
Points = tuple[tuple[float, float], ...]

_SIDE_WORDS = {
    "left": "left of",
    "right": "right of",
    "front": "in front of",
    "behind": "behind",
    "near": "closest to",
}
_ENDS = {
    "leftmost": "at the far left",
    "rightmost": "at the far right",
    "closest": "nearest to the camera",
    "farthest": "farthest from the camera",
}
_GROUP_WORDS = {
    "fruit": "fruit",
    "tools": "tools",
    "tableware": "tableware",
    "drinks": "drink containers",
}


@dataclass(frozen=True)
class Piece:
    """A part of the completion.

    Attributes:
        text: Its words.
        object_id: The object that it speaks of, 0 for nothing in the picture.
        decides: Whether a choice falls in its first token, where another answer would go on
            otherwise; what follows a choice is a matter of course.
    """

    text: str
    object_id: int = 0
    decides: bool = False


@dataclass(frozen=True)
class Prompt:
    """Box and points of one object in the pixels that the model sees, whole numbers."""

    box_xyxy: tuple[int, int, int, int]
    points: tuple[tuple[int, int], tuple[int, int]]


def write_completion(
    objects: Objects,
    query: Query,
    prompts: dict[int, Prompt],
    size_wh: tuple[int, int],
    template: str,
) -> list[Piece]:
    """The whole completion for a query.

    Args:
        objects: What is on the table, boxes in pixels of a picture of `size_wh`.
        query: The question; `query.topic` tells how it picks its objects.
        prompts: The true box and points of every object in pixels of the picture the model sees.
        size_wh: The picture the boxes of `objects` are in [px].
        template: A key of `segzero_core.prompt.TEMPLATES`.
    """
    thinking = []
    if asks_to_think(template):
        thinking = [Piece("<think>"), *_asks(query), *_concludes(objects, query, size_wh)]
        thinking.append(Piece("</think>"))
    meant = left_to_right([o for o in objects if o.id in query.ids])
    answer = _single(meant, prompts) if is_single_object(template) else _multi(meant, prompts)
    return [*thinking, Piece("<answer>"), *answer, Piece("</answer>")]


def left_to_right(objects: Iterable[SceneObject]) -> list[SceneObject]:
    """In the order in which a reader meets them."""
    return sorted(objects, key=centre_px)


def called(thing: SceneObject) -> str:
    """Colour and name, such as "red mug"."""
    return f"{thing.color} {NAMES[thing.kind][0]}"


def with_article(noun: str) -> str:
    """A noun phrase with "a" or "an"; scissors take none."""
    if noun.endswith("scissors"):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def place_of(thing: SceneObject, size_wh: tuple[int, int]) -> str:
    """Where in the picture a thing is, in words."""
    x, y = centre_px(thing)
    column = ("left", "centre", "right")[min(2, int(3 * x / size_wh[0]))]
    row = ("back", "middle", "front")[min(2, int(3 * y / size_wh[1]))]
    return f"{row} {column}"


def _asks(query: Query) -> list[Piece]:
    topic, *rest = query.topic
    if topic == "unknown" or topic == "unknown_use":
        return [Piece("The question asks for something that I do not know.")]
    return [Piece(f"The question asks for {_wanted(topic, rest)}.")]


def _wanted(topic: str, rest: list[str]) -> str:
    if topic == "name":
        kind, color = rest
        return with_article(f"{color} {NAMES[kind][0]}".strip())
    if topic in ("largest", "smallest"):
        return f"the {topic} {NAMES[rest[0]][0]}"
    if topic == "color":
        return f"the {rest[0]} thing"
    if topic == "color_group":
        return f"the {rest[0]} {SINGULAR_OF_GROUP[rest[1]]}"
    if topic == "use":
        kinds, phrases = USES[rest[0]]
        nouns = " or ".join(with_article(NAMES[kind][0]) for kind in kinds)
        return f"something to {phrases[0]}, that is {nouns}"
    if topic == "group":
        nouns = [NAMES[kind][0] for kind in GROUPS[rest[0]][0]]
        return f"all {_GROUP_WORDS[rest[0]]}: {', '.join(nouns[:-1])} or {nouns[-1]}"
    if topic == "colored":
        return f"all {rest[0]} things"
    if topic == "kind":
        return f"every {NAMES[rest[0]][0]}"
    noun = "thing" if rest[0] == "thing" else NAMES[rest[0]][0]
    if topic in _SIDE_WORDS:
        anchor = f"{rest[2]} {NAMES[rest[1]][0]}".strip()
        return f"the {noun} {_SIDE_WORDS[topic]} the {anchor}"
    return f"the {noun} {_ENDS[topic]}"


def _concludes(objects: Objects, query: Query, size_wh: tuple[int, int]) -> list[Piece]:
    meant = left_to_right([o for o in objects if o.id in query.ids])
    if not meant:
        return _nothing_fits(objects, query)
    pieces = _evidence(objects, query, size_wh)
    pieces.append(Piece(" It is" if len(meant) == 1 else " They are", decides=True))
    for i, thing in enumerate(meant):
        pieces += _named_at(_joint(i, len(meant)), thing, size_wh)
    return [*pieces, Piece(".")]


def _joint(index: int, count: int) -> str:
    return "" if index == 0 else (" and" if index == count - 1 else ",")


def _sees(row: Objects) -> list[Piece]:
    """List the candidates."""
    pieces = [Piece(" I see", decides=True)]
    for i, thing in enumerate(row):
        text = f"{_joint(i, len(row))} {with_article(called(thing))}"
        pieces.append(Piece(text, thing.id, decides=i == 0))
    return [*pieces, Piece(".")]


def _compares(thing: SceneObject, color: str) -> list[Piece]:
    """Tell the one candidate that comes nearest, its colour, and the verdict on that.

    The verdict stands directly behind the colour: to tell two words apart is then one look back,
    which a small model learns. One candidate and not all: in a list a small model repeats itself
    and misses the right one.
    """
    return [
        Piece(" I see", decides=True),
        Piece(f" {with_article(NAMES[thing.kind][0])},", thing.id, decides=True),
        Piece(f" {thing.color}", thing.id, decides=True),
        Piece(_YES if thing.color == color else _NO, decides=True),
        Piece("."),
    ]


def _asked_color(query: Query) -> str:
    """The colour by which the question chooses among candidates of several; empty for none."""
    topic, *rest = query.topic
    return {"name": rest[-1], "color_group": rest[0]}.get(topic, "") if rest else ""


def _named_at(joint: str, thing: SceneObject, size_wh: tuple[int, int]) -> list[Piece]:
    return [
        Piece(f"{joint} the {called(thing)}", thing.id),
        Piece(" in the"),
        Piece(f" {place_of(thing, size_wh)}", thing.id),
    ]


def _evidence(objects: Objects, query: Query, size_wh: tuple[int, int]) -> list[Piece]:
    """The things that the choice is made from, or from which the eye starts."""
    topic, *rest = query.topic
    if topic in _SIDE_WORDS:
        anchor = next(o for o in objects if o.kind == rest[1] and rest[2] in ("", o.color))
        return [Piece(" I start from", decides=True), *_named_at("", anchor, size_wh), Piece(".")]
    if color := _asked_color(query):
        return _compares(next(o for o in objects if o.id in query.ids), color)
    kinds = candidate_kinds(query)
    row = left_to_right(o for o in objects if o.kind in kinds)
    return _sees(row) if row and query.kind != "many" else []


def candidate_kinds(query: Query) -> tuple[str, ...]:
    """The kinds among which the question chooses; empty where any kind will do."""
    topic, *rest = query.topic
    if topic in ("name", "largest", "smallest", "kind"):
        return (rest[0],)
    if topic == "use":
        return USES[rest[0]][0]
    if topic == "group":
        return GROUPS[rest[0]][0]
    if topic == "color_group":
        return GROUPS[rest[1]][0]
    if topic in _ENDS and rest[0] != "thing":
        return (rest[0],)
    return ()


def _nothing_fits(objects: Objects, query: Query) -> list[Piece]:
    topic, *rest = query.topic
    verdict = Piece(" Nothing fits.", decides=True)
    if topic.startswith("unknown"):
        return [verdict]
    kinds = candidate_kinds(query)
    others = [o for o in objects if o.kind in kinds]
    if topic == "colored":
        missing = f"{rest[0]} thing"
    elif topic == "group":
        missing = _GROUP_WORDS[rest[0]]
    else:
        missing = " or ".join(NAMES[kind][0] for kind in kinds)
    if others:
        nearest = max(others, key=lambda thing: thing.area_px)
        return [*_compares(nearest, _asked_color(query)), verdict]
    return [Piece(" I see", decides=True), Piece(f" no {missing}.", decides=True), verdict]


def _multi(meant: list[SceneObject], prompts: dict[int, Prompt]) -> list[Piece]:
    if not meant:
        return [Piece("[]")]
    pieces = []
    for i, thing in enumerate(meant):
        prompt = prompts[thing.id]
        pieces.append(Piece('[{"bbox_2d": [' if i == 0 else ']}, {"bbox_2d": ['))
        pieces += _numbers(prompt.box_xyxy, thing.id)
        pieces.append(Piece('], "point_2d": ['))
        pieces += _numbers(prompt.points[0], thing.id)
    return [*pieces, Piece("]}]")]


def _single(meant: list[SceneObject], prompts: dict[int, Prompt]) -> list[Piece]:
    if not meant:
        return [Piece("[]")]
    thing = meant[0]
    prompt = prompts[thing.id]
    return [
        Piece('{"bbox": ['),
        *_numbers(prompt.box_xyxy, thing.id),
        Piece('], "points_1": ['),
        *_numbers(prompt.points[0], thing.id),
        Piece('], "points_2": ['),
        *_numbers(prompt.points[1], thing.id),
        Piece("]}"),
    ]


def _numbers(values: Sequence[int], object_id: int) -> list[Piece]:
    pieces = []
    for i, value in enumerate(values):
        if i:
            pieces.append(Piece(","))
        pieces.append(Piece(str(value), object_id))
    return pieces


FIXED_PIECES = (
    _YES,
    _NO,
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    '[{"bbox_2d": [',
    '], "point_2d": [',
    ']}, {"bbox_2d": [',
    "]}]",
    "[]",
    '{"bbox": [',
    '], "points_1": [',
    '], "points_2": [',
    "]}",
)
"""Parts of every answer that are one token each."""

CHOSEN = (" It is", " They are", "</think>")
"""Pieces with which a choice has fallen."""

__all__ = ["CHOSEN", "FIXED_PIECES", "Piece", "Prompt", "write_completion"]
