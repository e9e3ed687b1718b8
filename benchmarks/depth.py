"""How fast and how true objects are measured: 5 ms an object, 5 mm, 5 % at the median.

    python -m benchmarks.depth --check
    python -m benchmarks.depth --scenes 20 --seed 1000000 --json depth.json
    python -m benchmarks.depth --data data/test --scenes 100

Scenes are rendered (`tabletop`), or read from folders that `worlds.tabletop.render` wrote. True
masks are used, of objects that nothing hides and that the image's border does not cut. True
depth is in whole millimetres, as cameras tell it. The truth of a place is the middle of the
object, the truth of its size the object's own extents along its own axes; both only of convex
kinds. (A lemon's smallest box lies askew to its own axes: that counts as an error.)

The time is that of the processor (one thread) for everything from mask and depth to box and
grasps, the best of `--repeats` for each object, so that what else runs on the machine counts
little.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks.figures import conclude, new_parser
from segzero_core.config import GraspConfig
from segzero_core.depth import (
    CameraModel,
    border_pixels,
    depth_in_meters,
    measure_object,
)
from segzero_core.errors import InputError
from segzero_core.terminal.progress_bar import ProgressBar
from worlds.common.scene import Scene, SceneObject, load_scene

SCENES, SEED, REPEATS = 60, 1_000_000, 5
TARGET_MM, TARGET_PERCENT, TARGET_MS = 5.0, 5.0, 5.0
MIN_VISIBLE = 0.97
CONVEX = ("ball", "book", "bottle", "box", "can", "lemon", "phone", "plate")
"""Kinds whose truth a box can tell; a stalk or a handle puts the middle elsewhere."""

Shot = tuple[Scene, NDArray[np.uint16], NDArray[np.uint16]]


def rendered(seed: int, count: int) -> Iterator[Shot]:
    """Render scenes one after the other."""
    from worlds.tabletop.camera import Camera
    from worlds.tabletop.render import render_scene

    with Camera() as camera:
        for index in range(count):
            scene, image = render_scene(camera, seed + index)
            yield scene, image.depth_mm, image.instances


def stored(folder: Path, count: int) -> Iterator[Shot]:
    """Read scenes of a folder."""
    for place in sorted(path.parent for path in folder.glob("*/scene.json"))[:count]:
        scene, _, depth_mm, instances = load_scene(place)
        yield scene, depth_mm, instances


def camera_of(scene: Scene) -> CameraModel:
    """Return the camera; the renderer's origin is a pixel's corner, the library's its centre."""
    fx, fy, cx, cy = (scene.intrinsics[name] for name in ("fx", "fy", "cx", "cy"))
    k = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    return CameraModel(k, (), scene.image_size_wh)


def true_size(obj: SceneObject) -> NDArray[np.float64]:
    """Return the extents as a box tells them: the longer side lying, the shorter, the height."""
    axes = Rotation.from_quat(obj.quaternion_xyzw).as_matrix()
    size = np.array(obj.size_m)
    upright = int(np.abs(axes[2]).argmax())
    lying = np.sort(np.delete(size, upright))[::-1]
    return np.array([*lying, size[upright]])


def measure_scene(shot: Shot, repeats: int, grasping: GraspConfig) -> Iterator[dict[str, Any]]:
    """Yield what came of each object of a scene."""
    scene, depth_mm, instances = shot
    camera, depth_m = camera_of(scene), depth_in_meters(depth_mm, "16UC1")
    turn = Rotation.from_quat(scene.camera_quaternion_xyzw).as_matrix()
    for obj in scene.objects:
        mask = instances == obj.id
        if obj.visible_fraction < MIN_VISIBLE or border_pixels(mask):
            continue
        seconds = []
        try:
            for _ in range(repeats):
                started = time.thread_time()
                found = measure_object(mask, depth_m, camera, grasping=grasping)
                seconds.append(time.thread_time() - started)
        except InputError as error:
            yield {"kind": obj.kind, "error": str(error)}
            continue
        centre = turn @ found.box.center_m + np.array(scene.camera_position_m)
        size = true_size(obj)
        yield {
            "kind": obj.kind,
            "ms": 1000 * min(seconds),
            "centre_mm": 1000 * float(np.linalg.norm(centre - np.array(obj.position_m))),
            "axes_percent": (100 * np.abs(found.box.size_m / size - 1)).tolist(),
            "grasps": len(found.grasps),
        }


def summary(rows: list[dict[str, Any]], scenes: int) -> dict[str, Any]:
    """Return the medians, over all convex objects and for each kind."""
    good = [row for row in rows if "error" not in row]
    convex = [row for row in good if row["kind"] in CONVEX]
    kinds = {
        kind: {
            "n": sum(row["kind"] == kind for row in good),
            "centre_mm": _median(good, "centre_mm", kind),
            "axes_percent": _median(good, "axes_percent", kind),
            "with_grasps": float(
                np.mean([row["grasps"] > 0 for row in good if row["kind"] == kind])
            ),
        }
        for kind in sorted({row["kind"] for row in good})
    }
    return {
        "scenes": scenes,
        "objects": len(rows),
        "not_measured": len(rows) - len(good),
        "convex": len(convex),
        "centre_mm": _median(convex, "centre_mm"),
        "axes_percent": _median(convex, "axes_percent"),
        "ms": _median(good, "ms"),
        "ms_p95": round(float(np.quantile([row["ms"] for row in good], 0.95)), 2),
        "kinds": kinds,
    }


def _median(rows: list[dict[str, Any]], name: str, kind: str = "") -> Any:
    values = np.array([row[name] for row in rows if kind in ("", row["kind"])])
    return np.round(np.median(values, axis=0), 2).tolist()


def report(figures: dict[str, Any]) -> None:
    print(f"{'kind':12} {'n':>4} {'centre':>9} {'longer':>8} {'shorter':>8} {'height':>8}  grasps")
    for kind, row in figures["kinds"].items():
        axes = " ".join(f"{value:6.1f} %" for value in row["axes_percent"])
        share = f"{100 * row['with_grasps']:.0f} %"
        print(f"{kind:12} {row['n']:4} {row['centre_mm']:6.1f} mm {axes}  {share}")
    axes = ", ".join(f"{value:g} %" for value in figures["axes_percent"])
    print(
        f"{figures['convex']} convex objects of {figures['scenes']} scenes, medians: centre "
        f"{figures['centre_mm']:g} mm (target {TARGET_MM:g}), axes {axes} (target "
        f"{TARGET_PERCENT:g} %), {figures['ms']:g} ms (target {TARGET_MS:g}; 95th percentile "
        f"{figures['ms_p95']:g})"
    )


def main(argv: list[str] | None = None) -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--seed", type=int, default=SEED, help="of the first rendered scene")
    parser.add_argument("--data", type=Path, help="folder of rendered scenes, in place of a seed")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="measurements of each object")
    args = parser.parse_args(argv)
    if args.scenes < 1 or args.repeats < 1:
        parser.error("--scenes and --repeats must be at least 1")
    shots = stored(args.data, args.scenes) if args.data else rendered(args.seed, args.scenes)
    rows, count = [], 0
    for shot in ProgressBar(shots, desc="measuring", unit="scene", total=args.scenes):
        rows += measure_scene(shot, args.repeats, GraspConfig())
        count += 1
    if not any(row["kind"] in CONVEX and "error" not in row for row in rows):
        parser.error(f"there is no convex object to measure in {count} scenes")
    figures = summary(rows, count)
    report(figures)
    missed = (
        figures["not_measured"] > 0
        or figures["centre_mm"] > TARGET_MM
        or max(figures["axes_percent"]) > TARGET_PERCENT
        or figures["ms"] > TARGET_MS
    )
    return conclude(args, figures, missed=missed)


if __name__ == "__main__":
    sys.exit(main())
