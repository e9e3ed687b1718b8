"""Colors for objects: apart from one another, and never the color of the object itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.types import RgbImage

Color: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

# Distinct also with a color vision deficiency: Okabe and Ito (2008) without black, in the order
# in which neighbors are farthest apart for protanopes, deuteranopes and everybody else.
PALETTE: Final[tuple[Color, ...]] = (
    (86, 180, 233),
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (230, 159, 0),
)
TOO_NEAR: Final = 30.0
"""In Lab: a color so near to an object's own is not taken while another is left."""
_SAMPLED_PX: Final = 1024
_NEAREST_SHARE: Final = 0.2
"""An object of two colors is as near to a color as this share of its pixels."""
_KEPT: Final = 0.8


def choose_colors(
    image: RgbImage, masks: Iterable[NDArray[np.bool_]], before: Sequence[Color] = ()
) -> list[Color]:
    """Choose for each object the color that is farthest from its pixels and the colors before it.

    Args:
        image: uint8 [H, W, 3].
        masks: bool [H, W] each.
        before: What was chosen for the image before this one of a video; it is kept while it is
            nearly as good as the best, so that nothing flickers.
    """
    chosen: list[int] = []
    for index, mask in enumerate(masks):
        near = _distances(image, mask)
        apart = _APART[:, chosen].min(axis=1) if chosen else np.full(len(PALETTE), np.inf)
        allowed = near >= min(TOO_NEAR, near.max())
        worth = np.where(allowed, np.minimum(near, apart) + 1e-3 * near, -1.0)
        best = int(worth.argmax())
        if index < len(before):
            kept = PALETTE.index(before[index])
            best = kept if worth[kept] >= _KEPT * worth[best] else best
        chosen.append(best)
    return [PALETTE[index] for index in chosen]


def ink_on(color: Color) -> Color:
    """Return black or white: what is read better on a color."""
    return (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 120 else (255, 255, 255)


def to_lab(colors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the CIE Lab values [N, 3] of colors uint8 [N, 3]."""
    scaled = (colors.reshape(1, -1, 3) / 255).astype(np.float32)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB)[0], np.float32)


_LAB: Final = to_lab(np.array(PALETTE, np.uint8))
_APART: Final = np.linalg.norm(_LAB[:, None] - _LAB[None], axis=2)


def _distances(image: RgbImage, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how far each color of the palette is from an object, in Lab."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return np.full(len(PALETTE), 100.0)
    inside = mask[y : y + height, x : x + width]
    step = max(1, int((width * height / _SAMPLED_PX) ** 0.5))
    pixels = image[y : y + height : step, x : x + width : step][inside[::step, ::step]]
    if not len(pixels):
        pixels = image[y : y + height, x : x + width][inside][:_SAMPLED_PX]
    apart = np.linalg.norm(to_lab(pixels)[:, None] - _LAB[None], axis=2)
    rank = int(_NEAREST_SHARE * len(apart))
    return np.asarray(np.partition(apart, rank, axis=0)[rank], np.float64)
