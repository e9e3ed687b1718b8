"""Questions about invented layouts: training for the part of a thought that is computed.

A thought lists places; then offsets, distances and a choice follow from them. A scene gives few of
those, and its image tells the answer too. Here the places are drawn at random. Training only shows
them, and teaches what follows from them and stands in no image: the numbers, which of the list it
is, and that one's place. The text ends there, because an answer would need an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.bundle.reasoner.libero.thoughts import (
    COMPUTED_TEXTS,
    DISTANCES,
    ORDINALS,
    SEEN_SIZE_PX,
    think,
)
from training.bundle.reasoner.text import Chunk, Prompt
from training.bundle.reasoner.world import SeenScene
from worlds.common.scene import Query, SceneObject
from worlds.common.wording import frame, pick, words
from worlds.libero.object_classes import OBJECT_CLASSES
from worlds.libero.queries.phrasings import PHRASINGS
from worlds.libero.queries.vocabulary import ENDS, RELATIONS

_BY_DISTANCE = {"next": 0.18, "nearest": 0.14, "between": 0.18, "on": 0.1, "in": 0.04}
_BY_SIDE = {"left": (-1, 0), "right": (1, 0), "behind": (0, -1), "front": (0, 1)}
_BY_END = {"leftmost": (-1, 0), "rightmost": (1, 0), "backmost": (0, -1), "frontmost": (0, 1)}
"""The direction of each in the image."""
_SIDE_SHARE, _END_SHARE = 0.05, 0.04  # of the questions, for each side and each end
_CANDIDATES = {2: 0.5, 3: 0.3, 4: 0.2}
_EDGE_PX = 8
_NEAR_SHARE, _NEAR_PX = 0.5, 40.0  # so often one candidate stands about as near as this
_CLEARLY_NEARER, _CLEARLY_ASIDE_PX = 0.8, 20.0
_NO_BOX = (0, 0, 0, 0)


def invent(rng: np.random.Generator) -> tuple[str, list[Chunk]]:
    """A question for a relation, and the thoughts up to the place of the one that is meant."""
    relations = [*_BY_DISTANCE, *_BY_SIDE, *_BY_END]
    shares = [*_BY_DISTANCE.values(), *[_SIDE_SHARE] * 4, *[_END_SHARE] * 4]
    relation = str(rng.choice(relations, p=shares))
    count = int(rng.choice(list(_CANDIDATES), p=list(_CANDIDATES.values())))
    anchors = {"between": 2}.get(relation, 0 if relation in _BY_END else 1)
    points, meant = _layout(rng, relation, anchors, count)
    kinds = rng.choice(sorted(OBJECT_CLASSES), size=anchors + 1, replace=False)
    objects = _objects([*kinds[:anchors], *[kinds[-1]] * count], points)
    candidates = tuple(item.id for item in objects[anchors:])
    names = [OBJECT_CLASSES[str(kind)].names for kind in kinds]
    query = _query(rng, relation, names, candidates, candidates[meant])
    prompts = {
        item.id: Prompt(_NO_BOX, ((int(x), int(y)), (int(x), int(y))))
        for item, (x, y) in zip(objects, points, strict=True)
    }
    seen = SeenScene(objects, prompts, (SEEN_SIZE_PX, SEEN_SIZE_PX), None)
    return query.text, _only_what_follows(think(query, seen, DISTANCES))


def _layout(
    rng: np.random.Generator, relation: str, anchors: int, count: int
) -> tuple[NDArray[np.int64], int]:
    """Points of anchors and candidates, and which candidate the relation clearly means."""
    while True:
        low, high = _EDGE_PX, SEEN_SIZE_PX - _EDGE_PX
        points = rng.integers(low, high, (anchors + count, 2))
        middle = points[:anchors].mean(0) if anchors else np.zeros(2)
        if relation in _BY_DISTANCE and rng.random() < _NEAR_SHARE:
            points[anchors] = np.clip(rng.normal(middle, _NEAR_PX), low, high)
        meant = _meant(relation, points[anchors:] - middle)
        if meant is not None:
            return points, meant


def _meant(relation: str, offsets_px: NDArray[np.float64]) -> int | None:
    """The candidate that stands out clearly by its offset from the anchors; None for none."""
    if relation in _BY_END:
        ahead = offsets_px @ np.array(_BY_END[relation])
        first, second = np.argsort(-ahead)[:2]
        return int(first) if ahead[first] >= ahead[second] + _CLEARLY_ASIDE_PX else None
    away = np.hypot(*offsets_px.T)
    if relation in _BY_DISTANCE:
        first, second = np.argsort(away)[:2]
        return int(first) if away[first] <= _CLEARLY_NEARER * away[second] else None
    ahead = offsets_px @ np.array(_BY_SIDE[relation])
    across = np.sqrt(np.maximum(away**2 - ahead**2, 0))
    there = (ahead >= _CLEARLY_ASIDE_PX) & (ahead > across)
    if there.sum() != 1 or ((ahead > 0) & ~there).any():
        return None
    return int(there.argmax())


def _objects(kinds: Sequence[str], points: NDArray[np.int64]) -> tuple[SceneObject, ...]:
    nowhere = {"position_m": (0.0,) * 3, "quaternion_xyzw": (0.0,) * 4, "size_m": (0.0,) * 3}
    return tuple(
        SceneObject(i, str(kind), "", (int(x), int(y), int(x), int(y)), 1, 1.0, **nowhere)
        for i, (kind, (x, y)) in enumerate(zip(kinds, points, strict=True), start=1)
    )


def _query(
    rng: np.random.Generator,
    relation: str,
    names: Sequence[Sequence[str]],
    candidates: tuple[int, ...],
    meant: int,
) -> Query:
    *others, own = [pick(rng, usual) for usual in names]
    if relation in ENDS:
        x = words(rng, ENDS[relation], "train").format(k=own)
    else:
        a, b = [*(f"the {name}" for name in others), ""][:2]
        x = words(rng, RELATIONS[relation], "train").format(x=f"the {own}", a=a, b=b)
    text = frame(rng, PHRASINGS["relation"], "train").format(x=x)
    topic = ("relation", relation, own, "", "")
    anchors = tuple(range(1, candidates[0]))
    return Query("relation", text, (meant,), "train", topic, anchors, candidates)


def _only_what_follows(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Thoughts of which training teaches only what the listed places decide."""
    choice = next(i for i, chunk in enumerate(chunks) if chunk.text in ORDINALS)
    return [
        replace(chunk, object_id=0, given=True, looks_at=())
        if i < choice and not _is_computed(chunk)
        else replace(chunk, object_id=0)
        for i, chunk in enumerate(chunks)
    ]


def _is_computed(chunk: Chunk) -> bool:
    return chunk.text in COMPUTED_TEXTS or (chunk.text.isdigit() and not chunk.object_id)
