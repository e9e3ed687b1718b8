"""A bundled model, or any other, that answers the page's questions."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segzero_cli.segment import to_json
from segzero_cli.web.examples import Example
from segzero_cli.web.space import cloud_record, space_record, unmeasured_record
from segzero_cli.web.uploads import decode_image, encode_image
from segzero_core.depth import GraspConfig, measure_object
from segzero_core.errors import InputError, raise_if_cancelled
from segzero_core.events import (
    AnswerDelta,
    Event,
    Finished,
    MaskReady,
    PromptFound,
    ThinkingDelta,
)
from segzero_core.geometry import box_from_mask
from segzero_core.images.palette import Color, choose_colors
from segzero_core.pipeline import SegZero
from segzero_core.types import ObjectPrompt, Result

PageEvent: TypeAlias = tuple[str, dict[str, Any]]
"""Name and data of one event that the page receives."""


@dataclass(frozen=True, eq=False)
class Question:
    """What one visitor asks."""

    text: str
    image: bytes | Example | None  # encoded; None is what the robot's camera sees


class Answerer(Protocol):
    """Answers questions, one at a time and in one thread."""

    name: str  # what the page calls it
    is_robot: bool  # whether it can answer about what its own camera sees
    state: str  # for a person: whether it is ready, or why not

    def prepare(self) -> None:
        """Do what takes long before the first answer; does nothing the second time."""

    def answer(self, question: Question, cancel: threading.Event) -> Iterator[PageEvent]:
        """Yield what happens; raise a SegZeroError where there is no answer."""


class LocalModel:
    """A model in this process, loaded at its first use; see `Answerer`."""

    is_robot = False

    def __init__(self, name: str, options: dict[str, Any], model: SegZero | None = None) -> None:
        self.name = name
        self.state = "ready" if model else "not loaded"
        self._options = options
        self._model = model

    def prepare(self) -> None:
        """Load the model."""
        if self._model is not None:
            return
        self.state = "loading"
        try:
            self._model = SegZero.load(self.name, **self._options)
        except Exception as error:
            self.state = f"failed: {error}"
            raise
        self.state = "ready"

    def answer(self, question: Question, cancel: threading.Event) -> Iterator[PageEvent]:
        """Yield what happens while the model answers."""
        if question.image is None:
            raise InputError("there is no image; choose one, or click an example")
        self.prepare()
        assert self._model is not None
        example = question.image if isinstance(question.image, Example) else None
        pixels = example.color if example else decode_image(question.image)  # type: ignore[arg-type]
        yield "started", {"size_wh": [pixels.shape[1], pixels.shape[0]], "model": self.name}
        masks: dict[int, NDArray[np.bool_]] = {}
        colors: list[Color] = []
        for event in self._model.stream(pixels, question.text, cancel=cancel):
            if isinstance(event, MaskReady):
                masks[event.index] = event.mask
                colors = choose_colors(pixels, masks.values(), colors)
                record = mask_record(event.index, event.mask, event.score)
                yield "mask", {**record, "color": colors[list(masks).index(event.index)]}
                continue
            if not isinstance(event, Finished):
                yield from page_events(event)
                continue
            yield "done", to_json(event.result)
            if example is not None:
                yield from _in_space(example, event.result, cancel)


def page_events(event: Event) -> Iterator[PageEvent]:
    """Turn an event of the core into those of the page; `at` is when the core had it [s]."""
    if isinstance(event, ThinkingDelta):
        yield "thinking", {"text": event.text, "at": time.time()}
    elif isinstance(event, AnswerDelta):
        yield "answer", {"text": event.text}
    elif isinstance(event, PromptFound):
        yield "object", {"index": event.index, **prompt_record(event.prompt)}


def prompt_record(prompt: ObjectPrompt) -> dict[str, Any]:
    """Return box and points of an object [px]."""
    return {
        "box_xyxy": list(prompt.box.xyxy),
        "points": [list(point.xy) for point in prompt.points],
    }


def mask_record(index: int, mask: NDArray[np.bool_], score: float) -> dict[str, Any]:
    """Return a mask, bool [H, W], as `cropped_mask_record`."""
    box = box_from_mask(mask)
    left, top, right, bottom = map(int, box.xyxy) if box is not None else (0, 0, 1, 1)
    return cropped_mask_record(index, mask[top:bottom, left:right], (left, top), score)


def cropped_mask_record(
    index: int, crop: NDArray[np.bool_], offset_xy: tuple[int, int], score: float
) -> dict[str, Any]:
    """Return a mask that is cut to its box as a PNG, with its place, area and score."""
    png = encode_image(crop.astype(np.uint8) * np.uint8(255))
    return {
        "index": index,
        "png": base64.b64encode(png).decode(),
        "offset_xy": list(offset_xy),
        "area_px": int(crop.sum()),
        "score": round(float(score), 4),
    }


def _in_space(example: Example, result: Result, cancel: threading.Event) -> Iterator[PageEvent]:
    """Measure each object by the example's depth, and give the scene as a cloud."""
    masks = result.segmentation.masks
    for index, mask in enumerate(masks):
        raise_if_cancelled(cancel)
        try:
            measured = measure_object(
                mask, example.depth_m, example.camera, grasping=GraspConfig()
            )
        except InputError as error:
            yield "space", {"index": index, **unmeasured_record(str(error))}
        else:
            yield (
                "space",
                {"index": index, **space_record(measured.box, measured.grasps, example.camera)},
            )
    yield "cloud", cloud_record(example.color, example.depth_m, masks, example.camera)
