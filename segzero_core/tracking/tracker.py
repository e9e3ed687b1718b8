"""Follows the objects of an answer from picture to picture, without asking the reasoner again.

    tracker = model.new_tracker()
    tracks = tracker.start(image, result.segmentation, label=result.query)
    for image in camera:
        tracks = tracker.step(image)

Pictures may be left out; the memory stays as large as it is, however many come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segzero_core.checkpoints.sam2_checkpoint import at_side
from segzero_core.encoders.torch_encoder import TorchImageEncoder
from segzero_core.errors import (
    InputError,
    OutOfMemoryError,
    SegmentationError,
    ShapeError,
    is_out_of_memory,
)
from segzero_core.tracking.memory import ObjectMemory, Seen
from segzero_core.tracking.scene_change import Place, View, compare, look
from segzero_core.types import Box, RgbImage, Segmentation, SizeWH, check_rgb_image


@dataclass(frozen=True, eq=False, slots=True)
class Track:
    """One followed object in one picture.

    Attributes:
        id: Number of the object in the answer, from 1.
        label: The words that the object answers.
        mask: bool [H, W], in pixels of the picture; empty where the object is lost. Read-only.
        box: Extent of the mask, half-open [px]; None where the object is lost.
        score: Predicted IoU of the mask, in [0, 1]; 0 where the object is lost.
    """

    id: int
    label: str
    mask: NDArray[np.bool_]
    box: Box | None
    score: float

    def __post_init__(self) -> None:
        self.mask.setflags(write=False)

    @property
    def lost(self) -> bool:
        """Whether the object is not seen in this picture."""
        return self.box is None


@dataclass(frozen=True, eq=False, slots=True)
class Tracks:
    """The followed objects in one picture.

    Attributes:
        tracks: In the order of the answer.
        view: What the picture is to those before it. Unless it is `SAME`, nothing was looked
            for: all objects are lost, and the memory is as before.
        size_wh: Width and height of the picture [px].
    """

    tracks: tuple[Track, ...]
    view: View
    size_wh: SizeWH


class Tracker(Protocol):
    """Follows the objects of one answer; not to be used by two threads at a time."""

    def start(self, image: RgbImage, segmentation: Segmentation, label: str = "") -> Tracks:
        """Begin with an answer, forgetting what was followed before.

        Args:
            image: uint8 [H, W, 3], the picture that was asked about.
            segmentation: Its objects; those with an empty mask are lost from the beginning.
            label: The words that the objects answer.

        Raises:
            InputError: There is no object, no mask has a pixel, the picture shows nothing, or the
                masks are of another size.
            SegmentationError: The model failed.
            OutOfMemoryError: The device has too little memory.
        """

    def step(self, image: RgbImage) -> Tracks:
        """Look for the objects in the next picture.

        Args:
            image: uint8 [H, W, 3].

        Raises:
            InputError: Nothing was begun, or this is no picture.
            SegmentationError: The model failed.
            OutOfMemoryError: The device has too little memory.
        """

    def reset(self) -> None:
        """Forget everything."""


@dataclass(eq=False, slots=True)
class _Followed:
    """What a tracker knows between two pictures."""

    memories: list[ObjectMemory]
    place: Place
    ids: list[int]  # of the remembered objects
    count: int  # of all objects, with those that were never there
    label: str


class Sam2Tracker:
    """Follows objects by the memory of a SAM 2 model; see `Tracker`.

    Args:
        model: A `SAM2Base` in evaluation mode, on its device; shared, not copied.
        side: Side of the square that pictures are squashed to [px]; 0: the model's own.
        careful: See `ObjectMemory`.
    """

    def __init__(self, model: nn.Module, side: int = 0, *, careful: bool = False) -> None:
        self._model = at_side(model, side) if side else model
        self._encoder = TorchImageEncoder(self._model)
        self._careful = careful
        self._followed: _Followed | None = None

    @property
    def remembered(self) -> int:
        """How many pictures the memories hold; it stops growing."""
        return sum(each.remembered for each in self._followed.memories) if self._followed else 0

    def start(self, image: RgbImage, segmentation: Segmentation, label: str = "") -> Tracks:
        """Begin with an answer; see `Tracker`."""
        self.reset()
        size_wh = _size_of(image)
        if segmentation.size_wh != size_wh:
            raise ShapeError("masks", f"the picture's size {size_wh}", segmentation.masks)
        present = segmentation.masks.any(axis=(1, 2))
        if not present.any():
            raise InputError(
                f"{len(segmentation)} objects and none has a pixel: there is nothing to follow"
            )
        place = look(image)
        if place is None:
            raise InputError(f"{View.BLANK.value}: there is nothing to follow in it")
        masks = segmentation.masks[present]
        with _model_errors():
            first = self._encoder.encode(image)
            memories = [
                ObjectMemory(self._model, first, mask, careful=self._careful) for mask in masks
            ]
        ids = [int(index) + 1 for index in np.flatnonzero(present)]
        self._followed = _Followed(memories, place, ids, len(segmentation), label)
        scores = segmentation.scores[present]
        seen = [Seen(mask, float(score)) for mask, score in zip(masks, scores, strict=True)]
        return self._tracks(self._followed, seen, View.SAME, size_wh)

    def step(self, image: RgbImage) -> Tracks:
        """Look for the objects in the next picture; see `Tracker`."""
        size_wh, followed = _size_of(image), self._followed
        if followed is None:
            raise InputError("nothing is followed: call start with an answer first")
        place = look(image)
        view = compare(followed.place, place)
        if view is not View.SAME or place is None:
            width, height = size_wh
            nothing = Seen(np.zeros((height, width), np.bool_), 0.0)
            return self._tracks(followed, [nothing] * len(followed.ids), view, size_wh)
        with _model_errors():
            embedding = self._encoder.encode(image)  # which all objects share
            seen = [memory.find(embedding) for memory in followed.memories]
        followed.place = place
        return self._tracks(followed, seen, view, size_wh)

    def reset(self) -> None:
        """Forget everything."""
        self._followed = None

    @staticmethod
    def _tracks(followed: _Followed, seen: list[Seen], view: View, size_wh: SizeWH) -> Tracks:
        by_id = dict(zip(followed.ids, seen, strict=True))
        nothing = Seen(np.zeros(size_wh[::-1], np.bool_), 0.0)
        tracks = []
        for object_id in range(1, followed.count + 1):
            each = by_id.get(object_id, nothing)
            track = Track(object_id, followed.label, each.mask, box_of(each.mask), each.score)
            tracks.append(track)
        return Tracks(tuple(tracks), view, size_wh)


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Return the extent of a mask, half-open [px]; None if it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _size_of(image: RgbImage) -> SizeWH:
    height, width = check_rgb_image(image).shape[:2]
    return int(width), int(height)


@contextmanager
def _model_errors() -> Iterator[None]:
    """Turn what torch raises into the errors of this package."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough memory to track: {error}") from error
        raise SegmentationError(f"tracking failed: {error}") from error
