"""The table's world, as the reasoner's training sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.bundle.reasoner.tabletop.questions import QuestionSampler
from training.bundle.reasoner.tabletop.thoughts import NO, YES, think
from training.bundle.reasoner.world import World
from worlds.common.scene import Scene
from worlds.tabletop.object_classes import COLORS_RGB, MODELS
from worlds.tabletop.queries import ask
from worlds.tabletop.vocabulary import NAMES, QUERY_KINDS, UNKNOWN, UNKNOWN_USES


def read(folder: Path) -> tuple[Scene, None]:
    """Read a scene; its objects are all that questions need."""
    return Scene.from_json((folder / "scene.json").read_text()), None


def texts(scene_paths: Sequence[Path], seed: int) -> list[str]:
    """Questions and thoughts without the unknown words, to learn the tokens from."""
    rng = np.random.default_rng(seed)
    unknown = {*UNKNOWN.train, *UNKNOWN.test, *UNKNOWN_USES.train, *UNKNOWN_USES.test}
    found = []
    for path in scene_paths:
        objects = Scene.from_json(path.read_text()).objects
        for kind in QUERY_KINDS:
            query = ask(rng, objects, kind)
            if query is None or any(word in query.text for word in unknown):
                continue
            thoughts = think(objects, query, (640, 480))
            found += [query.text, "".join(chunk.text for chunk in thoughts)]
    return found + [f" {name}s" for names in NAMES.values() for name in names] * 50


WORLD = World(
    name="tabletop",
    kinds=tuple(MODELS),
    colors=tuple(COLORS_RGB),
    seen_size_px=336,
    close_up_share=0.0,
    mirror_share=0.5,
    query_kinds=QUERY_KINDS,
    kind_shares=(0.2, 0.17, 0.2, 0.15, 0.12, 0.16),
    fixed_texts=(YES, NO),
    read=read,
    sampler=QuestionSampler,
    texts=texts,
)
