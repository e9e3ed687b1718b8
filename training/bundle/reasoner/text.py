"""Writes the completions that the reasoner is trained on.

A completion is a list of chunks. A chunk that names or measures an object carries the object's id,
so that training can teach the model where to look while it writes the chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segzero_core.prompt import asks_to_think, is_single_object
from worlds.tabletop.queries import center_px
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
class Chunk:
    """A part of the completion.

    Attributes:
        text: Its words.
        object_id: The object that it is about, 0 for none.
        decides: Whether a choice falls in its first token, where another answer would go on
            otherwise; what follows a choice is determined by it.
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
) -> list[Chunk]:
    """The whole completion for a query.

    Args:
        objects: What is on the table, boxes in pixels of an image of `size_wh`.
        query: The question; `query.topic` says how it chooses its objects.
        prompts: True box and points of every object, in pixels of the image the model sees.
        size_wh: Size of that image [px].
        template: A key of `segzero_core.prompt.TEMPLATES`.
    """
    thinking = []
    if asks_to_think(template):
        thinking = [Chunk("<think>"), *_asks(query), *_concludes(objects, query, size_wh)]
        thinking.append(Chunk("</think>"))
    meant = left_to_right([o for o in objects if o.id in query.ids])
    answer = _single(meant, prompts) if is_single_object(template) else _multi(meant, prompts)
    return [*thinking, Chunk("<answer>"), *answer, Chunk("</answer>")]


def left_to_right(objects: Iterable[SceneObject]) -> list[SceneObject]:
    """In the order in which a reader meets them."""
    return sorted(objects, key=center_px)


def called(item: SceneObject) -> str:
    """Color and name, such as "red mug"."""
    return f"{item.color} {NAMES[item.kind][0]}"


def with_article(noun: str) -> str:
    """A noun phrase with "a" or "an"; scissors take none."""
    if noun.endswith("scissors"):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def place_of(item: SceneObject, size_wh: tuple[int, int]) -> str:
    """Where in the image an object is, in words."""
    x, y = center_px(item)
    column = ("left", "centre", "right")[min(2, int(3 * x / size_wh[0]))]
    row = ("back", "middle", "front")[min(2, int(3 * y / size_wh[1]))]
    return f"{row} {column}"


def _asks(query: Query) -> list[Chunk]:
    topic, *rest = query.topic
    if topic == "unknown" or topic == "unknown_use":
        return [Chunk("The question asks for something that I do not know.")]
    return [Chunk(f"The question asks for {_wanted(topic, rest)}.")]


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


def _concludes(objects: Objects, query: Query, size_wh: tuple[int, int]) -> list[Chunk]:
    meant = left_to_right([o for o in objects if o.id in query.ids])
    if not meant:
        return _nothing_fits(objects, query)
    chunks = _evidence(objects, query, size_wh)
    chunks.append(Chunk(" It is" if len(meant) == 1 else " They are", decides=True))
    for i, item in enumerate(meant):
        chunks += _named_at(_joint(i, len(meant)), item, size_wh)
    return [*chunks, Chunk(".")]


def _joint(index: int, count: int) -> str:
    return "" if index == 0 else (" and" if index == count - 1 else ",")


def _sees(row: Objects) -> list[Chunk]:
    """List the candidates."""
    chunks = [Chunk(" I see", decides=True)]
    for i, item in enumerate(row):
        text = f"{_joint(i, len(row))} {with_article(called(item))}"
        chunks.append(Chunk(text, item.id, decides=i == 0))
    return [*chunks, Chunk(".")]


def _compares(item: SceneObject, color: str) -> list[Chunk]:
    """Name the candidate that comes nearest, its color, and the verdict on that.

    The verdict stands directly behind the color: to tell two words apart is then one look back,
    which a small model learns. One candidate and not all: in a list a small model repeats itself
    and misses the right one.
    """
    return [
        Chunk(" I see", decides=True),
        Chunk(f" {with_article(NAMES[item.kind][0])},", item.id, decides=True),
        Chunk(f" {item.color}", item.id, decides=True),
        Chunk(_YES if item.color == color else _NO, decides=True),
        Chunk("."),
    ]


def _asked_color(query: Query) -> str:
    """The color by which the question chooses among candidates of several; empty for none."""
    topic, *rest = query.topic
    return {"name": rest[-1], "color_group": rest[0]}.get(topic, "") if rest else ""


def _named_at(joint: str, item: SceneObject, size_wh: tuple[int, int]) -> list[Chunk]:
    return [
        Chunk(f"{joint} the {called(item)}", item.id),
        Chunk(" in the"),
        Chunk(f" {place_of(item, size_wh)}", item.id),
    ]


def _evidence(objects: Objects, query: Query, size_wh: tuple[int, int]) -> list[Chunk]:
    """The candidates of the choice, or the object where the search starts."""
    topic, *rest = query.topic
    if topic in _SIDE_WORDS:
        anchor = next(o for o in objects if o.kind == rest[1] and rest[2] in ("", o.color))
        return [Chunk(" I start from", decides=True), *_named_at("", anchor, size_wh), Chunk(".")]
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


def _nothing_fits(objects: Objects, query: Query) -> list[Chunk]:
    topic, *rest = query.topic
    verdict = Chunk(" Nothing fits.", decides=True)
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
        nearest = max(others, key=lambda item: item.area_px)
        return [*_compares(nearest, _asked_color(query)), verdict]
    return [Chunk(" I see", decides=True), Chunk(f" no {missing}.", decides=True), verdict]


def _multi(meant: list[SceneObject], prompts: dict[int, Prompt]) -> list[Chunk]:
    if not meant:
        return [Chunk("[]")]
    chunks = []
    for i, item in enumerate(meant):
        prompt = prompts[item.id]
        chunks.append(Chunk('[{"bbox_2d": [' if i == 0 else ']}, {"bbox_2d": ['))
        chunks += _numbers(prompt.box_xyxy, item.id)
        chunks.append(Chunk('], "point_2d": ['))
        chunks += _numbers(prompt.points[0], item.id)
    return [*chunks, Chunk("]}]")]


def _single(meant: list[SceneObject], prompts: dict[int, Prompt]) -> list[Chunk]:
    if not meant:
        return [Chunk("[]")]
    item = meant[0]
    prompt = prompts[item.id]
    return [
        Chunk('{"bbox": ['),
        *_numbers(prompt.box_xyxy, item.id),
        Chunk('], "points_1": ['),
        *_numbers(prompt.points[0], item.id),
        Chunk('], "points_2": ['),
        *_numbers(prompt.points[1], item.id),
        Chunk("]}"),
    ]


def _numbers(values: Sequence[int], object_id: int) -> list[Chunk]:
    chunks = []
    for i, value in enumerate(values):
        if i:
            chunks.append(Chunk(","))
        chunks.append(Chunk(str(value), object_id))
    return chunks


FIXED_CHUNKS = (
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
"""Chunks with which a choice has fallen."""
