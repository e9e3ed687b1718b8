"""Draws an answer over its picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segzero_core.errors import InputError, ShapeError
from segzero_core.types import ObjectPrompt, RgbImage, Segmentation, check_rgb_image

# Distinct for most eyes, also with a colour deficiency. Source: Okabe and Ito (2008).
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
"""Width of lines as a share of the longer side of the picture."""
_WHITE: Final = (255, 255, 255)
_BLACK: Final = (0, 0, 0)


def draw_overlay(
    image: RgbImage, segmentation: Segmentation, prompts: Sequence[ObjectPrompt] = ()
) -> RgbImage:
    """Draw masks, boxes and points over a picture.

    Args:
        image: uint8 [H, W, 3], RGB; it is not changed.
        segmentation: Masks of that image; each is tinted and outlined in its own colour.
        prompts: Boxes and points in pixels of that image, one per mask, or none.

    Returns:
        A new uint8 [H, W, 3].

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
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for index, prompt in enumerate(prompts):
        _draw_prompt(draw, prompt, PALETTE[index % len(PALETTE)], line)
    return np.array(picture)


def _tint(
    pixels: RgbImage, mask: NDArray[np.bool_], colour: tuple[int, int, int], line: int
) -> None:
    """Mix a colour into the mask and draw its rim in the full colour, in place."""
    mixed = pixels[mask] * (1 - _TINT) + np.array(colour) * _TINT
    pixels[mask] = mixed.round().astype(np.uint8)
    pixels[mask & ~_eroded(mask, line)] = colour


def _eroded(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Take away the outermost pixels of a mask; the picture's border is no rim."""
    inner = mask
    for _ in range(steps):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _draw_prompt(
    draw: ImageDraw.ImageDraw, prompt: ObjectPrompt, colour: tuple[int, int, int], line: int
) -> None:
    x_min, y_min, x_max, y_max = prompt.box.xyxy
    # Half open: the last pixel of the box is one before its end.
    corners = (x_min, y_min, max(x_min, x_max - 1), max(y_min, y_max - 1))
    draw.rectangle(corners, outline=colour, width=line)
    radius = 2 * line
    for point in prompt.points:
        around = (point.x - radius, point.y - radius, point.x + radius, point.y + radius)
        draw.ellipse(around, fill=_WHITE, outline=_BLACK, width=max(1, line // 2))
