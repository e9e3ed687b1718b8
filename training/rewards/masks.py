"""Mask IoU as a reward term, with the segmenter in the loop.

term = Term(MaskIoU(loaded.encoder, loaded.segmenter, open_image))
protocol = PROTOCOLS["segzero"].with_terms(mask_iou=term)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from segzero_core.completion.parser import parse_completion
from segzero_core.encoders.base import ImageEncoder
from segzero_core.errors import InputError
from segzero_core.geometry import mask_iou, to_image_frame
from segzero_core.segmenter.sam2 import Segmenter
from segzero_core.types import RgbImage
from training.rewards.ground_truth import GroundTruth
from training.rewards.terms import Answer


class MaskIoU:
    """IoU of the union of an answer's masks with the union of the true ones.

    As in `training.evaluation.metrics`, an empty answer is right where nothing fits and only
    there. An answer with a box outside the image scores 0, because the pipeline refuses it.
    `open_image` returns the input image with an `image_id`. A few embeddings are kept, because the
    completions of one question come together.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        segmenter: Segmenter,
        open_image: Callable[[str], RgbImage],
        *,
        kept_images: int = 8,
    ) -> None:
        self._segmenter = segmenter
        self._embedding = lru_cache(maxsize=kept_images)(
            lambda image_id: encoder.encode(open_image(image_id))
        )

    def __call__(self, answer: Answer, truth: GroundTruth) -> float:
        """Return the IoU in [0, 1]; see the class.

        Raises:
            InputError: There are objects, and the ground truth holds no masks or no image.
            SegmentationError: The segmenter failed.
        """
        if not answer.n_objects or not len(truth):
            return float(answer.n_objects == 0 and not len(truth))
        if truth.masks is None or not truth.image_id:
            raise InputError("mask IoU needs the truth's masks and image_id")
        height, width = truth.masks.shape[1:]
        prompts = parse_completion(answer.text).prompts
        seen_wh = truth.seen_size_wh
        try:
            in_image = [to_image_frame(prompt, seen_wh, (width, height)) for prompt in prompts]
        except InputError:  # a box lies outside the image
            return 0.0
        masks = self._segmenter.segment(self._embedding(truth.image_id), in_image).masks
        return mask_iou(masks.any(axis=0), np.asarray(truth.masks.any(axis=0), np.bool_))
