"""Predictors of an evaluation: a model, query by query or in batches, or a blind guess."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.errors import InputError, ReasoningError, SegZeroError
from segzero_core.pipeline import SegZero
from segzero_core.terminal.progress_bar import ProgressBar
from segzero_core.types import ObjectPrompt, RgbImage
from training.data.mask_prompts import mask_to_prompt
from training.evaluation.cases import Case, ImageCases, View

BASELINE_SEED = 0


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's answer to one case."""

    completion: str  # the reasoner's whole completion, as far as it came; empty for a blind guess
    prompts: tuple[ObjectPrompt, ...]  # the objects of the answer, in pixels of the image
    # bool [N, H, W], one per object; None where there is no answer.
    masks: NDArray[np.bool_] | None
    ms: float  # time it took [ms]
    unusable: bool = False  # the completion could not be read
    error: str = ""  # what went wrong; empty where nothing did


Predictor = Callable[[ImageCases, View], list[Prediction]]
"""Answers all cases of one image, in their order."""


def pipeline_predictor(pipeline: SegZero) -> Predictor:
    """Answer with a model, query by query; a failure counts as an answer without objects.

    A pipeline of `SegZero.load` encodes an image once for all queries about it.
    """
    return lambda cases, view: [_ask(pipeline, view.image, case) for case in cases.cases]


def _ask(pipeline: SegZero, image: RgbImage, case: Case, ms_before: float = 0.0) -> Prediction:
    started = time.perf_counter() - ms_before / 1e3
    try:
        result = pipeline.segment(image, case.query)
    except SegZeroError as error:
        ms = (time.perf_counter() - started) * 1e3
        if isinstance(error, ReasoningError):
            return Prediction(error.completion, (), None, ms, unusable=True, error=str(error))
        ProgressBar.write(f"{case.id}: {case.query!r}: {error}", file=sys.stderr)
        return Prediction("", (), None, ms, error=str(error))
    ms = (time.perf_counter() - started) * 1e3
    reasoning = result.reasoning
    return Prediction(reasoning.completion, reasoning.prompts, result.segmentation.masks, ms)


def batch_predictor(
    pipeline: SegZero, complete: Callable[[RgbImage, Sequence[str]], list[str]], size: int
) -> Predictor:
    """Answer with a model that completes up to `size` queries about an image at once.

    From the completions on, everything is as query by query. Where a batch fails, the pipeline's
    own reasoner is asked.
    """

    def predict_batch(cases: Sequence[Case], image: RgbImage) -> list[Prediction]:
        started = time.perf_counter()
        try:
            texts = complete(image, [case.query for case in cases])
        except SegZeroError:
            # One by one, it shows which query it was.
            return [_ask(pipeline, image, case) for case in cases]
        ms_each = (time.perf_counter() - started) * 1e3 / len(cases)
        reasoners = (_KnownCompletion(text, pipeline.description) for text in texts)
        return [
            _ask(replace(pipeline, reasoner=reasoner), image, case, ms_each)
            for case, reasoner in zip(cases, reasoners, strict=True)
        ]

    def predict(cases: ImageCases, view: View) -> list[Prediction]:
        starts = range(0, len(cases.cases), size)
        batches = (predict_batch(cases.cases[i : i + size], view.image) for i in starts)
        return [prediction for batch in batches for prediction in batch]

    return predict


@dataclass(frozen=True)
class _KnownCompletion:
    """A reasoner that returns a given completion."""

    text: str
    description: ModelDescription

    def stream(self, image: RgbImage, query: str, **_: Any) -> Iterator[str]:
        yield self.text


def baseline_predictor(name: str) -> Predictor:
    """Answer blindly with the mask of one object in the image: a `random` one, or the `largest`.

    The random one depends on the case alone, so it does not matter which process answers.
    """

    def guess(case: Case, objects: Sequence[NDArray[np.bool_]]) -> Prediction:
        started = time.perf_counter()
        if name == "random":
            rng = np.random.default_rng((BASELINE_SEED, zlib.crc32(case.id.encode())))
            mask = objects[int(rng.integers(len(objects)))]
        else:
            mask = max(objects, key=np.count_nonzero)
        prompt = mask_to_prompt(mask, max_points=1).to_object()
        return Prediction("", (prompt,), mask[None], (time.perf_counter() - started) * 1e3)

    def predict(cases: ImageCases, view: View) -> list[Prediction]:
        if not view.objects:
            raise InputError("a blind guess needs rendered scenes with objects in them")
        return [guess(case, view.objects) for case in cases.cases]

    return predict
