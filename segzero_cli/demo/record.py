"""Record the demo's clip: `python -m segzero_cli.demo.record [--seed S] [--out demo/clip.mcap]`.

Renders test scenes (seeds that training never saw) one after the other and takes one for each kind
of question. With `--model` it takes the first scenes whose questions that model answers well
enough for the demo: the clip shows what the model can do; how often, `segzero evaluate` measures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from segzero_cli.demo.clip import Take, write_clip
from segzero_core.geometry import MATCH_IOU, mask_iou
from worlds.tabletop.scene import Query

KINDS: Final = ("name", "attribute", "relation", "function", "many", "none")
FIRST_SEED: Final = 1_500_000
MAX_SCENES: Final = 200
MAX_BYTES: Final = 6_000_000


def render_takes(seed: int) -> Iterator[list[Take]]:
    """Render one scene after the other; each comes once for every question about it."""
    from worlds.tabletop.camera import Camera
    from worlds.tabletop.render import render_scene

    with Camera() as camera:
        for index in range(MAX_SCENES):
            scene, picture = render_scene(camera, seed + index)
            pixels = (picture.color, picture.depth_mm, picture.instances)
            yield [Take(scene, query, *pixels) for query in scene.queries]


def choose(scenes: Iterator[list[Take]], accept: Callable[[Take], bool]) -> dict[str, Take]:
    """Choose a scene for each kind of question, each scene once.

    Raises:
        RuntimeError: Not every kind has an accepted one.
    """
    chosen: dict[str, Take] = {}
    for takes in scenes:
        for take in takes:
            if take.question.kind not in chosen and accept(take):
                chosen[take.question.kind] = take
                print(f"{take.question.kind}: {take.question.text!r}, seed {take.scene.seed}")
                break
        if set(chosen) == set(KINDS):
            return {kind: chosen[kind] for kind in KINDS}
    missing = ", ".join(kind for kind in KINDS if kind not in chosen)
    raise RuntimeError(f"no scene among {MAX_SCENES} has an accepted question for: {missing}")


def judge(model: str) -> Callable[[Take], bool]:
    """Return whether a model answers a question about a scene well enough for the demo."""
    from segzero_core import SegZero, SegZeroError

    pipeline = SegZero.load(model)

    def accept(take: Take) -> bool:
        try:
            result = pipeline.segment(take.color, take.question.text)
        except SegZeroError:
            return False
        return mask_iou(result.segmentation.union(), take.truth()) >= MATCH_IOU

    return accept


def is_short(query: Query) -> bool:
    """Whether a question reads well in one line of a terminal."""
    return len(query.text) <= 60


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m segzero_cli.demo.record", description=__doc__)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first scene")
    parser.add_argument("--out", type=Path, default=Path("demo/clip.mcap"))
    parser.add_argument("--model", help="take only questions that this model answers")
    arguments = parser.parse_args(argv)
    answers = judge(arguments.model) if arguments.model else lambda _take: True
    scenes = render_takes(arguments.seed)
    takes = choose(scenes, lambda take: is_short(take.question) and answers(take))
    write_clip(arguments.out, takes.values())
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {len(takes)} shots, {size / 1e6:.2f} MB")
    if size > MAX_BYTES:
        print(f"that is more than {MAX_BYTES / 1e6:g} MB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
