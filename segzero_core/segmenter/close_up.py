"""A close-up: the part of an image around one small object, encoded by itself and so larger.

SAM 2 sees every image as a square of one size, and its masks have cells of 4x4 pixels of that. A
small object has few cells. In a close-up it has many, at the price of one more image encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.types import Box, ObjectPrompt, Point, RgbImage, Segmentation, SizeWH

if TYPE_CHECKING:
    from segzero_core.encoders.base import Embedding, ImageEncoder
    from segzero_core.segmenter.sam2 import Segmenter

_BOX_SIDES: Final = 3
"""Side of a close-up, in longer sides of the object's box: what is beside the object helps."""
_MIN_SIDE_PX: Final = 96
MOST_CLOSE_UPS: Final = 16
"""Close-ups at once; further small objects are seen in the whole image, which takes no time."""


@dataclass(frozen=True, slots=True)
class CloseUp:
    """A square part of an image [px]: its upper left corner, and its side."""

    x: int
    y: int
    side: int

    @classmethod
    def around(cls, box: Box, size_wh: SizeWH) -> CloseUp:
        """Place it around a box, within the image."""
        width, height = size_wh
        side = round(max(_BOX_SIDES * max(box.width, box.height), _MIN_SIDE_PX))
        side = min(side, width, height)
        x = round((box.x_min + box.x_max - side) / 2)
        y = round((box.y_min + box.y_max - side) / 2)
        return cls(min(max(x, 0), width - side), min(max(y, 0), height - side), side)

    def crop(self, image: RgbImage) -> RgbImage:
        """Cut it out: uint8 [side, side, 3]."""
        part = image[self.y : self.y + self.side, self.x : self.x + self.side]
        return np.ascontiguousarray(part)

    def moved(self, prompt: ObjectPrompt) -> ObjectPrompt:
        """Express a prompt in pixels of the close-up; what lies outside comes to its border."""
        box, shift = prompt.box, np.array((self.x, self.y))
        low = np.clip((box.x_min, box.y_min) - shift, 0, self.side)
        high = np.clip((box.x_max, box.y_max) - shift, 0, self.side)
        points = (np.clip(point.xy - shift, 0, self.side - 1) for point in prompt.points)
        return ObjectPrompt(
            Box(*map(float, (*low, *high))), tuple(Point(float(x), float(y)) for x, y in points)
        )

    def paste(self, mask: NDArray[np.bool_], size_wh: SizeWH) -> NDArray[np.bool_]:
        """Put a mask bool [side, side] into an empty one of the whole image: bool [H, W]."""
        whole = np.zeros(size_wh[::-1], np.bool_)
        whole[self.y : self.y + self.side, self.x : self.x + self.side] = mask
        return whole


def is_small(box: Box, size_wh: SizeWH, share: float) -> bool:
    """Whether a box's longer side is below a share of the image's shorter side."""
    return max(box.width, box.height) < share * min(size_wh)


def segment_closely(
    encoder: ImageEncoder,
    segmenter: Segmenter,
    image: RgbImage,
    embedding: Embedding,
    prompts: Sequence[ObjectPrompt],
    share: float,
) -> Segmentation:
    """Decode one mask per prompt, of a small object in a close-up of its own.

    Args:
        encoder: Encodes the close-ups.
        segmenter: Decodes the masks.
        image: uint8 [H, W, 3].
        embedding: The encoded image.
        prompts: In pixels of the image.
        share: What is small; see `is_small`. With 0, nothing is.

    Raises:
        SegmentationError: The encoder or the decoder failed.
        OutOfMemoryError: The device has too little memory.
    """
    size_wh = embedding.size_wh
    small = [index for index, p in enumerate(prompts) if is_small(p.box, size_wh, share)]
    small = small[:MOST_CLOSE_UPS]
    if not small:
        return segmenter.segment(embedding, prompts)
    large = [index for index in range(len(prompts)) if index not in small]
    masks = np.zeros((len(prompts), *size_wh[::-1]), np.bool_)
    scores = np.zeros(len(prompts), np.float32)
    whole = segmenter.segment(embedding, [prompts[index] for index in large])
    masks[large], scores[large] = whole.masks, whole.scores
    for index in small:
        part = CloseUp.around(prompts[index].box, size_wh)
        made = segmenter.segment(encoder.encode(part.crop(image)), [part.moved(prompts[index])])
        masks[index], scores[index] = part.paste(made.masks[0], size_wh), made.scores[0]
    return Segmentation(masks, scores)
