"""The protocol of a reasoner, and what all reasoners share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

from PIL import Image

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.errors import (
    OutOfMemoryError,
    ReasoningError,
    SegZeroError,
    is_out_of_memory,
)
from segzero_core.types import RgbImage, SizeWH, check_rgb_image


class Reasoner(Protocol):
    """A vision-language model that answers questions about one image at a time."""

    @property
    def description(self) -> ModelDescription:
        """The prompt template, the image size and the coordinate frame of the replies."""

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[str]:
        """Generate a reply for `parse_completion`, chunk by chunk.

        A chunk is the text of one token where the reasoner knows its tokens; it may be empty.
        The reply ends with `</answer>`, or where the model ends it.

        To stop early, set `cancel` or close the iterator. Work that has begun is finished first:
        the iterator ends when the model is done with its present step, which is one token, or the
        whole prompt at the beginning. By then no thread of this reply is left. A reply may make
        other replies of the same instance wait, never those of another instance.

        Args:
            image: uint8 [H, W, 3], RGB, of any size; it is not changed.
            query: What to find, such as "the red mug".
            cancel: Set by any thread to stop.

        Raises:
            InputError: The image or the query cannot be used.
            CancelledError: `cancel` was set.
            ReasoningError: The model failed; carries the reply so far.
            OutOfMemoryError: The device has too little memory.
        """


def squash(image: RgbImage, size_wh: SizeWH) -> Image.Image:
    """Resize an image to the size a model sees, without keeping its aspect ratio.

    Source: Seg-Zero's inference code (PIL, bilinear).
    """
    return Image.fromarray(check_rgb_image(image)).resize(size_wh, Image.Resampling.BILINEAR)


def reasoner_error(error: BaseException, completion: str) -> SegZeroError:
    """Turn any library's error into the one that `Reasoner.stream` promises."""
    if is_out_of_memory(error):
        return OutOfMemoryError(f"not enough memory for the reasoner: {error}")
    return ReasoningError(f"the reasoner failed: {error!r}", completion)
