"""The ground truth of one completion, in pixels of the image the model saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError, ShapeError
from segzero_core.geometry import check_size
from segzero_core.prompt import MULTI_OBJECT, SINGLE_OBJECT
from segzero_core.types import Box, Point, SizeWH

POINTS_OF_FORM: Final = {SINGLE_OBJECT: 2, MULTI_OBJECT: 1}
"""How many points an object has in each form of answer."""

XyXy = tuple[float, float, float, float]
Xy = tuple[float, float]


@dataclass(frozen=True, eq=False, slots=True)
class GroundTruth:
    """The ground truth of one completion. No objects means that nothing fits."""

    # One half-open box an object, a `Box` or four numbers; kept as numbers [px].
    boxes_xyxy: tuple[XyXy, ...]
    # The points of each object, `Point`s or pairs; the center of its largest inscribed circle
    # first [px]. One is enough for the multi-object form, which has one a box.
    points: tuple[tuple[Xy, ...], ...]
    seen_size_wh: SizeWH  # width and height of the image the model saw, the frame of both [px]
    form: str = MULTI_OBJECT  # the form of answer asked for, `single_object` or `multi_object`
    # bool [N, H, W], the objects in the input image, where a term needs them.
    masks: NDArray[np.bool_] | None = None
    image_id: str = ""  # names the input image, where a term needs it

    def __post_init__(self) -> None:
        if self.form not in POINTS_OF_FORM:
            raise InputError(f"form: expected one of {sorted(POINTS_OF_FORM)}, got {self.form!r}")
        check_size(self.seen_size_wh)
        boxes = tuple(_box(box) for box in self.boxes_xyxy)
        points = tuple(tuple(_point(point) for point in group) for group in self.points)
        if len(points) != len(boxes):
            raise InputError(f"{len(points)} groups of points for {len(boxes)} boxes")
        if self.form == SINGLE_OBJECT and len(boxes) > 1:
            raise InputError(f"the single-object form cannot name {len(boxes)} objects")
        needed = POINTS_OF_FORM[self.form]
        if any(len(group) < needed for group in points):
            raise InputError(f"each object needs {needed} points in the form {self.form}")
        if self.masks is not None and (
            self.masks.dtype != np.bool_ or self.masks.ndim != 3 or len(self.masks) != len(boxes)
        ):
            raise ShapeError("masks", f"bool [{len(boxes)}, H, W]", self.masks)
        object.__setattr__(self, "boxes_xyxy", boxes)
        object.__setattr__(self, "points", points)

    def __len__(self) -> int:
        return len(self.boxes_xyxy)


def _box(box: Box | Sequence[float]) -> XyXy:
    return (box if isinstance(box, Box) else Box(*box)).xyxy


def _point(point: Point | Sequence[float]) -> Xy:
    return (point if isinstance(point, Point) else Point(*point)).xy
