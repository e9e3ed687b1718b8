"""Renders tables into folders: `python -m worlds.tabletop.render --seed S --count N --out DIR`.

Scene `i` has the seed S + i and depends on nothing else, so that folders can be made again, in
parts and in parallel. Seeds below 800,000 are for training, below 1,000,000 for validation, the
rest for tests.

With `--extra-kind NAME`, about two of three tables have an object of a kind that the vocabulary
lacks. There are no words for it, so such scenes come without questions; `worlds.tabletop.coco`
writes their labels.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np

from segzero_core.terminal.progress_bar import ProgressBar
from worlds.common.camera_pose import IMAGE_SIZE_WH, CameraPose
from worlds.common.scene import Scene, SceneObject, save_scene, split_of_seed
from worlds.tabletop.camera import Camera, RenderedImage, sample_camera
from worlds.tabletop.extra_classes import EXTRA_MODELS
from worlds.tabletop.queries import ask_each_kind
from worlds.tabletop.world import (
    MAX_WORLDS,
    MIN_OBJECTS,
    ObjectSpec,
    World,
    build_world,
    put_extra,
    sample_objects,
    settled_tables,
)

MIN_VISIBLE_FRACTION = 0.5
MIN_AREA_PX = 350
MARGIN_PX = 12  # the middle of every object's box is at least so far inside the image
EXTRA_CHANCE = 2 / 3  # how often a table has the extra kind, where one is asked for


def render_scene(
    camera: Camera, seed: int, extra_kind: str | None = None
) -> tuple[Scene, RenderedImage]:
    """Build the tables of a seed until one can be seen well, and look at it.

    `extra_kind`, a key of `EXTRA_MODELS`, may stand there too; the scene then has no questions.

    Raises:
        RuntimeError: No table of this seed could be seen well (never met in a million seeds'
        sample).
    """
    test = split_of_seed(seed) == "test"

    def build(rng: np.random.Generator) -> World | None:
        specs = sample_objects(rng, with_test_only=test)
        return build_world(rng, _with_extra(specs, seed, extra_kind) if extra_kind else specs)

    for rng, world, center in settled_tables((seed,), build, MIN_OBJECTS):
        pose = sample_camera(rng, center)
        image, objects = _shoot(camera, world, pose)
        if objects is not None:
            queries = () if extra_kind else ask_each_kind(rng, objects, test=test)
            return _scene(seed, pose, objects, queries), image
    raise RuntimeError(f"seed {seed}: no clear view of {MAX_WORLDS} tables")


def _with_extra(specs: tuple[ObjectSpec, ...], seed: int, kind: str) -> tuple[ObjectSpec, ...]:
    """Draw lots of their own: the same in every attempt, and none taken from the seed's others."""
    rng = np.random.default_rng((seed, zlib.crc32(kind.encode())))
    return put_extra(rng, specs, kind) if rng.random() < EXTRA_CHANCE else specs


def _shoot(
    camera: Camera, world: World, pose: CameraPose
) -> tuple[RenderedImage, tuple[SceneObject, ...] | None]:
    """The image and its objects; None unless each is in the image and half visible."""
    image, alone_px = camera.shoot_with_areas(world, pose)
    height, width = image.instances.shape
    objects = []
    for i, (item, body) in enumerate(zip(world.objects, world.bodies, strict=True)):
        rows, columns = np.nonzero(image.instances == i + 1)
        if len(rows) < max(MIN_AREA_PX, MIN_VISIBLE_FRACTION * alone_px[i]):
            return image, None
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        inside_x = MARGIN_PX <= x <= width - MARGIN_PX
        if not (inside_x and MARGIN_PX <= y <= height - MARGIN_PX):
            return image, None
        w, *xyz = world.data.xquat[body]
        objects.append(
            SceneObject(
                id=i + 1,
                kind=item.kind,
                color=item.color,
                box_xyxy=(int(box[0]), int(box[1]), int(box[2]), int(box[3])),
                area_px=len(rows),
                visible_fraction=round(min(1.0, len(rows) / alone_px[i]), 3),
                position_m=_rounded(world.data.xpos[body]),
                quaternion_xyzw=_rounded([*xyz, w]),
                size_m=_rounded(np.array(item.size_m)),
            )
        )
    return image, tuple(objects)


def _scene(seed: int, pose: CameraPose, objects: tuple[SceneObject, ...], queries: tuple) -> Scene:
    return Scene(
        seed=seed,
        image_size_wh=IMAGE_SIZE_WH,
        intrinsics=pose.intrinsics(),
        camera_position_m=_rounded(pose.position_m),
        camera_quaternion_xyzw=_rounded(pose.quaternion_xyzw()),
        objects=objects,
        queries=queries,
    )


def _rounded(values: object) -> tuple:
    return tuple(round(float(v), 6) for v in np.asarray(values, dtype=float))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worlds.tabletop.render", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="seed of the first scene (>= 0)")
    parser.add_argument("--count", type=int, required=True, help="number of scenes (>= 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--extra-kind", choices=sorted(EXTRA_MODELS), help="a kind outside the vocabulary"
    )
    args = parser.parse_args(argv)
    if args.seed < 0 or args.count < 1:
        parser.error("--seed must be at least 0 and --count at least 1")
    try:
        with Camera() as camera:
            for index in ProgressBar(range(args.count), desc="rendering", unit="scene"):
                folder = args.out / f"{index:06d}"
                if _is_done(folder, args, index):
                    continue
                scene, image = render_scene(camera, args.seed + index, args.extra_kind)
                save_scene(folder, scene, image.color, image.depth_mm, image.instances)
    except (RuntimeError, OSError) as error:
        print(f"worlds.tabletop.render: error: {error}", file=sys.stderr)
        return 2
    return 0


def _is_done(folder: Path, args: argparse.Namespace, index: int) -> bool:
    try:
        scene = Scene.from_json((folder / "scene.json").read_text())
    except (OSError, ValueError):
        return False
    return scene.seed == args.seed + index and bool(scene.queries) != bool(args.extra_kind)


if __name__ == "__main__":
    sys.exit(main())
