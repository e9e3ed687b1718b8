"""A scene of LIBERO's objects that needs no renderer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.worlds.libero.conftest import SceneBuilder
from worlds.libero.scene import write_scene


def write_drawn_scene(out: Path) -> Path:
    """Write a scene of two bowls, a ramekin and a plate, drawn as rectangles; return `out`."""
    builder = SceneBuilder()
    for kind, x, y in (
        ("akita_black_bowl", -0.3, 0.0),
        ("akita_black_bowl", 0.3, 0.1),
        ("glazed_rim_porcelain_ramekin", -0.16, 0.0),
        ("plate", 0.0, 0.3),
    ):
        builder.add(kind, x, y)
    scene, truth = builder.build()
    out.mkdir(parents=True)
    instances = np.zeros((640, 640), np.uint16)
    for item in scene.objects:
        x0, y0, x1, y1 = item.box_xyxy
        instances[y0:y1, x0:x1] = item.id
    write_scene(out / "scene.json", scene, truth)
    Image.fromarray(instances).save(out / "instances.png")
    color = np.repeat((instances * 40).astype(np.uint8)[..., None], 3, axis=2)
    Image.fromarray(color).save(out / "color.png")
    return out
