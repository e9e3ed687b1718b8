"""When the demo counts an answer as right."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MIN_IOU: Final = 0.5
"""The usual threshold for a hit."""


def iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Compare two masks bool [H, W]; two empty ones agree."""
    union = np.logical_or(mask, truth).sum()
    return float(np.logical_and(mask, truth).sum() / union) if union else 1.0
