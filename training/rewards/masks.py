"""Mask IoU as a reward: the segmenter in the loop, so that a prompt earns what its mask is worth.

Used as a term that is added to a protocol:

term = Term(MaskIoU(loaded.encoder, loaded.segmenter, open_image))
protocol = PROTOCOLS["segzero"].with_terms(mask_iou=term)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from segzero_core.completion.parser import parse_completion
from segzero_core.encoders.base import Embedding, ImageEncoder
from segzero_core.errors import InputError
from segzero_core.geometry import to_image_frame
from segzero_core.types import Box, ObjectPrompt, RgbImage, SizeWH
from training.evaluation.metrics import score_answer
from training.rewards.ground_truth import Truth
from training.rewards.terms import Answer

if TYPE_CHECKING:
    from segzero_core.segmenter.sam2 import Segmenter

_MEANT = "meant"


class MaskIoU:
    """IoU of the union of an answer's masks with the union of the true ones.

    The rules are those of `training.evaluation.metrics`: an empty answer is right where nothing
    fits and only there. An answer with a box outside the picture is one that the pipeline
    refuses: 0.

    Args:
        encoder: The segmenter's expensive half.
        segmenter: Its cheap half.
        open_image: Returns the input image with an `image_id`.
        kept_images: How many embeddings are kept; the completions of one question come together,
            so a few are enough.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        segmenter: Segmenter,
        open_image: Callable[[str], RgbImage],
        *,
        kept_images: int = 8,
    ) -> None:
        self._encoder = encoder
        self._segmenter = segmenter
        self._open_image = open_image
        self._embedding = lru_cache(maxsize=kept_images)(self._encode)

    def __call__(self, answer: Answer, truth: Truth) -> float:
        """Return the IoU in [0, 1]; see the class.

        Raises:
            InputError: Something is meant and the truth holds no masks or no image.
            SegmentationError: The segmenter failed.
        """
        if not answer.n_objects or not len(truth):
            return float(answer.n_objects == 0 and not len(truth))
        if truth.masks is None or not truth.image_id:
            raise InputError("mask IoU needs the truth's masks and image_id")
        height, width = truth.masks.shape[1:]
        prompts = _in_image(answer.text, truth.seen_size_wh, (width, height))
        if prompts is None:
            return 0.0
        masks = self._segmenter.segment(self._embedding(truth.image_id), prompts).masks
        boxes = [prompt.box for prompt in prompts]
        true_boxes = [Box(*box) for box in truth.boxes_xyxy]
        union = np.asarray(truth.masks.any(axis=0), np.bool_)
        return score_answer(_MEANT, masks, union, boxes, true_boxes, ms=0.0).iou

    def _encode(self, image_id: str) -> Embedding:
        return self._encoder.encode(self._open_image(image_id))


def _in_image(text: str, seen_size_wh: SizeWH, image_wh: SizeWH) -> list[ObjectPrompt] | None:
    """Return the objects in pixels of the image; None if one lies outside, as in the pipeline."""
    prompts = parse_completion(text).prompts
    try:
        return [to_image_frame(prompt, seen_size_wh, image_wh) for prompt in prompts]
    except InputError:
        return None
