"""The thoughts that the reasoner is trained on, about the table's world."""

from __future__ import annotations

from collections.abc import Sequence

from training.bundle.reasoner.text import Chunk, joint, left_to_right, place_of
from worlds.common.scene import Query, SceneObject
from worlds.tabletop.vocabulary import GROUPS, NAMES, SINGULAR_OF_GROUP, USES

YES, NO = " (yes)", " (no)"
Objects = Sequence[SceneObject]

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


def think(objects: Objects, query: Query, size_wh: tuple[int, int]) -> list[Chunk]:
    """Write the thoughts about a question; boxes are in pixels of an image of `size_wh`."""
    return [*_asks(query), *_concludes(objects, query, size_wh)]


def called(item: SceneObject) -> str:
    """Color and name, such as "red mug"."""
    return f"{item.color} {NAMES[item.kind][0]}"


def with_article(noun: str) -> str:
    """A noun phrase with "a" or "an"; scissors take none."""
    if noun.endswith("scissors"):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


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
        chunks += _named_at(joint(i, len(meant)), item, size_wh)
    return [*chunks, Chunk(".")]


def _sees(row: Objects) -> list[Chunk]:
    """List the candidates."""
    chunks = [Chunk(" I see", decides=True)]
    for i, item in enumerate(row):
        text = f"{joint(i, len(row))} {with_article(called(item))}"
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
        Chunk(YES if item.color == color else NO, decides=True),
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
