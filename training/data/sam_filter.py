"""Keeps only samples whose masks a SAM 2 finds too, given the true prompts.

Source: the data construction of Seg-Zero's public code (IoU 0.6). It makes the training data
friendly to the segmenter, and removes wrong annotations first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segzero_core.geometry import mask_iou
from segzero_core.segmenter.sam2 import LoadedSegmenter
from segzero_core.types import RgbImage
from training.data.errors import SAM_DISAGREES, SampleError
from training.data.mask_prompts import MaskPrompt

MIN_IOU = 0.6


def check_agreement(
    sam: LoadedSegmenter,
    image: RgbImage,
    masks: Sequence[NDArray[np.bool_]],
    prompts: Sequence[MaskPrompt],
) -> None:
    """Compare every object's mask with what SAM 2 makes of its true box and points.

    Raises:
        SampleError: An object's IoU is below `MIN_IOU`.
    """
    if not masks:
        return
    asked = [prompt.to_object() for prompt in prompts]
    found = sam.segmenter.segment(sam.encoder.encode(image), asked).masks
    for number, (mask, guess) in enumerate(zip(masks, found, strict=True)):
        if (iou := mask_iou(mask, guess)) < MIN_IOU:
            raise SampleError(SAM_DISAGREES, f"SAM finds object {number} with IoU {iou:.2f} only")
