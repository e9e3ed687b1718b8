"""Training images for the segmenter: rendered scenes, augmented, with imprecise prompts.

A reasoner of a few million parameters points roughly. What the segmenter learns from is therefore
mostly jittered boxes, with no, one or two points, and only now and then the exact prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from numpy.typing import NDArray

from training.bundle.segmenter.model import PIXEL_MEAN, PIXEL_STD
from training.data.mask_prompts import mask_to_prompt

# Labels of the prompt encoder's points.
PADDING, POSITIVE, BOX_MIN, BOX_MAX = -1, 1, 2, 3
MIN_OBJECT_PX = 30  # of the squashed image; below this there is nothing to learn an edge from
MIN_ZOOM, MAX_ZOOM = 0.75, 1.5
# Side of a close-up, in sides of its object, and at least so many pixels.
MIN_CLOSE_UP, MAX_CLOSE_UP, MIN_CLOSE_UP_PX = 1.7, 5.0, 64
MIN_NEGATIVE_SIDE = 0.06  # of the image's side
MAX_EMPTY_OVERLAP = 0.02  # objects' share of a box that still counts as empty


@dataclass(frozen=True, eq=False)
class SceneImage:
    """One scene: image uint8 [H, W, 3] RGB and instances uint8 [H, W] (0 is background)."""

    image: NDArray[np.uint8]
    instances: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step needs."""

    images: NDArray[np.float32]  # float32 [B, 3, S, S], normalized
    instances: NDArray[np.uint8]  # uint8 [B, S, S]
    image_index: NDArray[np.int64]  # int64 [N], the image each prompt belongs to
    object_id: NDArray[np.int64]  # int64 [N], its object; 0 where the prompt lies on nothing
    # float32 [N, 4], the true box [px of S]; the prompt's own where nothing is.
    box_xyxy: NDArray[np.float32]
    points: NDArray[np.float32]  # float32 [N, P, 2], prompt corners and points [px of S]
    labels: NDArray[np.int32]  # int32 [N, P]


def find_scenes(folders: Sequence[Path]) -> list[Path]:
    """List the complete scene folders below the given folders, in a fixed order.

    A scene that is still being written has no readable scene.json yet, and is left for the next
    scan.
    """
    return [
        path.parent
        for folder in folders
        for path in sorted(folder.glob("*/scene.json"))
        if _is_json(path)
    ]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def read_scene(folder: Path) -> SceneImage:
    """Read color and instances of a scene folder.

    Raises:
        ValueError: An image is missing or damaged, or the two differ in size.
    """
    color = cv2.imread(str(folder / "color.png"), cv2.IMREAD_COLOR)
    instances = cv2.imread(str(folder / "instances.png"), cv2.IMREAD_UNCHANGED)
    if color is None or instances is None or color.shape[:2] != instances.shape:
        raise ValueError(
            f"{folder}: color.png and instances.png cannot be read, or differ in size"
        )
    if instances.max() > 255:
        raise ValueError(f"{folder}: more than 255 objects in instances.png")
    return SceneImage(cv2.cvtColor(color, cv2.COLOR_BGR2RGB), instances.astype(np.uint8))


class SceneCache:
    """Decoded scenes, kept in memory up to a number; later ones are decoded at each use."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._scenes: dict[Path, SceneImage] = {}

    def __call__(self, folder: Path) -> SceneImage:
        """Read a scene, or remember it."""
        scene = self._scenes.get(folder)
        if scene is None:
            scene = read_scene(folder)
            if len(self._scenes) < self._capacity:
                self._scenes[folder] = scene
        return scene


def normalize(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn uint8 [S, S, 3] into SAM 2's float32 [3, S, S]."""
    scale = (np.float32(1 / 255) / np.asarray(PIXEL_STD, np.float32)).astype(np.float32)
    shift = (np.asarray(PIXEL_MEAN, np.float32) / np.asarray(PIXEL_STD, np.float32)).astype(
        np.float32
    )
    return np.ascontiguousarray((image * scale - shift).transpose(2, 0, 1))


def squash(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize to a square, antialiased as `segzero_core` does it."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    square = F.interpolate(
        pixels, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return np.ascontiguousarray(square[0].permute(1, 2, 0).numpy())


def augment(
    scene: SceneImage, side: int, rng: np.random.Generator, max_zoom: float = MAX_ZOOM
) -> SceneImage:
    """Zoom, crop, mirror and recolor a scene, and squash it to a square."""
    height, width = scene.instances.shape
    zoom = float(np.exp(rng.uniform(np.log(MIN_ZOOM), np.log(max_zoom))))
    stretch = float(np.exp(rng.uniform(-0.12, 0.12)))
    crop_w, crop_h = round(width / zoom * stretch), round(height / zoom / stretch)
    x = round(rng.uniform(min(0, width - crop_w), max(0, width - crop_w)))
    y = round(rng.uniform(min(0, height - crop_h), max(0, height - crop_h)))
    x_cut, y_cut = (
        slice(max(x, 0), min(x + crop_w, width)),
        slice(max(y, 0), min(y + crop_h, height)),
    )
    border = (max(-y, 0), max(y + crop_h - height, 0), max(-x, 0), max(x + crop_w - width, 0))
    image, instances = scene.image[y_cut, x_cut], scene.instances[y_cut, x_cut]
    if any(border):
        gray = tuple(int(value) for value in rng.integers(0, 255, 3))
        image = cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT, value=gray)
        instances = cv2.copyMakeBorder(instances, *border, cv2.BORDER_CONSTANT, value=0)
    image = squash(image, side)
    instances = cv2.resize(instances, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    if rng.random() < 0.5:
        image, instances = image[:, ::-1], instances[:, ::-1]
    return SceneImage(_recolor(image, rng), np.ascontiguousarray(instances))


def close_up(scene: SceneImage, rng: np.random.Generator) -> SceneImage:
    """Cut out a square around an object, as `segzero_core.segmenter.close_up` does; see there."""
    ids = np.unique(scene.instances)
    ys, xs = np.nonzero(scene.instances == rng.choice(ids[ids > 0])) if ids.any() else ((), ())
    if len(xs) == 0:
        return scene
    height, width = scene.instances.shape
    object_side = max(xs.max() - xs.min(), ys.max() - ys.min()) + 1
    factor = math.exp(rng.uniform(math.log(MIN_CLOSE_UP), math.log(MAX_CLOSE_UP)))
    side = round(min(max(factor * object_side, MIN_CLOSE_UP_PX), height, width))
    shift_px = rng.uniform(-0.25, 0.25, 2) * side
    x = round(np.clip((xs.min() + xs.max() - side) / 2 + shift_px[0], 0, width - side))
    y = round(np.clip((ys.min() + ys.max() - side) / 2 + shift_px[1], 0, height - side))
    cut = np.s_[y : y + side, x : x + side]
    return SceneImage(scene.image[cut], scene.instances[cut])


def _recolor(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
    offset = rng.uniform(-20, 20)
    table = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).astype(np.uint8)
    image = cv2.LUT(np.ascontiguousarray(image), table[:, None, :])
    if rng.random() < 0.3:
        noise = np.empty(image.shape, np.int16)
        cv2.setRNGSeed(int(rng.integers(2**31)))
        cv2.randn(noise, 0, rng.uniform(2, 8))
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 1.0))
    return image


def jitter_box(
    box_xyxy: Sequence[float], side: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Move the four sides of a box as an imprecise reasoner would.

    Half of the time in proportion to the box (each side by up to a fifth, or shifted and scaled as
    a whole), the other half by a number of pixels whatever its size; always a valid box inside the
    image that still meets the true one.
    """
    x0, y0, x1, y1 = box_xyxy
    w, h = x1 - x0, y1 - y0
    if rng.random() < 0.5:
        spread = rng.uniform(0.02, 0.2)
        shifts = rng.uniform(-spread, spread, 4) * (w, h, w, h)
        whole = rng.uniform(-0.1, 0.1, 2) * (w, h)
    else:
        # 25 px of a 640-pixel image are 4 % of its side; small boxes are moved by at most half
        # of themselves.
        spread_px = rng.uniform(0.004, 0.04) * side
        shifts = rng.normal(0, 0.5 * spread_px, 4)
        whole = rng.normal(0, 0.5 * spread_px, 2)
        limit = 0.25 * np.array((w, h, w, h))
        shifts = np.clip(shifts, -limit, limit)
        whole = np.clip(whole, -limit[:2], limit[:2])
    moved = np.clip(np.array((x0, y0, x1, y1)) + shifts + np.tile(whole, 2), 0, side)
    if moved[2] - moved[0] < 2 or moved[3] - moved[1] < 2:
        return float(x0), float(y0), float(x1), float(y1)
    return float(moved[0]), float(moved[1]), float(moved[2]), float(moved[3])


def _draw_points(
    mask: NDArray[np.bool_],
    centers: Sequence[tuple[float, float]],
    count: int,
    rng: np.random.Generator,
) -> list[tuple[float, float]]:
    """Choose points: circle centers, any pixels of the object, or centers slightly off."""
    style = rng.random()
    if style < 0.3:
        ys, xs = np.nonzero(mask)
        picks = rng.integers(len(xs), size=count)
        return [(float(xs[i]) + 0.5, float(ys[i]) + 0.5) for i in picks]
    points = list(centers[:count])
    if style < 0.55:
        spread_px = rng.uniform(0.002, 0.015) * mask.shape[0]
        points = [(x + rng.normal(0, spread_px), y + rng.normal(0, spread_px)) for x, y in points]
    return points


def draw_prompt(
    mask: NDArray[np.bool_], slots: int, rng: np.random.Generator
) -> tuple[tuple[int, int, int, int], list[tuple[float, float]], list[int]]:
    """Make a prompt for an object: its true box, 2 + slots coordinates, and their labels.

    Args:
        mask: bool [S, S], not empty.
        slots: Room for points besides the two corners of the box.
        rng: Where chance comes from.
    """
    box, centers = mask_to_prompt(mask)
    side = float(mask.shape[0])
    wanted = min(slots, int(rng.integers(3))) if rng.random() < 0.5 else slots
    points_only = slots > 0 and rng.random() < 0.12
    if points_only:
        coordinates, labels = [(0.0, 0.0)] * 2, [PADDING] * 2
        wanted = max(1, wanted)
    else:
        x0, y0, x1, y1 = jitter_box(box, side, rng) if rng.random() < 0.65 else box
        coordinates, labels = [(float(x0), float(y0)), (float(x1), float(y1))], [BOX_MIN, BOX_MAX]
    points = _draw_points(mask, centers, wanted, rng)
    coordinates += points + [(0.0, 0.0)] * (slots - len(points))
    labels += [POSITIVE] * len(points) + [PADDING] * (slots - len(points))
    return box, coordinates, labels


def draw_empty_prompt(
    instances: NDArray[np.uint8], slots: int, rng: np.random.Generator
) -> tuple[tuple[float, ...], list[tuple[float, float]], list[int]] | None:
    """Make a prompt where no object is; None when chance finds no such place."""
    side = instances.shape[0]
    w, h = rng.uniform(MIN_NEGATIVE_SIDE, 0.25, 2) * side
    x, y = rng.uniform(0, side - w), rng.uniform(0, side - h)
    inside = instances[int(y) : int(y + h), int(x) : int(x + w)]
    if (inside != 0).mean() > MAX_EMPTY_OVERLAP:
        return None
    points = [(x + w * rng.uniform(0.3, 0.7), y + h * rng.uniform(0.3, 0.7)) for _ in range(slots)]
    return (
        (x, y, x + w, y + h),
        [(x, y), (x + w, y + h), *points],
        [BOX_MIN, BOX_MAX] + [POSITIVE] * slots,
    )


def make_batch(
    scenes: Sequence[SceneImage],
    side: int,
    objects: int,
    rng: np.random.Generator,
    max_zoom: float = MAX_ZOOM,
    close_ups: float = 0.0,
) -> Batch | None:
    """Augment scenes and prompt up to `objects` objects of each; None when nothing is left.

    Args:
        scenes: The images, one each.
        side: Of the batch's square images [px].
        objects: Most prompts of an image.
        rng: Where chance comes from.
        max_zoom: Of the augmentation.
        close_ups: Share of the images that are cut out around one object.
    """
    slots = int(rng.choice(3, p=(0.2, 0.3, 0.5)))
    images, maps, rows = [], [], []
    for index, scene in enumerate(scenes):
        cut = close_up(scene, rng) if rng.random() < close_ups else scene
        seen = augment(cut, side, rng, max_zoom)
        images.append(normalize(seen.image))
        maps.append(seen.instances)
        areas = np.bincount(seen.instances.ravel(), minlength=2)
        ids = 1 + np.flatnonzero(areas[1:] >= MIN_OBJECT_PX)
        for object_id in rng.permutation(ids)[:objects]:
            rows.append((index, object_id, *draw_prompt(seen.instances == object_id, slots, rng)))
        empty = draw_empty_prompt(seen.instances, slots, rng) if rng.random() < 0.5 else None
        if empty is not None:
            rows.append((index, 0, *empty))
    if not any(row[1] for row in rows):
        return None
    image_index, object_id, box, points, labels = zip(*rows, strict=True)
    return Batch(
        np.stack(images),
        np.stack(maps),
        np.asarray(image_index, np.int64),
        np.asarray(object_id, np.int64),
        np.asarray(box, np.float32),
        np.asarray(points, np.float32),
        np.asarray(labels, np.int32),
    )


def shuffled(scenes: Sequence[Path], rng: np.random.Generator) -> Iterator[Path]:
    """Go once over the scenes in random order."""
    for index in rng.permutation(len(scenes)):
        yield scenes[index]
