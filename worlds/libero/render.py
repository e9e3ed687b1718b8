"""Renders scenes into folders: `python -m worlds.libero.render --seed S --count N --out DIR`.

Scene `i` has the seed S + i and depends on nothing else, so that folders can be made again, in
parts and in parallel. Seeds below 800,000 are for training, below 1,000,000 for validation, the
rest for tests. Killed and started again, it goes on where it was.

Needs the extra `libero` (`make libero-setup`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segzero_core.terminal.progress_bar import ProgressBar
from worlds.libero.ask import queries_of
from worlds.libero.composition.compose import compose
from worlds.libero.composition.pools import Pool, block_of_seed, sample_pool
from worlds.libero.composition.workbench import Layout
from worlds.libero.package import benchmark_texts, require
from worlds.libero.record import Rendered, Seen, is_done, look, record, save_rendered
from worlds.libero.simulation.arenas import ARENAS
from worlds.libero.simulation.drawing import Drawing
from worlds.libero.simulation.stage import Stage, build_stage
from worlds.libero.simulation.views import View, sample_view, vary_light
from worlds.libero.truth import Support, find_supports

MIN_VISIBLE_FRACTION = 0.5
MIN_AREA_PX = 150
_MIN_SEEN = {"agentview": 3, "hand": 2}  # movable objects in an image
_VIEWS = 4  # of a layout
_LAYOUTS = 60  # of a seed
_BLOCKS_PER_PROCESS = 2
_ROUNDS = 4  # of taking away what is hardly seen


def render_scene(stage: Stage, drawing: Drawing, pool: Pool, seed: int) -> Rendered:
    """Compose scenes of a seed until one can be seen well.

    Args:
        stage: Built from the pool.
        drawing: Draws the stage.
        pool: Of the seed's block.
        seed: Decides everything.

    Raises:
        RuntimeError: No scene of this seed could be seen well (never met).
    """
    for attempt in range(_LAYOUTS):
        rng = np.random.default_rng((seed, attempt))
        layout = compose(rng, stage, pool)
        if layout is None:
            continue
        vary_light(rng, stage)
        supports = find_supports(stage, layout)
        for _ in range(_VIEWS):
            view = sample_view(rng, stage, layout.objects)
            seen = None if view is None else _see(stage, drawing, layout, view, supports)
            if view is not None and seen is not None:
                return record(stage, drawing, layout, view, seen, supports, seed)
    raise RuntimeError(f"seed {seed}: no clear view of {_LAYOUTS} layouts")


def _see(
    stage: Stage, drawing: Drawing, layout: Layout, view: View, supports: dict[str, Support]
) -> Seen | None:
    """Look, take away what is hardly seen, and look again; None where that does not do."""
    for _ in range(_ROUNDS):
        seen = look(drawing, view, layout.objects)
        faint = [
            obj
            for obj, area, whole in zip(seen.objects, seen.areas_px, seen.alone_px, strict=True)
            if whole >= 1 and (area < MIN_AREA_PX or area < MIN_VISIBLE_FRACTION * whole)
        ]
        if not faint:
            movable = [
                area for p, area in zip(seen.objects, seen.areas_px, strict=True) if not p.fixed
            ]
            return seen if np.count_nonzero(movable) >= _MIN_SEEN[view.name] else None
        holders = {support.holder for support in supports.values()}
        if any(obj.name in holders for obj in faint):
            return None
        for obj in faint:
            stage.hide(obj)
            layout.objects.remove(obj)
            supports.pop(obj.name, None)
    return None


def render_block(first_seed: int, seeds: Sequence[int], out: Path) -> Iterator[int]:
    """Render those scenes of one block that `out` lacks; yields each seed when it is there.

    Args:
        first_seed: Of the whole run: folder names count from it.
        seeds: Of one block.
        out: The folder of folders.
    """
    missing = [s for s in seeds if not is_done(_folder(out, first_seed, s), s)]
    yield from (s for s in seeds if s not in missing)
    if not missing:
        return
    pool = sample_pool(block_of_seed(missing[0]))
    stage = build_stage(ARENAS[pool.arena], pool.movables, pool.fixtures, pool.style)
    forbidden = benchmark_texts()
    with Drawing(stage) as drawing:
        for seed in missing:
            rendered = render_scene(stage, drawing, pool, seed)
            queries = queries_of(rendered.scene, rendered.truth, forbidden)
            rendered = replace(rendered, scene=replace(rendered.scene, queries=queries))
            save_rendered(_folder(out, first_seed, seed), rendered)
            yield seed


def _folder(out: Path, first_seed: int, seed: int) -> Path:
    return out / f"{seed - first_seed:06d}"


def _render_block_in_worker(work: tuple[int, Sequence[int], Path]) -> int:
    require()
    return sum(1 for _ in render_block(*work))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worlds.libero.render", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="seed of the first scene (>= 0)")
    parser.add_argument("--count", type=int, required=True, help="number of scenes (>= 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    args = parser.parse_args(argv)
    if args.seed < 0 or args.count < 1 or args.jobs < 1:
        parser.error("--seed must be at least 0, --count and --jobs at least 1")
    blocks: dict[int, list[int]] = {}
    for seed in range(args.seed, args.seed + args.count):
        blocks.setdefault(block_of_seed(seed), []).append(seed)
    try:
        require()
        with ProgressBar(total=args.count, desc="rendering", unit="scene") as bar:
            for count in _run(args.seed, list(blocks.values()), args.out, args.jobs):
                bar.update(count)
    except (RuntimeError, OSError) as error:
        print(f"worlds.libero.render: error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(first_seed: int, blocks: list[list[int]], out: Path, jobs: int) -> Iterator[int]:
    if jobs == 1:
        for seeds in blocks:
            for _ in render_block(first_seed, seeds, out):
                yield 1
        return
    # MuJoCo keeps compiled meshes for the next stage, and more with each: a process ends in time.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=_BLOCKS_PER_PROCESS) as workers:
        work = [(first_seed, seeds, out) for seeds in blocks]
        yield from workers.imap_unordered(_render_block_in_worker, work)


if __name__ == "__main__":
    sys.exit(main())
