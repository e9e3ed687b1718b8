"""What happens while a query is answered, one frozen value per event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

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

    Attributes:
        index: Place of the object in the answer, from 0.
        prompt: Its box and points. From the pipeline, in pixels of the input image; from the
            `StreamReader`, in the coordinates written in the text.
    """

    index: int
    prompt: ObjectPrompt


@dataclass(frozen=True, eq=False, slots=True)
class MasksReady:
    """The masks of all objects are there."""

    segmentation: Segmentation


@dataclass(frozen=True, eq=False, slots=True)
class Finished:
    """The last event: the whole result."""

    result: Result


Event: TypeAlias = ThinkingDelta | AnswerDelta | PromptFound | MasksReady | Finished
