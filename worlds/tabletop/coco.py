"""Writes the labels of rendered tables as COCO.

    python -m worlds.tabletop.coco --scenes DIR --out FILE

One instances file for the whole folder, as annotation tools export it; the images are named
relative to DIR. With `--kinds`, only these are labeled, as by somebody who needs nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worlds.common.scene import Scene, load_scene


def coco_labels(data: Path, kinds: Sequence[str] | None = None) -> dict[str, Any]:
    """Collect the labels of a rendered folder; by default of all kinds that occur.

    Raises:
        ValueError: There is no scene, one is damaged, or none shows anything to label.
        OSError: A image cannot be read.
    """
    folders = sorted(path.parent for path in data.glob("*/scene.json"))
    if not folders:
        raise ValueError(f"{data} holds no rendered scenes (*/scene.json)")
    scenes = [(folder, *_scene_and_instances(folder)) for folder in folders]
    seen = {item.kind for _, scene, _ in scenes for item in scene.objects}
    if missing := sorted(set(kinds or ()) - seen):
        raise ValueError(f"{data}: no scene shows a {missing[0]}; there are {sorted(seen)}")
    numbers = {kind: number for number, kind in enumerate(sorted(kinds or seen), 1)}
    images, annotations = [], []
    for image_id, (folder, scene, instances) in enumerate(scenes, 1):
        width, height = scene.image_size_wh
        name = f"{folder.name}/color.png"
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for item in scene.objects:
            if item.kind in numbers:
                x0, y0, x1, y1 = item.box_xyxy
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": numbers[item.kind],
                        "segmentation": _runs(instances == item.id),
                        "area": item.area_px,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": number, "name": kind} for kind, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _scene_and_instances(folder: Path) -> tuple[Scene, NDArray[np.uint16]]:
    try:
        scene, _, _, instances = load_scene(folder)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return scene, instances


def _runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Count the pixels column by column, off and on in turn, as COCO's uncompressed runs."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff([0, *changes, len(pixels)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[0] else counts}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worlds.tabletop.coco", description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True, help="a rendered folder")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--kinds", nargs="+", help="label only these kinds")
    args = parser.parse_args(argv)
    try:
        labels = coco_labels(args.scenes, args.kinds)
        args.out.write_text(json.dumps(labels) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"worlds.tabletop.coco: error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(labels['annotations'])} objects on {len(labels['images'])} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
