"""Rendered folders without a renderer: colored ellipses and boxes, with their true masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from training.data.prepare import main as prepare
from worlds.common.scene import Query, Scene, SceneObject, save_scene

WIDTH, HEIGHT = 160, 120


def write_scene(folder: Path, seed: int = 0, queries: tuple[Query, ...] | None = None) -> Path:
    """Write one small scene: id 1 a red square, id 2 a green circle, id 3 a blue square."""
    rng = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image += rng.integers(0, 20, image.shape, dtype=np.uint8)
    instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    instances[10:70, 10:70] = 1
    cv2.circle(instances, (115, 40), 25, 2, -1)
    instances[85:105, 30:60] = 3
    for index, color in ((1, (200, 30, 30)), (2, (30, 200, 30)), (3, (30, 30, 200))):
        image[instances == index] = color
    table = []
    for index, kind in ((1, "box"), (2, "ball"), (3, "phone")):
        rows, columns = np.nonzero(instances == index)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        table.append(
            SceneObject(
                id=index,
                kind=kind,
                color=("red", "green", "blue")[index - 1],
                box_xyxy=tuple(int(value) for value in box),
                area_px=len(rows),
                visible_fraction=1.0,
                position_m=(0.0, 0.0, 0.0),
                quaternion_xyzw=(0.0, 0.0, 0.0, 1.0),
                size_m=(0.1, 0.1, 0.1),
            )
        )
    scene = Scene(
        seed=seed,
        image_size_wh=(WIDTH, HEIGHT),
        intrinsics={"fx": 100.0, "fy": 100.0, "cx": 80.0, "cy": 60.0},
        camera_position_m=(0.0, 0.0, 1.0),
        camera_quaternion_xyzw=(0.0, 0.0, 0.0, 1.0),
        objects=tuple(table),
        queries=queries
        or (
            Query("name", "the red box", (1,)),
            Query("many", "all the square things", (1, 3), split="test"),
            Query("none", "the banana", ()),
        ),
    )
    save_scene(folder, scene, image, np.zeros((HEIGHT, WIDTH), np.uint16), instances)
    return folder


def write_prepared(folder: Path) -> Path:
    """Prepare three small scenes for training: six samples, of the kinds `name` and `none`."""
    for seed in range(3):
        write_scene(folder / "scenes" / f"{seed:06d}", seed)
    arguments = ["--source", "tabletop", "--root", str(folder / "scenes"), "--seen-size", "336"]
    assert prepare([*arguments, "--out", str(folder / "data")]) == 0
    return folder / "data"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A data set of three scenes with three questions each."""
    data = tmp_path / "data"
    for index in range(3):
        write_scene(data / f"{index:06d}", index)
    return data


@pytest.fixture
def make_scene() -> Callable[..., Any]:
    return write_scene
