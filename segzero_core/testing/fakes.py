"""Fakes that are part of the public interface: a pipeline without weights, torch or a GPU.

model = fake_segzero('<answer>[{"bbox_2d": [1, 2, 9, 8], "point_2d": [4, 4]}]</answer>')
result = model.segment(image, "the red mug")
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, MutableSequence, Sequence

import numpy as np

from segzero_core.checkpoints.description import ABSOLUTE, ModelDescription
from segzero_core.encoders.base import Embedding
from segzero_core.errors import CancelledError, ConfigError
from segzero_core.pipeline import SegZero
from segzero_core.prompt import MULTI_OBJECT, SINGLE_OBJECT, clean_query
from segzero_core.types import (
    ModelIdentity,
    ObjectPrompt,
    RgbImage,
    Segmentation,
    SizeWH,
    check_rgb_image,
)


def fake_description(seen_size_wh: SizeWH = (100, 100), **changes: object) -> ModelDescription:
    """Describe a model that sees images of this size; any field can be changed."""
    values: dict[str, object] = {
        "name": "scripted",
        "prompt_template": MULTI_OBJECT,
        "templates": [MULTI_OBJECT, SINGLE_OBJECT],
        "seen_size_wh": list(seen_size_wh),
        "coordinates": ABSOLUTE,
        "segmenter": "fake",
        "max_new_tokens": 400,
    }
    return ModelDescription.from_values(values | changes, "fake_description")


class ScriptedReasoner:
    """Gives fixed replies, one after the other; the last one again and again.

    An exception among the replies is raised in its turn. Each chunk of `piece_chars` takes
    `delay_s`; a cancellation cuts that short.
    """

    def __init__(
        self,
        replies: str | BaseException | Sequence[str | BaseException],
        *,
        delay_s: float = 0.0,
        piece_chars: int = 4,
        description: ModelDescription | None = None,
    ) -> None:
        self._replies = [replies] if isinstance(replies, str | BaseException) else list(replies)
        if not self._replies or piece_chars < 1:
            raise ConfigError(
                "a ScriptedReasoner needs a reply, and chunks of 1 character or more"
            )
        self._delay_s = delay_s
        self._piece_chars = piece_chars
        self._description = description or fake_description()
        self._lock = threading.Lock()
        self.queries: MutableSequence[str] = []
        """Everything it was asked."""

    @property
    def description(self) -> ModelDescription:
        """How it says it is asked."""
        return self._description

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[str]:
        """Give the next reply in chunks; see `Reasoner`."""
        check_rgb_image(image)
        query = clean_query(query)
        with self._lock:
            self.queries.append(query)
            reply = self._replies[min(len(self.queries), len(self._replies)) - 1]
        if isinstance(reply, BaseException):
            raise reply
        return self._chunks(reply, cancel)

    def _chunks(self, reply: str, cancel: threading.Event | None) -> Iterator[str]:
        for start in range(0, len(reply), self._piece_chars):
            if cancel is None:
                time.sleep(self._delay_s)
            elif cancel.wait(self._delay_s):
                raise CancelledError("cancelled by the caller")
            yield reply[start : start + self._piece_chars]


class FakeEncoder:
    """Keeps the size of the image and nothing else, after a delay [s]; or raises an error."""

    def __init__(self, *, delay_s: float = 0.0, error: BaseException | None = None) -> None:
        self._delay_s = delay_s
        self._error = error

    @property
    def backend(self) -> str:
        """The name `fake`."""
        return "fake"

    def encode(self, image: RgbImage) -> Embedding:
        """Return an embedding of one zero; see `ImageEncoder`."""
        check_rgb_image(image)
        time.sleep(self._delay_s)
        if self._error is not None:
            raise self._error
        size_wh = (int(image.shape[1]), int(image.shape[0]))
        return Embedding(np.zeros((1, 1, 1, 1), np.float32), (), size_wh)


class BoxSegmenter:
    """Fills each box: the mask of an object is every pixel that its box touches."""

    def segment(self, embedding: Embedding, prompts: Sequence[ObjectPrompt]) -> Segmentation:
        """Return filled boxes with score 1; see `Segmenter`."""
        width, height = embedding.size_wh
        masks = np.zeros((len(prompts), height, width), np.bool_)
        for mask, prompt in zip(masks, prompts, strict=True):
            x_min, y_min = int(prompt.box.x_min), int(prompt.box.y_min)
            x_max, y_max = int(np.ceil(prompt.box.x_max)), int(np.ceil(prompt.box.y_max))
            mask[y_min:y_max, x_min:x_max] = True
        return Segmentation(masks, np.ones(len(prompts), np.float32))


def fake_segzero(
    replies: str | BaseException | Sequence[str | BaseException], *, delay_s: float = 0.0
) -> SegZero:
    """Return a pipeline that gives fixed replies and fills their boxes."""
    reasoner = ScriptedReasoner(replies, delay_s=delay_s)
    identity = ModelIdentity("scripted", "0" * 16, "fake")
    return SegZero(reasoner, FakeEncoder(), BoxSegmenter(), identity)
