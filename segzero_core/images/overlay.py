"""Draws masks, boxes and points over an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segzero_core.errors import InputError, ShapeError
from segzero_core.types import ObjectPrompt, RgbImage, Segmentation, check_rgb_image

# Distinct also with a color vision deficiency. Source: Okabe and Ito (2008).
PALETTE: Final = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_TINT: Final = 0.5
_LINE_SHARE: Final = 1 / 320
"""Width of lines as a share of the longer side of the image."""
_WHITE: Final = (255, 255, 255)
_BLACK: Final = (0, 0, 0)


def draw_overlay(
    image: RgbImage, segmentation: Segmentation, prompts: Sequence[ObjectPrompt] = ()
) -> RgbImage:
    """Return a copy of an image with its masks, tinted and outlined, and the prompts.

    Each mask has a color. There is one prompt for each mask, or none.

    Raises:
        InputError: Image, masks and prompts do not belong together.
    """
    height, width = check_rgb_image(image).shape[:2]
    if segmentation.size_wh != (width, height):
        raise ShapeError("masks", f"bool [N, {height}, {width}]", segmentation.masks)
    if prompts and len(prompts) != len(segmentation):
        raise InputError(f"{len(prompts)} prompts for {len(segmentation)} masks")
    line = max(1, round(max(width, height) * _LINE_SHARE))
    pixels = image.copy()
    for index, mask in enumerate(segmentation.masks):
        _tint(pixels, mask, PALETTE[index % len(PALETTE)], line)
    canvas = Image.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    for index, prompt in enumerate(prompts):
        _draw_prompt(draw, prompt, PALETTE[index % len(PALETTE)], line)
    return np.array(canvas)


def _tint(
    pixels: RgbImage, mask: NDArray[np.bool_], color: tuple[int, int, int], line: int
) -> None:
    """Mix a color into the mask and draw its outline in the full color, in place."""
    mixed = pixels[mask] * (1 - _TINT) + np.array(color) * _TINT
    pixels[mask] = mixed.round().astype(np.uint8)
    # OpenCV ignores what lies outside the image, so the image's border is no outline.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, iterations=line)
    pixels[mask & (inner == 0)] = color


def _draw_prompt(
    draw: ImageDraw.ImageDraw, prompt: ObjectPrompt, color: tuple[int, int, int], line: int
) -> None:
    x_min, y_min, x_max, y_max = prompt.box.xyxy
    # Boxes are half-open: the last pixel is one before the end.
    corners = (x_min, y_min, max(x_min, x_max - 1), max(y_min, y_max - 1))
    draw.rectangle(corners, outline=color, width=line)
    radius = 2 * line
    for point in prompt.points:
        around = (point.x - radius, point.y - radius, point.x + radius, point.y + radius)
        draw.ellipse(around, fill=_WHITE, outline=_BLACK, width=max(1, line // 2))
