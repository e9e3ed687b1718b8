"""Reasoning segmentation: from a query about an image to a mask for each object that it means.

    from segzero_core import SegZero, load_image

    model = SegZero.load("tabletop")
    result = model.segment(load_image("table.png"), "something to drive a nail with")
    result.reasoning.thinking, result.segmentation.masks

Importing this package does not import torch; what needs it is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from segzero_core.completion.parser import StreamReader, parse_completion
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
    from segzero_core.checkpoints.description import ModelDescription
    from segzero_core.encoders.base import Embedding, ImageEncoder
    from segzero_core.images.files import load_image
    from segzero_core.images.overlay import draw_overlay
    from segzero_core.pipeline import SegZero
    from segzero_core.reasoner.base import Reasoner
    from segzero_core.reasoner.qwen import QwenReasoner
    from segzero_core.segmenter.sam2 import Sam2Segmenter, Segmenter, load_segmenter
    from segzero_core.tracking.scene_change import View
    from segzero_core.tracking.tracker import Sam2Tracker, Track, Tracker, Tracks

_LAZY = {
    "Embedding": "encoders.base",
    "ImageEncoder": "encoders.base",
    "ModelDescription": "checkpoints.description",
    "QwenReasoner": "reasoner.qwen",
    "Reasoner": "reasoner.base",
    "Sam2Segmenter": "segmenter.sam2",
    "Sam2Tracker": "tracking.tracker",
    "SegZero": "pipeline",
    "Segmenter": "segmenter.sam2",
    "Track": "tracking.tracker",
    "Tracker": "tracking.tracker",
    "Tracks": "tracking.tracker",
    "View": "tracking.scene_change",
    "draw_overlay": "images.overlay",
    "load_image": "images.files",
    "load_segmenter": "segmenter.sam2",
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
