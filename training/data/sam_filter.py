"""Keeps only samples whose masks a SAM 2 finds too, given the true prompts.

Source: the data construction of Seg-Zero's public code (IoU 0.6). It makes the training data
friendly to the segmenter; annotations that are wrong go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segzero_core.encoders.base import ImageEncoder
from segzero_core.geometry import mask_iou
from segzero_core.segmenter.sam2 import Segmenter, load_segmenter
from segzero_core.types import Box, ObjectPrompt, Point, RgbImage
from training.data.errors import SAM_DISAGREES, SampleError
from training.data.mask_prompts import MaskPrompt

MIN_IOU = 0.6


@dataclass(frozen=True)
class SamAgreement:
    """A SAM 2 that is asked about true prompts.

    Attributes:
        encoder: Its expensive half.
        segmenter: Its cheap half.
        weights_hash: Which weights; see `LoadedSegmenter`.
    """

    encoder: ImageEncoder
    segmenter: Segmenter
    weights_hash: str

    @classmethod
    def load(cls, name_or_folder: str, device: str) -> SamAgreement:
        """Load the model; see `load_segmenter`.

        Raises:
            SegZeroError: It cannot be loaded.
        """
        loaded = load_segmenter(name_or_folder, device)
        return cls(loaded.encoder, loaded.segmenter, loaded.weights_hash)

    def check(
        self,
        image: RgbImage,
        masks: Sequence[NDArray[np.bool_]],
        prompts: Sequence[MaskPrompt],
    ) -> None:
        """Compare every object with what SAM makes of its box and points.

        Args:
            image: uint8 [H, W, 3], RGB.
            masks: bool [H, W] each; without any there is nothing to disagree about.
            prompts: Their boxes and points [px].

        Raises:
            SampleError: An object's IoU is below `MIN_IOU`.
        """
        if not masks:
            return
        asked = [
            ObjectPrompt(Box(*prompt.box_xyxy), tuple(Point(*xy) for xy in prompt.points))
            for prompt in prompts
        ]
        found = self.segmenter.segment(self.encoder.encode(image), asked).masks
        for number, (mask, guess) in enumerate(zip(masks, found, strict=True)):
            iou = mask_iou(mask, guess)
            if iou < MIN_IOU:
                raise SampleError(
                    SAM_DISAGREES, f"SAM finds object {number} with IoU {iou:.2f} only"
                )
