"""Masks as COCO's run-length codes, made from arrays, polygons or runs.

What comes from a file is checked here before it reaches pycocotools, whose C code believes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segzero_core.types import SizeWH
from training.data.errors import BAD_MASK, EMPTY_MASK, OUTSIDE_IMAGE, SampleError

# Farther out than this many image sides, a corner is a mistake; drawing it would take memory in
# proportion to its distance.
MAX_SIDES_OUTSIDE = 10
_POLYGON_MIN_NUMBERS = 6
# COCO's text holds each run in characters of five bits; the sixth bit says that more follow.
_FIRST_CHAR, _LAST_CHAR, _MORE, _SIGN = 48, 111, 0x20, 0x10
_MAX_CHARS_PER_RUN = 7


@dataclass(frozen=True)
class Rle:
    """One mask as COCO's compressed run-length code."""

    size_hw: tuple[int, int]  # height and width [px], in COCO's order
    counts: str  # the runs, column by column, as COCO's ASCII text

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_]) -> Rle:
        """Encode bool [H, W]."""
        return cls.from_coco(coco_mask.encode(np.asfortranarray(mask, np.uint8)))

    @classmethod
    def from_coco(cls, code: dict[str, Any]) -> Rle:
        """Make it from an object of pycocotools."""
        height, width = code["size"]
        return cls((int(height), int(width)), code["counts"].decode("ascii"))

    def decode(self) -> NDArray[np.bool_]:
        """Return bool [H, W]."""
        return np.ascontiguousarray(coco_mask.decode(self.to_coco()), np.bool_)

    def to_coco(self) -> dict[str, Any]:
        """Return `{"size": [h, w], "counts": text}`, as pycocotools and JSON have it."""
        return {"size": list(self.size_hw), "counts": self.counts}

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(coco_mask.area(self.to_coco()))


def rle_from_segmentation(segmentation: object, size_wh: SizeWH) -> Rle:
    """Turn the `segmentation` of a COCO annotation into one mask.

    Polygons are united and cut at the border of the image. Runs (of crowds) are taken as they
    are, compressed or not.

    Args:
        segmentation: A list of polygons `[x, y, x, y, …]` [px], or `{"size", "counts"}`.
        size_wh: Width and height of the image [px].

    Raises:
        SampleError: It is none of these, lies outside the image, or covers no pixel.
    """
    if isinstance(segmentation, dict):
        rle = _from_runs(segmentation, size_wh)
    elif isinstance(segmentation, list):
        rle = _from_polygons(segmentation, size_wh)
    else:
        raise SampleError(BAD_MASK, "its segmentation is neither polygons nor runs")
    if rle.area == 0:
        raise SampleError(EMPTY_MASK, "its segmentation covers no pixel")
    return rle


def check_corners(corners: object, size_wh: SizeWH) -> NDArray[np.float64]:
    """Return the corners of a polygon as float64 [N, 2], x before y [px].

    Raises:
        SampleError: They are no pairs of numbers, or absurdly far outside the image.
    """
    try:
        points = np.asarray(corners, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros((0, 2))
    if not len(points) or not np.isfinite(points).all():
        raise SampleError(BAD_MASK, "a polygon is no list of pairs of numbers")
    limit = MAX_SIDES_OUTSIDE * max(size_wh)
    if not is_outside(points, size_wh) and np.abs(points).max() > limit:
        raise SampleError(BAD_MASK, f"a corner of a polygon is more than {limit} px away")
    return points


def is_outside(points: NDArray[np.float64], size_wh: SizeWH) -> bool:
    """Say whether a polygon, float64 [N, 2], cannot touch the image at all."""
    low, high = points.min(axis=0), points.max(axis=0)
    return bool((high < 0).any() or (low >= size_wh).any())


def _from_polygons(polygons: Sequence[object], size_wh: SizeWH) -> Rle:
    if not polygons:
        raise SampleError(EMPTY_MASK, "its segmentation has no polygon")
    for polygon in polygons:
        # pycocotools takes four numbers for a box.
        if not isinstance(polygon, list) or len(polygon) < _POLYGON_MIN_NUMBERS:
            raise SampleError(BAD_MASK, "a polygon has fewer than three corners")
    corners = [check_corners(polygon, size_wh) for polygon in polygons]
    inside = [points.ravel().tolist() for points in corners if not is_outside(points, size_wh)]
    if not inside:
        raise outside_image(size_wh)
    width, height = size_wh
    return Rle.from_coco(coco_mask.merge(coco_mask.frPyObjects(inside, height, width)))


def outside_image(size_wh: SizeWH) -> SampleError:
    """Return the error of an object whose polygons all miss the image."""
    width, height = size_wh
    return SampleError(OUTSIDE_IMAGE, f"it lies outside the {width}x{height} image")


def _from_runs(code: dict[str, Any], size_wh: SizeWH) -> Rle:
    width, height = size_wh
    if code.get("size") != [height, width]:
        raise SampleError(
            BAD_MASK,
            f"its runs are of size {code.get('size')!r}, the image is {[height, width]}",
        )
    counts = code.get("counts")
    runs = _unpack_runs(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(type(run) is int and run >= 0 for run in runs)
        or sum(runs) != height * width
    ):
        raise SampleError(BAD_MASK, f"its runs do not add up to {height * width} pixels")
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return Rle.from_coco(packed)


def _unpack_runs(text: str) -> list[int]:
    """Read COCO's compressed runs: from the third on, a run is relative to the one before last."""
    runs: list[int] = []
    value = chars = 0
    for char in text:
        code = ord(char)
        if not _FIRST_CHAR <= code <= _LAST_CHAR or chars == _MAX_CHARS_PER_RUN:
            raise SampleError(BAD_MASK, "its compressed runs are damaged")
        bits = code - _FIRST_CHAR
        value |= (bits & 0x1F) << 5 * chars
        chars += 1
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << 5 * chars
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = chars = 0
    if chars:
        raise SampleError(BAD_MASK, "its compressed runs are cut off")
    return runs
