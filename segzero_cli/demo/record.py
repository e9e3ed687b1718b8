"""Record the demo's clip: `python -m segzero_cli.demo.record [--seed S] [--out demo/clip.mcap]`.

Renders test scenes of the table (seeds that training never saw), or reads the rendered folders of
`--scenes`, and chooses one scene for each kind of query. With `--model` it chooses the first
scenes whose queries that model answers well enough for the demo: the clip shows what the model
can do; `segzero evaluate` measures how often it does. LIBERO's clip:

    python -m segzero_cli.demo.record --scenes SUITE_FOLDER ... --model libero \
        --kinds instruction object place none --out demo/libero.mcap
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

from segzero_cli.demo.clip import CLIP, Shot, write_clip
from segzero_core.geometry import MATCH_IOU, mask_iou
from worlds.common.scene import load_scene

KINDS: Final = ("name", "attribute", "relation", "function", "many", "none")
FIRST_SEED: Final = 1_500_000
MAX_SCENES: Final = 200
MAX_BYTES: Final = 4_000_000
MAX_QUERY_CHARS: Final = 76
"""Of a query that fits into one line of a terminal."""


def render_shots(seed: int) -> Iterator[list[Shot]]:
    """Render scene after scene; yield each once for every query about it."""
    from worlds.tabletop.camera import Camera
    from worlds.tabletop.render import render_scene

    with Camera() as camera:
        for index in range(MAX_SCENES):
            scene, image = render_scene(camera, seed + index)
            pixels = (image.color, image.depth_mm, image.instances)
            yield [Shot(scene, query, *pixels) for query in scene.queries]


def read_shots(folders: Sequence[Path]) -> Iterator[list[Shot]]:
    """Read rendered scenes, one of each folder in turn; each once for every query about it."""
    rows = [sorted(path.parent for path in folder.glob("*/scene.json")) for folder in folders]
    for scenes in zip_longest(*rows):
        for scene_folder in filter(None, scenes):
            scene, *pixels = load_scene(scene_folder)
            yield [Shot(scene, query, *pixels) for query in scene.queries]


def choose(
    scenes: Iterator[list[Shot]], accept: Callable[[Shot], bool], kinds: Sequence[str] = KINDS
) -> dict[str, Shot]:
    """Choose a scene for each kind of query, each scene once; a RuntimeError if none is left."""
    chosen: dict[str, Shot] = {}
    for shots in scenes:
        for shot in shots:
            kind = shot.question.kind
            if kind in kinds and kind not in chosen and accept(shot):
                chosen[kind] = shot
                print(f"{kind}: {shot.question.text!r}, seed {shot.scene.seed}")
                break
        if set(chosen) == set(kinds):
            return {kind: chosen[kind] for kind in kinds}
    missing = ", ".join(kind for kind in kinds if kind not in chosen)
    raise RuntimeError(f"no scene has an accepted query for: {missing}")


def judge(model: str) -> Callable[[Shot], bool]:
    """Return a function that says whether a model answers a shot well enough for the demo."""
    from segzero_core import SegZero, SegZeroError

    pipeline = SegZero.load(model)

    def accept(shot: Shot) -> bool:
        try:
            result = pipeline.segment(shot.color, shot.question.text)
        except SegZeroError:
            return False
        return mask_iou(result.segmentation.union(), shot.truth()) >= MATCH_IOU

    return accept


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m segzero_cli.demo.record", description=__doc__)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first scene")
    parser.add_argument("--scenes", type=Path, nargs="+", help="rendered folders to take instead")
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="kinds of query, in order")
    parser.add_argument("--out", type=Path, default=CLIP)
    parser.add_argument("--model", help="choose only queries that this model answers")
    arguments = parser.parse_args(argv)
    answers = judge(arguments.model) if arguments.model else lambda _shot: True

    def accept(shot: Shot) -> bool:
        return len(shot.question.text) <= MAX_QUERY_CHARS and answers(shot)

    source = read_shots(arguments.scenes) if arguments.scenes else render_shots(arguments.seed)
    shots = choose(source, accept, arguments.kinds)
    write_clip(arguments.out, shots.values())
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {len(shots)} shots, {size / 1e6:.2f} MB")
    if size > MAX_BYTES:
        print(f"that is more than {MAX_BYTES / 1e6:g} MB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
