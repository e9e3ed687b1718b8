"""The value types of the library: small, frozen, and checked when they are made.

Pixels are continuous coordinates with the origin at the top left corner, y down. A box is half
open: a mask with the single pixel (3, 5) has the box (3, 5, 4, 6). The frame of a box or point
(the image the model sees, or the input image) is documented where it is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError, ShapeError

RgbImage: TypeAlias = NDArray[np.uint8]
"""uint8 [H, W, 3], red first."""

SizeWH: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

_MAX_INSTANCES = np.iinfo(np.uint16).max


def check_rgb_image(image: object) -> RgbImage:
    """Return the image itself if it is a non-empty uint8 [H, W, 3] array.

    Raises:
        ShapeError: It is anything else.
    """
    expected = "a non-empty RGB image uint8 [H, W, 3]"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ShapeError("image", expected, image)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ShapeError("image", expected, image)
    return image


def _finite(name: str, value: object) -> float:
    """Return a coordinate as a float; True, "3" and NaN are not coordinates."""
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise InputError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = inf
    if not isfinite(number):
        raise InputError(f"{name}: expected a finite number, got {number}")
    return number


@dataclass(frozen=True, slots=True)
class Point:
    """A place in an image, in pixels of the frame in question."""

    x: float
    y: float

    def __post_init__(self) -> None:
        # Floats, which a reply's points are, need no conversion; they are made by the thousand.
        if type(self.x) is type(self.y) is float and isfinite(self.x) and isfinite(self.y):
            return
        object.__setattr__(self, "x", _finite("point x", self.x))
        object.__setattr__(self, "y", _finite("point y", self.y))

    @property
    def xy(self) -> tuple[float, float]:
        """Both coordinates in the usual order."""
        return self.x, self.y


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open rectangle with an area, in pixels of the frame in question."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    def __post_init__(self) -> None:
        # The usual case in one look: a width is finite only if both its ends are.
        if (
            type(self.x_min) is type(self.y_min) is type(self.x_max) is type(self.y_max) is float
            and self.x_min < self.x_max
            and self.y_min < self.y_max
            and isfinite(self.x_max - self.x_min)
            and isfinite(self.y_max - self.y_min)
        ):
            return
        for name in ("x_min", "y_min", "x_max", "y_max"):
            object.__setattr__(self, name, _finite(f"box {name}", getattr(self, name)))
        if not (self.x_min < self.x_max and self.y_min < self.y_max):
            raise InputError(
                f"box {list(self.xyxy)} has no area: x_min < x_max and y_min < y_max must hold"
            )
        if not (isfinite(self.width) and isfinite(self.height)):
            raise InputError(f"box {list(self.xyxy)} is too large to have a finite width")

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """The corners as x_min, y_min, x_max, y_max."""
        return self.x_min, self.y_min, self.x_max, self.y_max

    @property
    def width(self) -> float:
        """Extent along x [px]."""
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        """Extent along y [px]."""
        return self.y_max - self.y_min

    @property
    def area(self) -> float:
        """Width times height [px²]."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class ObjectPrompt:
    """One object the reasoner means: its box and the points inside it."""

    box: Box
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        if type(self.points) is not tuple:
            object.__setattr__(self, "points", tuple(self.points))
        if not isinstance(self.box, Box):
            raise InputError(f"an ObjectPrompt has one Box, got {type(self.box).__name__}")
        for point in self.points:
            if not isinstance(point, Point):
                raise InputError(f"an ObjectPrompt has Points, got {type(point).__name__}")


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the reasoner said."""

    thinking: str  # the text between `<think>` and `</think>`; empty where there is none
    prompts: tuple[ObjectPrompt, ...]  # the objects of the answer; none means that nothing matched
    completion: str  # the whole reply, as it came

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))


@dataclass(frozen=True, eq=False, slots=True)
class Segmentation:
    """One mask per object, in the order of the prompts. No mask at all is a valid result.

    Takes ownership of its arrays: they become read-only.
    """

    masks: NDArray[np.bool_]  # bool [N, H, W], in pixels of the input image
    scores: NDArray[np.float32]  # float32 [N], the predicted IoU of each mask, in [0, 1]

    def __post_init__(self) -> None:
        masks, scores = self.masks, self.scores
        if not isinstance(masks, np.ndarray) or masks.ndim != 3 or masks.dtype != np.bool_:
            raise ShapeError("masks", "bool [N, H, W]", masks)
        if (
            not isinstance(scores, np.ndarray)
            or scores.shape != masks.shape[:1]
            or scores.dtype != np.float32
        ):
            raise ShapeError("scores", f"float32 [{len(masks)}]", scores)
        masks.setflags(write=False)
        scores.setflags(write=False)

    @classmethod
    def empty(cls, size_wh: SizeWH) -> Segmentation:
        """Return the result of an image in which nothing matched."""
        width, height = size_wh
        return cls(np.zeros((0, height, width), np.bool_), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def size_wh(self) -> SizeWH:
        """Width and height of the masks [px]."""
        return int(self.masks.shape[2]), int(self.masks.shape[1])

    def union(self) -> NDArray[np.bool_]:
        """Return bool [H, W]: the pixels that belong to any object."""
        return np.asarray(self.masks.any(axis=0), np.bool_)

    def instance_ids(self) -> NDArray[np.uint16]:
        """Return uint16 [H, W]: 0 for the background, k for object k, counted from 1.

        Where masks overlap, the one with the higher score is on top.
        """
        if len(self) > _MAX_INSTANCES:
            raise InputError(f"{len(self)} masks do not fit into 16 bits")
        ids = np.zeros(self.masks.shape[1:], np.uint16)
        for index in np.argsort(self.scores, kind="stable"):
            ids[self.masks[index]] = index + 1
        return ids


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one answer went.

    The encoder works while the reasoner thinks, so the parts do not add up to the total.
    """

    first_token_ms: float  # from the question to the first chunk of text [ms]
    reasoner_ms: float  # from the question to the end of the reply [ms]
    encoder_ms: float  # the image encoder's own working time [ms]
    decoder_ms: float  # the mask decoder's own working time [ms]
    total_ms: float  # from the question to the result [ms]
    tokens: int  # chunks of text that the reasoner gave; for a local model, tokens
    first_mask_ms: float = 0.0  # from the question to the first mask [ms]; 0 where there is none

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if _finite(name, value := getattr(self, name)) < 0:
                raise InputError(f"{name}: expected zero or more, got {value}")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights answered."""

    name: str  # the name, folder or Hub id the model was loaded by
    # First 16 hexadecimal digits of the SHA-256 over all files that change its answers: weights,
    # configurations, tokenizer, templates.
    weights_hash: str
    encoder_backend: str  # what ran the image encoder, such as `torch`
    encoder_reason: str = ""  # why that one, in one line for a person


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """The answer to one query about one image."""

    query: str  # the query as the reasoner was asked it
    reasoning: Reasoning  # thinking and prompts; boxes and points are in pixels of the input image
    segmentation: Segmentation  # one mask per prompt
    timings: Timings  # where the time went
    model: ModelIdentity  # which weights answered
    size_wh: SizeWH  # width and height of the input image [px]

    def __post_init__(self) -> None:
        if self.segmentation.size_wh != self.size_wh:
            raise ShapeError(
                "result masks", f"the image's size {self.size_wh}", self.segmentation.masks
            )
        if len(self.segmentation) != len(self.reasoning.prompts):
            raise InputError(
                f"{len(self.segmentation)} masks for {len(self.reasoning.prompts)} prompts"
            )

    @property
    def answered_by(self) -> str:
        """Name of the reasoner that answered: the model, or one of its fallbacks."""
        return self.model.name
