"""Encoder agreement check: whether two image encoders lead to the same masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from segzero_core.geometry import mask_iou
from segzero_core.types import Box, ObjectPrompt, Point, RgbImage

if TYPE_CHECKING:
    from segzero_core.encoders.base import ImageEncoder
    from segzero_core.segmenter.sam2 import Segmenter

MIN_IOU: Final = 0.99
"""Least IoU of masks that count as the same."""
_SIZE_WH: Final = (640, 480)
_OBJECTS: Final = 4


def mask_agreement(
    reference: ImageEncoder, candidate: ImageEncoder, segmenter: Segmenter
) -> tuple[float, ...]:
    """Return the IoU of the masks by an exact encoder and a candidate, on each of three images."""
    agreement = []
    for seed in range(3):
        image, prompts = drawn_scene(seed)
        masks = segmenter.segment(candidate.encode(image), prompts).masks
        expected = segmenter.segment(reference.encode(image), prompts).masks
        agreement.append(mask_iou(masks, expected))
    return tuple(agreement)


def drawn_scene(seed: int) -> tuple[RgbImage, list[ObjectPrompt]]:
    """Draw an image of discs on a table, and return it with their prompts."""
    dice = np.random.default_rng(seed)
    width, height = _SIZE_WH
    y, x = np.mgrid[:height, :width]
    slope = (x / width + y / height)[..., None]
    image = 90 + 50 * slope + dice.normal(0, 6, (height, width, 3))
    prompts = []
    for index in range(_OBJECTS):
        radius = float(dice.uniform(25, 70))
        cx = width * (index + 0.5) / _OBJECTS + float(dice.uniform(-15, 15))
        cy = float(dice.uniform(radius + 5, height - radius - 5))
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        image[inside] = dice.uniform(0, 255, 3) + dice.normal(0, 4, (int(inside.sum()), 3))
        box = Box(max(cx - radius, 0), cy - radius, min(cx + radius, width), cy + radius)
        prompts.append(ObjectPrompt(box, (Point(cx, cy),)))
    return image.clip(0, 255).astype(np.uint8), prompts
