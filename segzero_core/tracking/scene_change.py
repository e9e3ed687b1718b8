"""Detects scene cuts and blank frames by color histograms.

A tracker assumes that each frame continues the last one. After a cut it would put its masks onto
anything that looks similar, and a black frame shows nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.types import RgbImage, SizeWH

_SMALL_WH: Final = (64, 48)
_LEVELS: Final = 8  # of each color in the histogram
_BLANK_SPREAD: Final = 4.0  # of a color's values, 0 to 255; the noise under a lens cap is below
# Least histogram intersection of the same scene. Measured on rendered clips: 0.79 and more within
# two seconds while an arm passes; two different tables have less than 0.7 in 97 of 100 cases.
_SAME_SCENE: Final = 0.7


class View(Enum):
    """How a frame relates to the frames before it. The values are texts for people."""

    SAME = "the camera looks at the same scene"
    CUT = "the image shows another scene"
    BLANK = "the image is black or all of one color"


@dataclass(frozen=True, eq=False, slots=True)
class ColorHistogram:
    """Blurred color histogram of an image."""

    # float64 [8, 8, 8], share of the pixels for each level of red, green and blue.
    shares: NDArray[np.float64]
    size_wh: SizeWH  # width and height of the image [px]


def color_histogram(image: RgbImage) -> ColorHistogram | None:
    """Return the histogram of an image uint8 [H, W, 3], or None for a blank one."""
    small = cv2.resize(image, _SMALL_WH, interpolation=cv2.INTER_AREA)
    if small.std(axis=(0, 1)).max() < _BLANK_SPREAD:
        return None
    levels = small.astype(np.int64) * _LEVELS // 256
    index = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    shares = np.bincount(index.ravel(), minlength=_LEVELS**3).reshape([_LEVELS] * 3) / index.size
    # Each level gives a quarter to both neighbors, so that a little more light makes no cut.
    for axis in range(3):
        moved = np.moveaxis(shares, axis, 0)
        padded = np.concatenate((moved[:1], moved, moved[-1:]))
        shares = np.moveaxis(0.25 * padded[:-2] + 0.5 * moved + 0.25 * padded[2:], 0, axis)
    return ColorHistogram(shares, (int(image.shape[1]), int(image.shape[0])))


def compare_scenes(reference: ColorHistogram, histogram: ColorHistogram | None) -> View:
    """Tell how a frame, by its histogram, relates to an earlier one."""
    if histogram is None:
        return View.BLANK
    shared = float(np.minimum(reference.shares, histogram.shares).sum())
    if shared < _SAME_SCENE or histogram.size_wh != reference.size_wh:
        return View.CUT
    return View.SAME
