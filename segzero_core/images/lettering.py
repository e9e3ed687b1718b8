"""Text in images: a font that OpenCV carries, line breaks, and a caption strip.

What is written comes from people and models, so it is data: control characters are not drawn, and
every length is bounded.
"""

from __future__ import annotations

import unicodedata
from typing import Final

import cv2
import numpy as np

from segzero_core.images.palette import Color
from segzero_core.types import RgbImage, check_rgb_image

MAX_CHARS: Final = 2000
"""Of a text; the rest is not drawn."""
ELLIPSIS: Final = "..."
_FACE: Final = "uni"  # Latin, Greek, Cyrillic, Arabic, Hebrew, Chinese, Japanese and Korean
_MIN_PX: Final = 9
_LEADING: Final = 1.35
_PAPER, _INK, _SOFT = (250, 250, 250), (20, 20, 20), (80, 80, 80)


def scale_of(pixels: RgbImage) -> float:
    """Return how large lines and letters are drawn: 1 at 640x480, 6 at 3840x2160."""
    height, width = pixels.shape[:2]
    return float(min(max(width, height) / 640, min(width, height) / 240))


def font_px(scale: float, size: float = 14) -> int:
    """Return a font size [px] at a scale; smaller ones could not be read."""
    return max(_MIN_PX, round(size * scale))


def clean(text: str) -> str:
    """Return a text in one line, bounded, without what changes the text around it."""
    words = " ".join(text[:MAX_CHARS].translate(_PLAIN).split())
    return "".join(char for char in words if unicodedata.category(char) not in _UNDRAWN)


_PLAIN: Final = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "…": "..."})
"""The font has these as wide as a Chinese letter."""
_UNDRAWN: Final = ("Cc", "Cf", "Cs", "Cn", "Co")


def text_width(text: str, size: int) -> int:
    """Return how wide a cleaned text is [px]."""
    if not text:
        return 0
    x, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace(_FACE), size)
    return int(x + width)


def put_text(
    pixels: RgbImage, text: str, left_top: tuple[int, int], size: int, color: Color
) -> None:
    """Write a cleaned text into an image, in place; what is outside of the image is cut off."""
    left, top = left_top
    baseline = top + round(0.95 * size)
    if text:
        cv2.putText(pixels, text, (left, baseline), color, cv2.FontFace(_FACE), size)


def wrap(text: str, size: int, width: int, max_lines: int) -> list[str]:
    """Break a text into lines no wider than so many pixels; the last may end in an ellipsis.

    A word that is wider than a line is broken, and so is a script without spaces.
    """
    lines: list[str] = []
    rest = clean(text)
    while rest and len(lines) < max_lines:
        if text_width(rest, size) <= width:
            return [*lines, rest]
        is_last = len(lines) == max_lines - 1
        end = _fitting(rest, size, width, ELLIPSIS if is_last else "")
        space = rest.rfind(" ", 1, end + 1)
        end = space if space > 0 else max(1, end)
        lines.append(rest[:end].rstrip() + (ELLIPSIS if is_last else ""))
        rest = rest[end:].lstrip()
    return lines


def _fitting(text: str, size: int, width: int, tail: str) -> int:
    """Return how many characters fit into a line, with a tail behind them."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(text[:middle] + tail, size) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def add_caption(
    pixels: RgbImage,
    question: str,
    trace: str = "",
    *,
    max_lines: tuple[int, int] = (2, 4),
    is_fixed: bool = False,
) -> RgbImage:
    """Return an image with a strip below it: the question, and the trace in smaller letters.

    Args:
        pixels: uint8 [H, W, 3].
        question: What was asked.
        trace: What the reasoner thought; may be empty.
        max_lines: Of the question and of the trace.
        is_fixed: Whether the strip is as high as the lines allow, however many there are, so that
            images of one size stay so.
    """
    width, scale = check_rgb_image(pixels).shape[1], scale_of(pixels)
    margin = max(2, round(8 * scale))
    rows: list[tuple[str, int, Color]] = []
    heights = 0
    texts = ((question, 17, _INK), (trace, 14, _SOFT))
    for (text, points, ink), limit in zip(texts, max_lines, strict=True):
        size = font_px(scale, points)
        lines = wrap(text, size, max(1, width - 2 * margin), limit)
        rows += [(line, size, ink) for line in lines]
        heights += round(_LEADING * size) * (limit if is_fixed else len(lines))
    strip = np.full((heights + margin, width, 3), _PAPER, np.uint8)
    top = margin // 2
    for line, size, ink in rows:
        put_text(strip, line, (margin, top), size, ink)
        top += round(_LEADING * size)
    return np.concatenate([pixels, strip])
