"""The thoughts that the reasoner is trained on, about LIBERO's world.

They name what is asked for, then the objects that the choice compares, each with its place, then
the choice. A place is a point of the object, in the numbers of the answer ("places") or in words
("words"). In numbers, a relation becomes a comparison of tokens that stand in the text. The style
"distances" also states how far each candidate is from what it is compared with, and in which
direction, and then which one of the list it is: small steps from one number to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from training.bundle.reasoner.text import (
    Chunk,
    joint,
    left_to_right,
    number_chunks,
    place_of,
)
from training.bundle.reasoner.world import SeenScene
from worlds.common.scene import Query, SceneObject
from worlds.libero.object_classes import OBJECT_CLASSES
from worlds.libero.queries.vocabulary import (
    ENDS,
    GROUPS,
    NOT_RELATIONS,
    RELATIONS,
    SIZE_WORDS,
    STATES,
    THINGS,
    USES,
)

DISTANCES, PLACES, WORDS, NONE = STYLES = "distances", "places", "words", "none"
AT, FROM, CLOSE, MIDDLE = " at (", " from (", ")", ", with the middle at ("
LEFT, RIGHT, ABOVE, BELOW = ", left by ", ", right by ", ", above by ", ", below by "
AWAY = ", away by "
ORDINALS = (" the first,", " the second,", " the third,", " the fourth,")
FIXED_TEXTS = (AT, FROM, CLOSE, MIDDLE, LEFT, RIGHT, ABOVE, BELOW, AWAY, *ORDINALS)
"""Parts of thoughts that are one token each."""
COMPUTED_TEXTS = (LEFT, RIGHT, ABOVE, BELOW)
"""The words that follow from places; the numbers that do are of no object."""
SEEN_SIZE_PX = 448
MOST_LISTED = 4  # candidates; a longer list costs more time than it helps
_NOTHING = Chunk(" Nothing fits.", decides=True)
ENDS_IN_DEPTH = ("frontmost", "backmost")
_MIDDLE, _START = "middle", "start"  # names of points that are no object's

Place = Callable[..., list[Chunk]]
Point = tuple[int, int]
Blur = Callable[[Point], Point]
"""A point as training shows it; see `Chunk.read`."""


def think(
    query: Query, seen: SeenScene, style: str, blur: Blur = lambda point: point
) -> list[Chunk]:
    """The thoughts about a question.

    Args:
        query: The question; topic, anchors and candidates say how it chooses.
        seen: The scene.
        style: `DISTANCES`, `PLACES` or `WORDS`.
        blur: Moves the points that the model reads; distances are those of moved points.
    """
    points = {item.id: seen.prompts[item.id].points[0] for item in seen.objects}
    read = {number: blur(point) for number, point in points.items()}

    def in_numbers(item: SceneObject, *, chosen: bool) -> list[Chunk]:
        # What is named once more is not quite where it was before.
        shown = blur(points[item.id]) if chosen else read[item.id]
        decides = chosen and not numbered
        numbers = number_chunks(points[item.id], item.id, decides=decides, read=shown)
        source = (item.id,) if chosen and listed else ()
        return [Chunk(AT), *_named(item.id, source, numbers), Chunk(CLOSE)]

    def in_words(item: SceneObject, *, chosen: bool) -> list[Chunk]:
        return [Chunk(" in the"), Chunk(f" {place_of(item, seen.size_wh)}", item.id, chosen)]

    def with_distance(item: SceneObject, *, chosen: bool) -> list[Chunk]:
        # The place that it is compared with stands beside it: what is near is easier to compute.
        source = _MIDDLE if len(anchors) > 1 else anchors[0].id
        start = _named(_START, (source,), number_chunks(middle(), 0))
        place = [*in_numbers(item, chosen=chosen), Chunk(FROM), *start, Chunk(CLOSE)]
        return [*place, *_offset(read[item.id], middle(), item.id)]

    def middle() -> Point:
        return _middle([read[anchor.id] for anchor in anchors])

    place = in_words if style == WORDS else in_numbers
    by_id = {item.id: item for item in seen.objects}
    if query.topic[0].startswith("unknown"):
        return [Chunk("The question asks for something that I do not know."), _NOTHING]
    anchors = [by_id[i] for i in query.anchors]
    asks = Chunk(f"The question asks for {_wanted(query.topic, anchors)}.")
    if not query.ids:
        missing = [
            Chunk(" I see", decides=True),
            Chunk(f" no {_noun(query.topic)}.", decides=True),
        ]
        return [asks, *missing, _NOTHING]
    meant = left_to_right(by_id[i] for i in query.ids)
    candidates = left_to_right(by_id[i] for i in query.candidates)
    listed = len(meant) < len(candidates) <= MOST_LISTED
    numbered = style == DISTANCES and listed and len(meant) == 1
    chunks = [asks]
    if anchors:
        row = _listed(left_to_right(anchors), place)
        if style == DISTANCES and len(anchors) > 1:
            both = tuple(anchor.id for anchor in anchors)
            numbers = _named(_MIDDLE, both, number_chunks(middle(), 0))
            row[-1:] = [Chunk(MIDDLE), *numbers, Chunk(CLOSE), row[-1]]
        chunks += [Chunk(" I start from", decides=True), *row]
    if listed:
        compared = with_distance if style == DISTANCES and anchors else place
        chunks += [Chunk(" I see", decides=True), *_listed(candidates, compared)]
    chunks.append(Chunk(" It is" if len(meant) == 1 else " They are", decides=True))
    if numbered:
        it = meant[0].id
        source = "away" if anchors else ("y" if query.topic[1] in ENDS_IN_DEPTH else "x")
        ordinal = ORDINALS[candidates.index(meant[0])]
        chunks.append(Chunk(ordinal, it, decides=True, looks_at=(f"{source} {it}",)))
    return [*chunks, *_listed(meant, place, chosen=True)]


def _middle(points: Sequence[Point]) -> Point:
    return (
        round(sum(x for x, _ in points) / len(points)),
        round(sum(y for _, y in points) / len(points)),
    )


def _named(name: object, sources: Sequence[object], numbers: Sequence[Chunk]) -> list[Chunk]:
    """The numbers of a point, which follow from those of other points."""
    named = [
        replace(
            chunk,
            name=f"{axis} {name}",
            looks_at=tuple(f"{axis} {source}" for source in sources),
        )
        for axis, chunk in zip("xy", (numbers[0], numbers[-1]), strict=True)
    ]
    return [named[0], *numbers[1:-1], named[1]]


def _offset(point: Point, middle: Point, number: int) -> list[Chunk]:
    """How far a point is right of and below another, and how far away [px of the seen image].

    No farther than a coordinate can be, because its tokens are those of coordinates.
    """
    x, y = point[0] - middle[0], point[1] - middle[1]
    away = min(round(math.hypot(x, y)), SEEN_SIZE_PX - 1)
    across, down = ((f"{axis} {number}", f"{axis} {_START}") for axis in "xy")
    return [
        Chunk(RIGHT if x >= 0 else LEFT, looks_at=across),
        Chunk(str(abs(x)), name="across", looks_at=across),
        Chunk(BELOW if y >= 0 else ABOVE, looks_at=down),
        Chunk(str(abs(y)), name="down", looks_at=down),
        Chunk(AWAY),
        Chunk(str(away), name=f"away {number}", looks_at=("across", "down")),
    ]


def called(item: SceneObject) -> str:
    """The usual name of an object."""
    return OBJECT_CLASSES[item.kind].names[0]


def _listed(row: Sequence[SceneObject], place: Place, *, chosen: bool = False) -> list[Chunk]:
    """Names and places, and a full stop."""
    chunks = []
    for i, item in enumerate(row):
        chunks += [
            Chunk(f"{joint(i, len(row))} the {called(item)}", item.id),
            *place(item, chosen=chosen),
        ]
    return [*chunks, Chunk(".")]


def _wanted(topic: Sequence[str], anchors: Sequence[SceneObject]) -> str:
    """What the question asks for, in the plainest words."""
    sort, *rest = topic
    if sort == "relation":
        return _related(*rest, [called(item) for item in anchors])
    if sort in SIZE_WORDS:
        return SIZE_WORDS[sort].train[0].format(k=rest[0])
    if sort == "state":
        return STATES[rest[0], rest[1]].train[0]
    if sort == "color":
        return f"the {rest[0]} thing"
    if sort == "use":
        return f"something to {USES[rest[0]][0]}"
    if sort == "group":
        return f"all {GROUPS[rest[0]][0]}"
    if sort == "noun":
        return f"every {rest[0]}"
    if sort == "place":
        return f"a place, the {rest[0]}"
    return f"the {rest[0]}"


def _related(relation: str, noun: str, negated: str, part: str, anchors: list[str]) -> str:
    thing = f"the {THINGS[0] if noun in THINGS else noun}"
    if relation in ENDS:
        return ENDS[relation].train[0].format(k=noun)
    if part:
        return f"{thing} in the {part} {relation} of the {anchors[0]}"
    table = NOT_RELATIONS if negated else RELATIONS
    a, b = [*(f"the {name}" for name in anchors), "", ""][:2]
    return table[relation].train[0].format(x=thing, a=a, b=b, s="table")


def _noun(topic: Sequence[str]) -> str:
    """What is not there."""
    sort, *rest = topic
    if sort == "group":
        return GROUPS[rest[0]][0]
    return "such thing" if sort == "use" else rest[0]
