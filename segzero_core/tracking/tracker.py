"""Follows the objects of an answer through later frames, without another query.

    tracker = model.new_tracker()
    tracks = tracker.start(image, result.segmentation, label=result.query)
    for frame in camera:
        tracks = tracker.step(frame)

Frames may be left out. The memory is bounded, however many frames come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from segzero_core.checkpoints.sam2_checkpoint import (
    TrackingFacts,
    at_side,
    find_sam2,
    load_sam2,
    read_tracking_facts,
)
from segzero_core.encoders.torch_encoder import TorchImageEncoder
from segzero_core.errors import ConfigError, InputError, ShapeError, segmentation_errors
from segzero_core.geometry import box_from_mask
from segzero_core.tracking.memory import ObjectMemory, Observation
from segzero_core.tracking.scene_change import (
    ColorHistogram,
    View,
    color_histogram,
    compare_scenes,
)
from segzero_core.types import Box, RgbImage, Segmentation, SizeWH, check_rgb_image


@dataclass(frozen=True, eq=False, slots=True)
class Track:
    """One followed object in one frame."""

    id: int  # number of the object in the answer, from 1
    label: str  # the query that the object answers
    # bool [H, W], in pixels of the frame; empty if the object is lost. Read-only.
    mask: NDArray[np.bool_]
    box: Box | None  # extent of the mask, half-open [px]; None if the object is lost
    score: float  # predicted IoU of the mask, in [0, 1]; 0 if the object is lost

    def __post_init__(self) -> None:
        self.mask.setflags(write=False)

    @property
    def lost(self) -> bool:
        """Whether the object is not visible in this frame."""
        return self.box is None


@dataclass(frozen=True, eq=False, slots=True)
class Tracks:
    """The followed objects in one frame."""

    tracks: tuple[Track, ...]  # in the order of the answer
    # How the frame relates to those before it. Unless it is `SAME`, all objects are lost without a
    # search, and the memory is unchanged.
    view: View
    size_wh: SizeWH  # width and height of the frame [px]


class Tracker(Protocol):
    """Follows the objects of one answer; for one thread at a time."""

    def start(self, image: RgbImage, segmentation: Segmentation, label: str = "") -> Tracks:
        """Start with an answer, and forget what was followed before.

        Args:
            image: uint8 [H, W, 3], the image of the query.
            segmentation: The objects; those with an empty mask are lost from the beginning.
            label: The query that the objects answer.

        Raises:
            InputError: There is no object, no mask has a pixel, the image is blank, or the masks
                have another size.
            SegmentationError: The model failed.
            OutOfMemoryError: The device has too little memory.
        """

    def step(self, image: RgbImage) -> Tracks:
        """Find the objects in the next frame.

        Args:
            image: uint8 [H, W, 3].

        Raises:
            InputError: The tracker was not started, or this is no image.
            SegmentationError: The model failed.
            OutOfMemoryError: The device has too little memory.
        """

    def reset(self) -> None:
        """Forget everything."""


@dataclass(eq=False, slots=True)
class _State:
    """What a tracker keeps between two frames."""

    memories: list[ObjectMemory | None]  # None: the object had no pixel in the answer
    histogram: ColorHistogram  # of the last frame that was searched
    label: str


class Sam2Tracker:
    """Follows objects by the memory of a SAM 2 model; see `Tracker`.

    The `SAM2Base`, in evaluation mode on its device, is shared, not copied. `side` is that of the
    square that frames are resized to [px], 0 the model's own. For `careful` see `ObjectMemory`.
    """

    def __init__(self, model: nn.Module, side: int = 0, *, careful: bool = False) -> None:
        self._model = at_side(model, side) if side else model
        self._encoder = TorchImageEncoder(self._model)
        self._careful = careful
        self._state: _State | None = None

    @classmethod
    def from_facts(cls, model: nn.Module, facts: TrackingFacts) -> Sam2Tracker:
        """Make a tracker as the model's configuration says.

        Raises:
            ConfigError: The model's memory was never trained.
        """
        if facts.memory == "untrained":
            raise ConfigError(
                "the segmenter's memory was never trained, so it cannot follow objects; train it"
                " with python -m training.bundle.tracker.train, or name another segmenter"
            )
        return cls(model, facts.side, careful=facts.careful)

    @classmethod
    def load(cls, name_or_folder: str, device: str | torch.device = "cpu") -> Sam2Tracker:
        """Load a SAM 2 as a tracker; for arguments and errors see `load_segmenter`."""
        files = find_sam2(name_or_folder)
        model = load_sam2(files, torch.device(device))
        return cls.from_facts(model, read_tracking_facts(files.config))

    @property
    def remembered(self) -> int:
        """Number of frames in the memories of all objects; it stops growing."""
        memories = self._state.memories if self._state else []
        return sum(memory.remembered for memory in memories if memory)

    def start(self, image: RgbImage, segmentation: Segmentation, label: str = "") -> Tracks:
        """Start with an answer; see `Tracker`."""
        self.reset()
        size_wh = _size_of(image)
        if segmentation.size_wh != size_wh:
            raise ShapeError("masks", f"the image's size {size_wh}", segmentation.masks)
        present = [bool(mask.any()) for mask in segmentation.masks]
        if not any(present):
            raise InputError(
                f"{len(segmentation)} objects and none has a pixel: there is nothing to follow"
            )
        histogram = color_histogram(image)
        if histogram is None:
            raise InputError(f"{View.BLANK.value}: there is nothing to follow in it")
        with segmentation_errors("tracker"):
            first = self._encoder.encode(image)
            memories = [
                ObjectMemory(self._model, first, mask, careful=self._careful) if seen else None
                for mask, seen in zip(segmentation.masks, present, strict=True)
            ]
        self._state = _State(memories, histogram, label)
        observations = [
            Observation(mask, float(score) if seen else 0.0)
            for mask, score, seen in zip(
                segmentation.masks, segmentation.scores, present, strict=True
            )
        ]
        return _tracks(label, observations, View.SAME, size_wh)

    def step(self, image: RgbImage) -> Tracks:
        """Find the objects in the next frame; see `Tracker`."""
        size_wh, state = _size_of(image), self._state
        if state is None:
            raise InputError("nothing is followed: call start with an answer first")
        histogram = color_histogram(image)
        view = compare_scenes(state.histogram, histogram)
        nothing = Observation(np.zeros(size_wh[::-1], np.bool_), 0.0)
        if histogram is None or view is not View.SAME:
            return _tracks(state.label, [nothing] * len(state.memories), view, size_wh)
        with segmentation_errors("tracker"):
            embedding = self._encoder.encode(image)  # shared by all objects
            observations = [
                memory.find(embedding) if memory else nothing for memory in state.memories
            ]
        state.histogram = histogram
        return _tracks(state.label, observations, view, size_wh)

    def reset(self) -> None:
        """Forget everything."""
        self._state = None


def _tracks(label: str, observations: list[Observation], view: View, size_wh: SizeWH) -> Tracks:
    tracks = (
        Track(number, label, each.mask, box_from_mask(each.mask), each.score)
        for number, each in enumerate(observations, start=1)
    )
    return Tracks(tuple(tracks), view, size_wh)


def _size_of(image: RgbImage) -> SizeWH:
    height, width = check_rgb_image(image).shape[:2]
    return int(width), int(height)
