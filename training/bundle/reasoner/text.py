"""The parts of a completion that are the same in every world.

A completion is a list of chunks. A chunk that names or measures an object carries the object's id,
so that training can teach the model where to look while it writes the chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segzero_core.prompt import asks_to_think, is_single_object
from worlds.common.scene import SceneObject
from worlds.tabletop.queries import center_px


@dataclass(frozen=True)
class Chunk:
    """A part of the completion."""

    text: str  # its words
    object_id: int = 0  # the object that it is about, 0 for none
    # Whether a choice falls in its first token, where another answer would go on otherwise; what
    # follows a choice is determined by it.
    decides: bool = False
    # What training shows the model in its place, a number too; empty for the same. A model that
    # reads its own numbers later reads some that are a little off.
    read: str = ""
    # Whether training only shows it, and does not teach the model to write it.
    given: bool = False
    name: str = ""  # by which later chunks refer to its first token
    # Names of one or two earlier chunks from which it follows; attention learns to look there.
    looks_at: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """Box and points of one object in the pixels that the model sees, whole numbers."""

    box_xyxy: tuple[int, int, int, int]
    points: tuple[tuple[int, int], tuple[int, int]]


def write_completion(
    thoughts: Sequence[Chunk],
    meant: Iterable[SceneObject],
    prompts: dict[int, Prompt],
    template: str,
) -> list[Chunk]:
    """Write the whole completion for a question, in the form of a template.

    The thoughts are left out where the template asks for none. No objects are a refusal. The
    prompts hold the true box and points of every object, in pixels of the image the model sees.
    """
    thinking = [Chunk("<think>"), *thoughts, Chunk("</think>")] if asks_to_think(template) else []
    row = left_to_right(meant)
    answer = _single(row, prompts) if is_single_object(template) else _multi(row, prompts)
    return [*thinking, Chunk("<answer>"), *answer, Chunk("</answer>")]


def left_to_right(objects: Iterable[SceneObject]) -> list[SceneObject]:
    """In the order in which a reader meets them."""
    return sorted(objects, key=center_px)


def place_of(item: SceneObject, size_wh: tuple[int, int]) -> str:
    """Where in the image an object is, in words."""
    x, y = center_px(item)
    column = ("left", "centre", "right")[min(2, int(3 * x / size_wh[0]))]
    row = ("back", "middle", "front")[min(2, int(3 * y / size_wh[1]))]
    return f"{row} {column}"


def joint(index: int, count: int) -> str:
    """What stands before an item of a list: nothing, a comma, or "and"."""
    return "" if index == 0 else (" and" if index == count - 1 else ",")


def _multi(meant: list[SceneObject], prompts: dict[int, Prompt]) -> list[Chunk]:
    if not meant:
        return [Chunk("[]")]
    chunks = []
    for i, item in enumerate(meant):
        prompt = prompts[item.id]
        chunks.append(Chunk('[{"bbox_2d": [' if i == 0 else ']}, {"bbox_2d": ['))
        chunks += number_chunks(prompt.box_xyxy, item.id)
        chunks.append(Chunk('], "point_2d": ['))
        chunks += number_chunks(prompt.points[0], item.id)
    return [*chunks, Chunk("]}]")]


def _single(meant: list[SceneObject], prompts: dict[int, Prompt]) -> list[Chunk]:
    if not meant:
        return [Chunk("[]")]
    item = meant[0]
    prompt = prompts[item.id]
    return [
        Chunk('{"bbox": ['),
        *number_chunks(prompt.box_xyxy, item.id),
        Chunk('], "points_1": ['),
        *number_chunks(prompt.points[0], item.id),
        Chunk('], "points_2": ['),
        *number_chunks(prompt.points[1], item.id),
        Chunk("]}"),
    ]


def number_chunks(
    values: Sequence[int],
    object_id: int,
    *,
    decides: bool = False,
    read: Sequence[int] | None = None,
) -> list[Chunk]:
    """Coordinates of an object with commas between them; the first may be a choice.

    `read` are those that training shows in their place.
    """
    chunks = []
    for i, (value, shown) in enumerate(zip(values, read or values, strict=True)):
        if i:
            chunks.append(Chunk(","))
        chunks.append(Chunk(str(value), object_id, decides and i == 0, str(shown)))
    return chunks


FIXED_CHUNKS = (
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
