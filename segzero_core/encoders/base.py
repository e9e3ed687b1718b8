"""Image encoder protocol, its embeddings, and a cache of the last one."""

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

    from segzero_core.cpu_threads import CpuThreads

    Features: TypeAlias = torch.Tensor | NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Embedding:
    """Features of an image, read-only.

    SAM 2's "no memory" vector is not added yet, so that a tracker can use the features too.
    """

    # float [1, C, h, w], the coarsest features, at 1/16 of the encoder's input.
    image_embed: Features
    # The two finer maps, finest first, after the decoder's projections.
    high_res_feats: tuple[Features, ...]
    size_wh: SizeWH  # width and height of the image [px]


class ImageEncoder(Protocol):
    """The image encoder, the slow half of a segmenter; safe to call from any thread.

    It runs while the reasoner generates the reply.
    """

    @property
    def backend(self) -> str:
        """Name of the backend, such as `torch`; part of each result's `ModelIdentity`."""

    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image.

        Args:
            image: uint8 [H, W, 3], RGB; it is not changed.

        Raises:
            ShapeError: The image has another type or shape.
            SegmentationError: The encoder failed.
            OutOfMemoryError: The device has too little memory.
        """


class CachingEncoder:
    """Image encoder that caches the embedding of the last image, for further queries about it.

    Images are compared by their pixels, so an image that was changed in place is encoded again.
    `cores` are shared with the reasoner, if both run on the CPU.
    """

    def __init__(self, encoder: ImageEncoder, cores: CpuThreads | None = None) -> None:
        self._encoder = encoder
        self._turn = cores.encoding if cores is not None else contextlib.nullcontext
        self._lock = threading.Lock()
        self._digest = b""
        self._embedding: Embedding | None = None

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._encoder.backend

    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image, or return the cached embedding; see `ImageEncoder`."""
        shape = repr(check_rgb_image(image).shape).encode()
        pixels = np.ascontiguousarray(image).data
        digest = hashlib.blake2b(pixels, digest_size=16, key=shape).digest()
        with self._lock:
            if self._embedding is None or digest != self._digest:
                # Dropped before the next is made, so that memory holds only one.
                self._embedding = None
                with self._turn():
                    self._embedding = self._encoder.encode(image)
                self._digest = digest
            return self._embedding
