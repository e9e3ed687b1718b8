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
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from worlds.libero.compose import compose
from worlds.libero.drawing import IMAGE_SIZE_WH, Drawing
from worlds.libero.kinds import KINDS
from worlds.libero.package import require
from worlds.libero.pools import Pool, block_of_seed, sample_pool
from worlds.libero.scene import Rest, Truth, read_scene, write_scene
from worlds.libero.stage import ARENAS, Piece, Stage, build_stage
from worlds.libero.truth import extent_of, find_supports
from worlds.libero.views import View, sample_view, vary_light
from worlds.libero.workbench import Layout
from worlds.tabletop.scene import Scene, SceneObject

MIN_VISIBLE_FRACTION = 0.5
MIN_AREA_PX = 150
_MIN_SEEN = {"agentview": 3, "hand": 2}  # movable things in an image
_VIEWS = 4  # of a layout
_LAYOUTS = 60  # of a seed
_ROUNDS = 4  # of taking away what is hardly seen


@dataclass(frozen=True, eq=False)
class Rendered:
    """A scene and its pixels.

    Attributes:
        scene: What every world tells.
        truth: What this world knows besides.
        color: uint8 [H, W, 3] RGB.
        depth_mm: uint16 [H, W]; 0 is unknown.
        instances: uint16 [H, W]; the object's id, 0 is background.
    """

    scene: Scene
    truth: Truth
    color: NDArray[np.uint8]
    depth_mm: NDArray[np.uint16]
    instances: NDArray[np.uint16]


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
            view = sample_view(rng, stage, layout.pieces)
            seen = None if view is None else _see(stage, drawing, layout, view, supports)
            if view is not None and seen is not None:
                return _rendered(stage, drawing, layout, view, seen, supports, seed)
    raise RuntimeError(f"seed {seed}: no clear view of {_LAYOUTS} layouts")


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a view shows: index + 1 of `pieces` for each pixel, and the pixels of each alone."""

    pieces: tuple[Piece, ...]
    indices: NDArray[np.uint16]
    alone_px: NDArray[np.float64]


def _see(
    stage: Stage, drawing: Drawing, layout: Layout, view: View, supports: dict[str, object]
) -> _Seen | None:
    """Look, take away what is hardly seen, and look again; None where that does not do."""
    for _ in range(_ROUNDS):
        pieces = tuple(layout.pieces)
        indices = drawing.instances(view.pose, pieces)
        alone = drawing.areas_alone(view.pose, pieces)
        areas = np.bincount(indices.ravel(), minlength=len(pieces) + 1)[1:]
        faint = [
            piece
            for piece, area, whole in zip(pieces, areas, alone, strict=True)
            if whole >= 1 and (area < MIN_AREA_PX or area < MIN_VISIBLE_FRACTION * whole)
        ]
        if not faint:
            movable = sum(area > 0 and not p.fixed for p, area in zip(pieces, areas, strict=True))
            return _Seen(pieces, indices, alone) if movable >= _MIN_SEEN[view.name] else None
        holders = {getattr(support, "holder", "") for support in supports.values()}
        if any(piece.name in holders for piece in faint):
            return None
        for piece in faint:
            stage.hide(piece)
            layout.pieces.remove(piece)
            supports.pop(piece.name, None)
    return None


def _rendered(
    stage: Stage,
    drawing: Drawing,
    layout: Layout,
    view: View,
    seen: _Seen,
    supports: dict[str, object],
    seed: int,
) -> Rendered:
    color, depth_mm = drawing.color_and_depth(view.pose)
    areas = np.bincount(seen.indices.ravel(), minlength=len(seen.pieces) + 1)[1:]
    ids: dict[str, int] = {}
    id_of_index = np.zeros(len(seen.pieces) + 1, dtype=np.uint16)
    for index, piece in enumerate(seen.pieces):
        if areas[index] > 0:
            ids[piece.name] = len(ids) + 1
            id_of_index[index + 1] = ids[piece.name]
    instances = id_of_index[seen.indices]
    objects = tuple(
        _object(stage, piece, ids[piece.name], instances, alone)
        for piece, alone in zip(seen.pieces, seen.alone_px, strict=True)
        if piece.name in ids
    )
    scene = Scene(
        seed=seed,
        image_size_wh=IMAGE_SIZE_WH,
        intrinsics=view.pose.intrinsics(),
        camera_position_m=_rounded(view.pose.position_m),
        camera_quaternion_xyzw=_rounded(view.pose.quaternion_xyzw()),
        objects=objects,
        queries=(),
    )
    truth = _truth(stage, layout, view, ids, supports)
    return Rendered(scene, truth, color, depth_mm, instances)


def _object(
    stage: Stage, piece: Piece, number: int, instances: NDArray[np.uint16], alone_px: float
) -> SceneObject:
    rows, columns = np.nonzero(instances == number)
    extent = extent_of(stage, piece)
    return SceneObject(
        id=number,
        kind=piece.kind,
        color=KINDS[piece.kind].color,
        box_xyxy=(
            int(columns.min()),
            int(rows.min()),
            int(columns.max()) + 1,
            int(rows.max()) + 1,
        ),
        area_px=len(rows),
        visible_fraction=round(min(1.0, len(rows) / max(alone_px, 1.0)), 3),
        position_m=_rounded(extent.center_m),
        quaternion_xyzw=_rounded(extent.quaternion_xyzw),
        size_m=_rounded(extent.size_m),
    )


def _truth(
    stage: Stage,
    layout: Layout,
    view: View,
    ids: dict[str, int],
    supports: dict[str, object],
) -> Truth:
    pieces = {piece.name: piece for piece in layout.pieces}
    rests = {
        ids[name]: Rest(support.relation, ids.get(support.holder, 0), support.part)
        for name, support in supports.items()
        if name in ids
    }
    extents = {}
    for name, number in ids.items():
        extent = extent_of(stage, pieces[name])
        extents[number] = (_rounded(extent.low_m), _rounded(extent.high_m))
    return Truth(
        arena=next(name for name, arena in ARENAS.items() if arena == stage.arena),
        view=view.name,
        surface_center_m=stage.arena.center_xyz_m,
        fixtures=tuple(number for name, number in ids.items() if pieces[name].fixed),
        rests=rests,
        extents_m=extents,
        drawers_m={ids[n]: gaps for n, gaps in layout.drawers.items() if n in ids},
        open_doors=tuple(sorted(ids[n] for n in layout.open_doors if n in ids)),
        lit=tuple(sorted(ids[n] for n in layout.lit if n in ids)),
        hidden_kinds=tuple(sorted({p.kind for p in layout.pieces if p.name not in ids})),
    )


def _rounded(values: object) -> tuple:
    return tuple(round(float(v), 5) + 0.0 for v in np.asarray(values, dtype=float))


def save_rendered(folder: Path, rendered: Rendered) -> None:
    """Write one folder; `scene.json` comes last, so that its presence means complete."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rendered.color).save(folder / "color.png", compress_level=4)
    Image.fromarray(rendered.depth_mm).save(folder / "depth.png", compress_level=4)
    Image.fromarray(rendered.instances).save(folder / "instances.png", compress_level=4)
    write_scene(folder / "scene.json", rendered.scene, rendered.truth)


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
    with Drawing(stage) as drawing:
        for seed in missing:
            save_rendered(_folder(out, first_seed, seed), render_scene(stage, drawing, pool, seed))
            yield seed


def is_done(folder: Path, seed: int) -> bool:
    """Whether a folder holds the whole scene of a seed."""
    try:
        scene, _ = read_scene(folder / "scene.json")
    except (OSError, ValueError):
        return False
    return scene.seed == seed


def _folder(out: Path, first_seed: int, seed: int) -> Path:
    return out / f"{seed - first_seed:06d}"


def _render_block_in_worker(first_seed: int, seeds: Sequence[int], out: Path) -> int:
    require()
    return sum(1 for _ in render_block(first_seed, seeds, out))


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
        with tqdm(total=args.count, desc="rendering", unit="scene") as bar:
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
    # A process for each block's stage would forget the meshes that the last one compiled.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as executor:
        futures = [
            executor.submit(_render_block_in_worker, first_seed, seeds, out) for seeds in blocks
        ]
        for future in as_completed(futures):
            yield future.result()


if __name__ == "__main__":
    sys.exit(main())
