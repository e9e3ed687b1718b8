"""LIBERO's world, as the reasoner's training sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.bundle.reasoner.libero.questions import QuestionSampler
from training.bundle.reasoner.libero.thoughts import (
    DISTANCES,
    FIXED_TEXTS,
    SEEN_SIZE_PX,
    WORDS,
    think,
)
from training.bundle.reasoner.text import Prompt
from training.bundle.reasoner.world import SeenScene, World
from worlds.common.scene import Scene
from worlds.libero.object_classes import OBJECT_CLASSES
from worlds.libero.package import benchmark_texts
from worlds.libero.queries.facts import SceneFacts
from worlds.libero.queries.generate import ask
from worlds.libero.queries.vocabulary import QUERY_KINDS
from worlds.libero.scene import read_scene

_COLORS = (
    "", "black", "blue", "brown", "gray", "green", "orange", "pink", "purple", "red", "silver",
    "white", "yellow",
)  # fmt: skip
_NAMES = sorted({name for kind in OBJECT_CLASSES.values() for name in kind.names})
_QUESTIONS_PER_SCENE = 3  # of each kind, to learn the tokens from


def read(folder: Path) -> tuple[Scene, SceneFacts]:
    """Read a scene, and what its questions are made from."""
    scene, truth = read_scene(folder / "scene.json")
    return scene, SceneFacts(scene, truth)


def texts(scene_paths: Sequence[Path], seed: int) -> list[str]:
    """Questions and thoughts without the unknown words, to learn the tokens from."""
    rng = np.random.default_rng(seed)
    forbidden = benchmark_texts()
    nothing = Prompt((0, 0, 1, 1), ((0, 0), (0, 0)))
    found = []
    for path in scene_paths:
        scene, facts = read(path.parent)
        prompts = dict.fromkeys((item.id for item in scene.objects), nothing)
        seen = SeenScene(scene.objects, prompts, scene.image_size_wh, facts)
        for kind in QUERY_KINDS * _QUESTIONS_PER_SCENE:
            query = ask(rng, facts, kind, "train", forbidden)
            if query is None or query.topic[0].startswith("unknown"):
                continue
            for style in (DISTANCES, WORDS):
                found.append("".join(chunk.text for chunk in think(query, seen, style)))
            found.append(query.text.lower())
    return found + [f" {name}{end}" for name in _NAMES for end in ("", "s")] * 30


WORLD = World(
    name="libero",
    kinds=tuple(OBJECT_CLASSES),
    colors=_COLORS,
    seen_size_px=SEEN_SIZE_PX,
    # Boxes under 100 pixels of 640x480, where close-ups gave the better masks.
    close_up_share=0.21,
    mirror_share=0.3,
    query_kinds=QUERY_KINDS,
    kind_shares=(0.15, 0.06, 0.2, 0.06, 0.09, 0.14, 0.2, 0.1),
    fixed_texts=FIXED_TEXTS,
    read=read,
    sampler=QuestionSampler,
    texts=texts,
)
