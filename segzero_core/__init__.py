"""From a question about a picture to the masks of the objects that are meant.

    from segzero_core import SegZero, load_image

    model = SegZero.load("tabletop")
    result = model.segment(load_image("table.png"), "something to drive a nail with")
    result.reasoning.thinking, result.segmentation.masks

Importing this package does not import torch; what needs it is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from segzero_core.errors import (
    AnswerParseError,
    CancelledError,
    ConfigError,
    EngineMismatchError,
    InputError,
    ModelLoadError,
    OutOfMemoryError,
    ReasoningError,
    SegmentationError,
    SegZeroError,
    ShapeError,
    TruncatedReplyError,
)
from segzero_core.events import (
    AnswerDelta,
    Event,
    Finished,
    MaskReady,
    MasksReady,
    PromptFound,
    ThinkingDelta,
)
from segzero_core.parser import StreamReader, parse_completion
from segzero_core.types import (
    Box,
    ModelIdentity,
    ObjectPrompt,
    Point,
    Reasoning,
    Result,
    RgbImage,
    Segmentation,
    SizeWH,
    Timings,
)

if TYPE_CHECKING:
    from segzero_core.description import ModelDescription
    from segzero_core.encoder import Embedding, ImageEncoder
    from segzero_core.images import load_image
    from segzero_core.overlay import draw_overlay
    from segzero_core.pipeline import SegZero
    from segzero_core.reasoner import QwenReasoner, Reasoner
    from segzero_core.segmenter import Sam2Segmenter, Segmenter, load_segmenter
    from segzero_core.tracking import Sam2Tracker, Track, Tracker, Tracks
    from segzero_core.tracking_view import View

_LAZY = {
    "Embedding": "encoder",
    "ImageEncoder": "encoder",
    "ModelDescription": "description",
    "QwenReasoner": "reasoner",
    "Reasoner": "reasoner",
    "Sam2Segmenter": "segmenter",
    "Sam2Tracker": "tracking",
    "SegZero": "pipeline",
    "Segmenter": "segmenter",
    "Track": "tracking",
    "Tracker": "tracking",
    "Tracks": "tracking",
    "View": "tracking_view",
    "draw_overlay": "overlay",
    "load_image": "images",
    "load_segmenter": "segmenter",
}

__all__ = [
    "AnswerDelta",
    "AnswerParseError",
    "Box",
    "CancelledError",
    "ConfigError",
    "Embedding",
    "EngineMismatchError",
    "Event",
    "Finished",
    "ImageEncoder",
    "InputError",
    "MaskReady",
    "MasksReady",
    "ModelDescription",
    "ModelIdentity",
    "ModelLoadError",
    "ObjectPrompt",
    "OutOfMemoryError",
    "Point",
    "PromptFound",
    "QwenReasoner",
    "Reasoner",
    "Reasoning",
    "ReasoningError",
    "Result",
    "RgbImage",
    "Sam2Segmenter",
    "Sam2Tracker",
    "SegZero",
    "SegZeroError",
    "Segmentation",
    "SegmentationError",
    "Segmenter",
    "ShapeError",
    "SizeWH",
    "StreamReader",
    "ThinkingDelta",
    "Timings",
    "Track",
    "Tracker",
    "Tracks",
    "TruncatedReplyError",
    "View",
    "draw_overlay",
    "load_image",
    "load_segmenter",
    "parse_completion",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
