"""Draws an answer over an image: masks with outlines, boxes and points, labels.

Every width and letter grows with the image, so that a thumbnail and a 4K image look the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError, ShapeError
from segzero_core.images.labels import Place, place_labels
from segzero_core.images.lettering import clean, font_px, put_text, scale_of, text_width
from segzero_core.images.palette import Color, choose_colors, ink_on
from segzero_core.types import ObjectPrompt, RgbImage, Segmentation, check_rgb_image

_TINT: Final = 0.4
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)
_MAX_CONTOURS: Final = 200
"""A mask of more pieces, which is noise, has only its longest outlined."""
_SHIFT: Final = 4
"""Binary digits after the point of coordinates that OpenCV draws at."""


def draw_overlay(
    image: RgbImage,
    segmentation: Segmentation,
    prompts: Sequence[ObjectPrompt] = (),
    *,
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
) -> RgbImage:
    """Return a copy of an image with its masks, tinted and outlined, the prompts and labels.

    Args:
        image: uint8 [H, W, 3].
        segmentation: Of this image.
        prompts: One for each mask, or none.
        labels: One for each mask, or none at all; number and score if not given.
        colors: One for each mask; those of `choose_colors` if not given.

    Raises:
        InputError: Image, masks and prompts do not belong together.
    """
    height, width = check_rgb_image(image).shape[:2]
    masks = segmentation.masks
    if segmentation.size_wh != (width, height):
        raise ShapeError("masks", f"bool [N, {height}, {width}]", masks)
    if labels is None:
        labels = [f"{i} · {score:.2f}" for i, score in enumerate(segmentation.scores, start=1)]
    for name, parts in (("prompts", prompts), ("labels", labels)):
        if parts and len(parts) != len(masks):
            raise InputError(f"{len(parts)} {name} for {len(masks)} masks")
    colors = choose_colors(image, masks) if colors is None else colors
    pixels, scale = np.ascontiguousarray(image).copy(), scale_of(image)
    for mask, color in zip(masks, colors, strict=True):
        _tint(pixels, mask, color)
    for mask, color in zip(masks, colors, strict=True):
        draw_outline(pixels, mask, color)
    for prompt, color in zip(prompts, colors, strict=False):
        _draw_prompt(pixels, prompt, color, scale)
    if labels:
        _draw_labels(pixels, masks, [clean(label) for label in labels], colors, scale)
    return pixels


def draw_outline(pixels: RgbImage, mask: NDArray[np.bool_], color: Color) -> None:
    """Draw a mask's outline, in place: a light line in a dark one, to be seen on any ground."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return
    cut = mask[top : top + height, left : left + width].view(np.uint8)
    contours, _ = cv2.findContours(cut, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    longest = sorted(contours, key=len, reverse=True)[:_MAX_CONTOURS]
    draw_lines(pixels, [_smooth(contour[:, 0]) for contour in longest], color, is_closed=True)


def draw_lines(
    pixels: RgbImage,
    lines: Sequence[NDArray[Any]],
    color: Color,
    width: float = 1.5,
    *,
    rim: float = 1.0,
    is_closed: bool = False,
) -> None:
    """Draw lines of a color in dark ones, in place.

    Args:
        pixels: uint8 [H, W, 3].
        lines: The corners of each, [N, 2], pixel centers [px].
        color: Of the inner line.
        width: Of the inner line, at a scale of 1 [px].
        rim: How far the dark line is seen on both sides, at a scale of 1 [px]; may be 0.
        is_closed: Whether a line's end meets its beginning.
    """
    scale = scale_of(pixels)
    inner = max(1, round(width * scale))
    fixed = [np.round(line * 2**_SHIFT).astype(np.int32) for line in lines]
    if rim:
        dark = inner + 2 * max(1, round(rim * scale))
        cv2.polylines(pixels, fixed, is_closed, _DARK, dark, cv2.LINE_AA, _SHIFT)
    cv2.polylines(pixels, fixed, is_closed, color, inner, cv2.LINE_AA, _SHIFT)


def _smooth(contour: NDArray[Any]) -> NDArray[np.float64]:
    """Take the stairs out of a closed line from pixel to pixel."""
    sums = np.roll(contour, 1, axis=0) + 2 * contour + np.roll(contour, -1, axis=0)
    return np.asarray(sums / 4, np.float64)


def _tint(pixels: RgbImage, mask: NDArray[np.bool_], color: Color) -> None:
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return
    window = np.s_[top : top + height, left : left + width]
    mixed = cv2.addWeighted(
        pixels[window], 1 - _TINT, np.full((height, width, 3), color, np.uint8), _TINT, 0
    )
    np.copyto(pixels[window], mixed, where=mask[window][..., None])


def _draw_prompt(pixels: RgbImage, prompt: ObjectPrompt, color: Color, scale: float) -> None:
    x_min, y_min, x_max, y_max = prompt.box.xyxy
    # Boxes are half-open: the last pixel is one before the end.
    x_end, y_end = max(x_min, x_max - 1), max(y_min, y_max - 1)
    corners = np.array([(x_min, y_min), (x_end, y_min), (x_end, y_end), (x_min, y_end)])
    height, width = pixels.shape[:2]
    inside = corners.clip((-width, -height), (2 * width, 2 * height))
    draw_lines(pixels, [inside], color, 1.0, rim=0, is_closed=True)
    for point in prompt.points:
        if 0 <= point.x < width and 0 <= point.y < height:
            at = np.array([[point.x, point.y]] * 2)
            draw_lines(pixels, [at], _LIGHT, 5.0)


def _draw_labels(
    pixels: RgbImage,
    masks: NDArray[np.bool_],
    labels: Sequence[str],
    colors: Sequence[Color],
    scale: float,
) -> None:
    size, margin = font_px(scale), max(2, round(3 * scale))
    pad, high = round(0.4 * size), round(1.4 * size)
    sizes = [(text_width(label, size) + 2 * pad, high) for label in labels]
    places = place_labels(masks, sizes, margin)
    for place, mask, color in zip(places, masks, colors, strict=True):
        if place is not None:
            _draw_leader(pixels, place, mask, color, 4 * margin)
    for place, label, color in zip(places, labels, colors, strict=True):
        if place is None or not label:
            continue
        pixels[place.top : place.bottom, place.left : place.right] = color
        left_top = place.left + pad, place.top + round(0.2 * size)
        put_text(pixels, label, left_top, size, ink_on(color))


def _draw_leader(
    pixels: RgbImage, place: Place, mask: NDArray[np.bool_], color: Color, longest_gap: int
) -> None:
    """Draw a line from a label to the nearest pixel of its object, unless it is beside it."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    step = max(1, round((width * height / 10_000) ** 0.5))
    rows, columns = np.nonzero(mask[top : top + height : step, left : left + width : step])
    if not len(rows):
        return
    object_px = np.stack((left + step * columns, top + step * rows), axis=1)
    label_px = object_px.clip(place[:2], np.array(place[2:]) - 1)
    gaps = np.linalg.norm(object_px - label_px, axis=1)
    nearest = int(gaps.argmin())
    if gaps[nearest] > longest_gap:
        ends = np.stack((label_px[nearest], object_px[nearest])).astype(np.float64)
        draw_lines(pixels, [ends], color, 1.0)
