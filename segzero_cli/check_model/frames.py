"""Finds the coordinate frame of a model's boxes from objects with known boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.geometry import box_iou, scale_box
from segzero_core.types import Box, SizeWH

GOOD_IOU: Final = 0.5
"""Boxes that overlap the true ones by this much on average are meant in that frame."""
_BETTER_IOU: Final = 0.15
_SAME_SCALE: Final = 0.02
_SCALE_GAIN: Final = 0.03


@dataclass(frozen=True, slots=True)
class Sample:
    """A model's answer about one object in the image."""

    said: tuple[Box, ...]  # the boxes as they were written
    true: Box  # the object's box [px of the image]
    image_wh: SizeWH  # width and height of the image [px]

    def best(self, frame_wh: SizeWH | None, *, swapped: bool = False) -> tuple[Box, float]:
        """Return the box [px of the image] that fits best if read in a frame, and its IoU.

        No frame is that of the image; `swapped` reads y before x.
        """
        boxes = [Box(b.y_min, b.x_min, b.y_max, b.x_max) if swapped else b for b in self.said]
        moved = [scale_box(box, frame_wh or self.image_wh, self.image_wh) for box in boxes]
        return max(((box, box_iou(box, self.true)) for box in moved), key=lambda pair: pair[1])


def mean_iou(
    samples: Sequence[Sample], frame_wh: SizeWH | None, *, swapped: bool = False
) -> float:
    """Return how well boxes fit on average if read in a frame; 0 without samples."""
    found = [sample.best(frame_wh, swapped=swapped)[1] for sample in samples]
    return float(np.mean(found)) if found else 0.0


def better_frame(samples: Sequence[Sample], description: ModelDescription) -> str:
    """Return the frame that the boxes are in, if it is not the described one; "" if it is.

    A model that finds little fits no frame: then nothing is said.
    """
    width, height = description.seen_size_wh
    others: dict[str, SizeWH | None] = {
        f"pixels of the image it sees ({width}x{height})": (width, height),
        "thousandths (0 to 1000)": (1000, 1000),
        "pixels of the image as it is": None,
        "parts of one (0 to 1)": (1, 1),
    }
    own = mean_iou(samples, description.frame_wh)
    found = {
        name + (", y before x" if swapped else ""): mean_iou(samples, frame, swapped=swapped)
        for name, frame in others.items()
        for swapped in (False, True)
    }
    name = max(found, key=lambda each: found[each])
    return name if found[name] >= max(GOOD_IOU, own + _BETTER_IOU) else ""


def off_scale(
    samples: Sequence[Sample], description: ModelDescription
) -> tuple[float, float] | None:
    """Return the factors in x and y by which all boxes are too small, if they are.

    That is what a silent resize looks like.
    """
    frame_wh = description.frame_wh
    pairs = [(sample.best(frame_wh)[0].xyxy, sample.true.xyxy) for sample in samples]
    if not pairs:
        return None
    said, true = np.array(pairs).transpose(1, 0, 2).reshape(2, len(pairs), 2, 2)
    factors = (said * true).sum((0, 1)) / np.maximum((said**2).sum((0, 1)), 1e-9)
    factor_x, factor_y = (float(factor) for factor in factors)
    if max(abs(factor_x - 1), abs(factor_y - 1)) <= _SAME_SCALE or min(factors) <= 0:
        return None
    scaled = [
        Sample(
            tuple(
                Box(b.x_min * factor_x, b.y_min * factor_y, b.x_max * factor_x, b.y_max * factor_y)
                for b in sample.said
            ),
            sample.true,
            sample.image_wh,
        )
        for sample in samples
    ]
    gain = mean_iou(scaled, frame_wh) - mean_iou(samples, frame_wh)
    return (factor_x, factor_y) if gain >= _SCALE_GAIN else None
