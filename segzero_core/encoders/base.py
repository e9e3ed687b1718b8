"""What an image encoder is: the expensive half of the segmenter, run while the reasoner thinks."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segzero_core.types import RgbImage, SizeWH, check_rgb_image

if TYPE_CHECKING:
    import torch

    from segzero_core.cpu_threads import Cores

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


class RememberingEncoder:
    """Keeps the embedding of the last frame, for a second question about it.

    A frame is the same if its pixels are; an image that was changed in place is another one.

    Args:
        encoder: Encodes what is new, one image at a time.
        cores: Shared with the reasoner, where both work on the processor.
    """

    def __init__(self, encoder: ImageEncoder, cores: Cores | None = None) -> None:
        self._encoder = encoder
        self._turn = cores.encoding if cores is not None else contextlib.nullcontext
        self._lock = threading.Lock()
        self._digest = b""
        self._embedding: Embedding | None = None

    @property
    def backend(self) -> str:
        """What runs the encoder."""
        return self._encoder.backend

    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image, or return what it was before; see `ImageEncoder`."""
        digest = _digest(check_rgb_image(image))
        with self._lock:
            if self._embedding is None or digest != self._digest:
                # Given up before the next is made, so that memory holds one.
                self._embedding = None
                with self._turn():
                    self._embedding = self._encoder.encode(image)
                self._digest = digest
            return self._embedding


def _digest(image: RgbImage) -> bytes:
    shape = repr(image.shape).encode()
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, key=shape).digest()
