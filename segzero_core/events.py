"""What happens while a query is answered, one frozen value per event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from segzero_core.types import ObjectPrompt, Result, Segmentation


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More of the thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """More of the text in `<answer>`."""

    text: str


@dataclass(frozen=True, slots=True)
class PromptFound:
    """An object of the answer is complete.

    An index that comes again replaces the earlier object: the model began a new answer.
    """

    index: int  # place of the object in the answer, from 0
    # Its box and points. From the pipeline, in pixels of the input image; from the `StreamReader`,
    # in the coordinates written in the text.
    prompt: ObjectPrompt


@dataclass(frozen=True, eq=False, slots=True)
class MaskReady:
    """The mask of one object is there, often while the reply still goes on.

    As with `PromptFound`, an index that comes again replaces the earlier mask.
    """

    index: int  # place of the object in the answer, from 0
    prompt: ObjectPrompt  # what it was made from, in pixels of the input image
    mask: NDArray[np.bool_]  # bool [H, W], read-only
    score: float  # the predicted IoU, in [0, 1]


@dataclass(frozen=True, eq=False, slots=True)
class MasksReady:
    """The masks of all objects are there."""

    segmentation: Segmentation


@dataclass(frozen=True, eq=False, slots=True)
class Finished:
    """The last event: the whole result."""

    result: Result


Event: TypeAlias = ThinkingDelta | AnswerDelta | PromptFound | MaskReady | MasksReady | Finished
