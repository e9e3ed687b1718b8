"""What an image encoder is: the expensive half of the segmenter, run while the reasoner thinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segzero_core.types import RgbImage, SizeWH

if TYPE_CHECKING:
    import torch

    Features: TypeAlias = torch.Tensor | NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Embedding:
    """An encoded image: a value that is passed on, so that no state is hidden in a model.

    The features are raw: SAM 2's "no memory" vector is not added yet, so that a tracker can use
    them too. Nobody may write to them.

    Attributes:
        image_embed: float [1, C, h, w], the coarsest features, at a 16th of the encoder's input.
        high_res_feats: The two finer maps, finest first, after the decoder's own projections.
        size_wh: Width and height of the image that was encoded [px].
    """

    image_embed: Features
    high_res_feats: tuple[Features, ...]
    size_wh: SizeWH


class ImageEncoder(Protocol):
    """Turns an image into features; safe to call from any thread."""

    @property
    def backend(self) -> str:
        """What runs it, such as `torch`; part of every result's provenance."""

    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image.

        Args:
            image: uint8 [H, W, 3], RGB; it is not changed.

        Raises:
            ShapeError: The image has another type or shape.
            SegmentationError: The encoder failed.
        """
