"""Who answers in an evaluation: a model, question by question or in batches, or a blind guess."""

from __future__ import annotations

import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segzero_core.errors import InputError, ReasoningError, SegZeroError
from segzero_core.pipeline import SegZero
from segzero_core.types import Box, ObjectPrompt, Point, RgbImage
from training.data.mask_prompts import mask_to_prompt
from training.evaluation.cases import Case, PictureCases, View

if TYPE_CHECKING:
    from segzero_core.checkpoints.description import ModelDescription
    from segzero_core.encoders.base import Embedding, ImageEncoder

BASELINE_SEED = 0


@dataclass(frozen=True, eq=False)
class Reply:
    """What came back for one case.

    Attributes:
        completion: The reasoner's whole reply, as far as it came; empty for a blind guess.
        prompts: The objects of the answer, in pixels of the image.
        masks: bool [N, H, W], one per object; None where there is no answer.
        ms: Time it took [ms].
        unusable: The reply could not be read.
        error: What went wrong; empty where nothing did.
    """

    completion: str
    prompts: tuple[ObjectPrompt, ...]
    masks: NDArray[np.bool_] | None
    ms: float
    unusable: bool = False
    error: str = ""


Answerer = Callable[[PictureCases, View], list[Reply]]
"""Answers everything that is asked about a picture: one reply per case, in order."""


class EncodeOnce:
    """An image encoder that remembers the last image: questions about one come together.

    Args:
        encoder: Does the work.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._last: tuple[RgbImage, Embedding] | None = None

    @property
    def backend(self) -> str:
        """What runs the encoder."""
        return self._encoder.backend

    def encode(self, image: RgbImage) -> Embedding:
        """Encode an image, unless it is the very array of the last call; see `ImageEncoder`."""
        with self._lock:
            if self._last is None or self._last[0] is not image:
                self._last = (image, self._encoder.encode(image))
            return self._last[1]


def ask_pipeline(pipeline: SegZero) -> Answerer:
    """Answer with a model, question by question; whatever it fails at counts as nothing found."""
    pipeline = replace(pipeline, encoder=EncodeOnce(pipeline.encoder))

    def answer(picture: PictureCases, view: View) -> list[Reply]:
        return [_ask(pipeline, view.image, case) for case in picture.cases]

    return answer


def _ask(pipeline: SegZero, image: RgbImage, case: Case, ms_before: float = 0.0) -> Reply:
    started = time.perf_counter()
    try:
        result = pipeline.segment(image, case.query)
    except SegZeroError as error:
        ms = ms_before + (time.perf_counter() - started) * 1e3
        unusable = isinstance(error, ReasoningError)
        if not unusable:
            tqdm.write(f"{case.id}: {case.query!r}: {error}", file=sys.stderr)
        completion = error.completion if isinstance(error, ReasoningError) else ""
        return Reply(completion, (), None, ms, unusable, str(error))
    ms = ms_before + (time.perf_counter() - started) * 1e3
    reasoning = result.reasoning
    return Reply(reasoning.completion, reasoning.prompts, result.segmentation.masks, ms)


def ask_in_batches(
    pipeline: SegZero, complete: Callable[[RgbImage, Sequence[str]], list[str]], size: int
) -> Answerer:
    """Answer with a model that thinks about several questions of a picture at once.

    From the replies on, everything is as question by question.

    Args:
        pipeline: The model; its reasoner is asked where a batch fails.
        complete: Replies to several queries about one image.
        size: At most so many at once.
    """
    pipeline = replace(pipeline, encoder=EncodeOnce(pipeline.encoder))

    def answer(picture: PictureCases, view: View) -> list[Reply]:
        replies = []
        for start in range(0, len(picture.cases), size):
            replies += answer_batch(picture.cases[start : start + size], view.image)
        return replies

    def answer_batch(cases: Sequence[Case], image: RgbImage) -> list[Reply]:
        started = time.perf_counter()
        try:
            texts = complete(image, [case.query for case in cases])
        except SegZeroError:
            # One by one, it shows which question it was.
            return [_ask(pipeline, image, case) for case in cases]
        ms_each = (time.perf_counter() - started) * 1e3 / len(cases)
        description = pipeline.description
        return [
            _ask(replace(pipeline, reasoner=_Said(text, description)), image, case, ms_each)
            for case, text in zip(cases, texts, strict=True)
        ]

    return answer


@dataclass(frozen=True)
class _Said:
    """A reasoner whose reply is already there."""

    text: str
    description: ModelDescription

    def stream(self, image: RgbImage, query: str, **_: Any) -> Iterator[str]:
        yield self.text


def ask_baseline(name: str) -> Answerer:
    """Answer blindly with the mask of one thing in the picture: a `random` one, or the `largest`.

    The random one depends on the case alone, so that it does not matter who asks it.
    """

    def answer(picture: PictureCases, view: View) -> list[Reply]:
        if not view.objects:
            raise InputError("a blind guess needs rendered scenes with something in them")
        return [guess(case, view.objects) for case in picture.cases]

    def guess(case: Case, objects: Sequence[NDArray[np.bool_]]) -> Reply:
        started = time.perf_counter()
        if name == "random":
            rng = np.random.default_rng((BASELINE_SEED, zlib.crc32(case.id.encode())))
            mask = objects[int(rng.integers(len(objects)))]
        else:
            mask = max(objects, key=np.count_nonzero)
        box, points = mask_to_prompt(mask, max_points=1)
        prompt = ObjectPrompt(Box(*box), tuple(Point(x, y) for x, y in points))
        return Reply("", (prompt,), mask[None], (time.perf_counter() - started) * 1e3)

    return answer
