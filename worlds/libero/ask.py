"""Writes questions into rendered folders, anew: `python -m worlds.libero.ask DIR`.

Questions come from the truth that stands in each `scene.json` and from the scene's seed alone, so
that other phrasings need no rendering. None of the benchmark's own instructions is asked: that
needs the extra `libero`, which knows them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from segzero_core.terminal.progress_bar import ProgressBar
from worlds.common.scene import Query, Scene, split_of_seed
from worlds.libero.package import benchmark_texts
from worlds.libero.queries.generate import ask_each_kind
from worlds.libero.scene import Truth, read_scene, write_scene

_STREAM = 8  # keeps the questions' chances apart from those of the scene


def queries_of(
    scene: Scene, truth: Truth, forbidden: frozenset[str], draw: int = 0
) -> tuple[Query, ...]:
    """The questions of a scene.

    Args:
        scene: Its seed decides them.
        truth: What they are made from.
        forbidden: Normalised texts that may stand in none.
        draw: Another number gives other questions about the same scene.
    """
    rng = np.random.default_rng((scene.seed, _STREAM, draw))
    test = split_of_seed(scene.seed) == "test"
    return ask_each_kind(rng, scene, truth, test=test, forbidden=forbidden)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worlds.libero.ask", description=__doc__)
    parser.add_argument("folder", type=Path, help="what `worlds.libero.render` wrote")
    args = parser.parse_args(argv)
    try:
        forbidden = benchmark_texts()
        paths = sorted(args.folder.glob("*/scene.json"))
        if not paths:
            raise OSError(f"{args.folder} holds no rendered scene")
        for path in ProgressBar(paths, desc="asking", unit="scene"):
            scene, truth = read_scene(path)
            queries = queries_of(scene, truth, forbidden)
            write_scene(path, replace(scene, queries=queries), truth)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"worlds.libero.ask: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
