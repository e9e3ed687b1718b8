"""Makes a row of training data from a sample, with boxes and points in the seen image.

Boxes and points are found in the original mask, moved to the seen frame and rounded to whole
pixels, halves up, because a model writes whole numbers. A box that would lose its area is rounded
outwards. A point moves to the nearest whole pixel on the mask. It stays unrounded where there is
none, which happens on objects thinner than a pixel of the seen image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segzero_core.files import read_regular
from segzero_core.images.files import UNREADABLE_IMAGE, open_image
from segzero_core.limits import MAX_IMAGE_FILE_BYTES
from segzero_core.types import RgbImage, SizeWH
from training.arguments import option
from training.data.errors import IMAGE_DAMAGED, IMAGE_MISSING, IMAGE_SIZE, SampleError
from training.data.mask_prompts import CIRCLES, POINT_POLICIES, MaskPrompt, mask_to_prompt
from training.data.parallel import map_in_order
from training.data.sources.base import BadSample, Sample

if TYPE_CHECKING:
    from segzero_core.segmenter.sam2 import LoadedSegmenter

Row = dict[str, Any]
"""One row by the columns of `training.data.shards.FEATURES`."""

KEEP: Final = "keep"
IMAGE_ENCODINGS: Final = (KEEP, "jpeg", "png")
"""The file's bytes as they are | squashed to the seen size, in this format."""

POINTS_PER_OBJECT = 2
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class RowOptions:
    """How rows are made; the fields are options of `python -m training.data.prepare`."""

    seen_size_wh: SizeWH | None = option(
        (840, 840),
        "the frame of boxes and points: a side, WxH, or original (default 840)",
        flag="--seen-size",
    )
    picture: str = option(KEEP, "as it is, or squashed to it", choices=IMAGE_ENCODINGS)
    points: str = option(CIRCLES, "the second point", choices=POINT_POLICIES)
    sam: str | None = option(None, "keep only what this SAM 2 (Hub id or folder) agrees with")
    device: str = option("cpu", "where that SAM 2 runs")


def make_row(
    sample: Sample | BadSample, options: RowOptions, sam: LoadedSegmenter | None = None
) -> Row | BadSample:
    """Return the sample's row, or the reason why there is none; a bad sample passes through.

    The masks must agree with `sam`; by default with the SAM 2 that the options name, if any.

    Raises:
        SegZeroError: The SAM 2 cannot be loaded.
    """
    if isinstance(sample, BadSample):
        return sample
    if sam is None and options.sam:
        sam = _load_sam(options.sam, options.device)
    try:
        content, pixels = read_image(sample)
        masks = [rle.decode() for rle in sample.masks]
        prompts = [mask_to_prompt(mask, POINTS_PER_OBJECT, options.points) for mask in masks]
        if sam is not None:
            from training.data.sam_filter import check_agreement

            check_agreement(sam, pixels, masks, prompts)
    except SampleError as error:
        return BadSample(sample.source_id, error.reason, str(error))
    seen_wh = options.seen_size_wh or sample.size_wh
    name = sample.image.name if isinstance(sample.image, Path) else None
    if options.picture != KEEP:
        content, name = squash(pixels, seen_wh, options.picture), None
    placed = [seen_prompt(*pair, seen_wh) for pair in zip(masks, prompts, strict=True)]
    return {
        "image": {"bytes": content, "path": name},
        "query": sample.query,
        "kind": sample.kind,
        "source_id": sample.source_id,
        "split": sample.split,
        "size_wh": list(sample.size_wh),
        "seen_size_wh": list(seen_wh),
        "masks": [rle.to_coco() for rle in sample.masks],
        "ignore": sample.ignore.to_coco() if sample.ignore else None,
        "boxes_xyxy": [list(prompt.box_xyxy) for prompt in placed],
        "points": [[list(point) for point in prompt.points] for prompt in placed],
    }


@cache
def _load_sam(name: str, device: str) -> LoadedSegmenter:
    """Load a SAM 2 once for each process."""
    from segzero_core.segmenter.sam2 import load_segmenter

    return load_segmenter(name, device)


def read_image(sample: Sample) -> tuple[bytes, RgbImage]:
    """Read a sample's image whole, so that a damaged one is noticed: its bytes and upright pixels.

    Raises:
        SampleError: The image is missing, damaged, or not of the size that it should have.
    """
    try:
        content = sample.image
        if isinstance(content, Path):
            content = read_regular(content, MAX_IMAGE_FILE_BYTES)
        with open_image(content) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise SampleError(IMAGE_MISSING, f"{sample.image!s}: there is no such image") from None
    except UNREADABLE_IMAGE as error:
        where = sample.image if isinstance(sample.image, Path) else sample.source_id
        raise SampleError(IMAGE_DAMAGED, f"{where}: {error}") from error
    if pixels.shape[1::-1] != sample.size_wh:
        raise SampleError(
            IMAGE_SIZE, f"the image is {pixels.shape[1::-1]}, its masks are {sample.size_wh}"
        )
    return content, pixels


def squash(pixels: RgbImage, size_wh: SizeWH, image: str) -> bytes:
    """Resize an image as the reasoner does, and encode it as JPEG or PNG."""
    small = Image.fromarray(pixels).resize(size_wh, Image.Resampling.BILINEAR)
    encoded = BytesIO()
    if image == "png":
        small.save(encoded, "PNG")
    else:
        small.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return encoded.getvalue()


class SeenPrompt(NamedTuple):
    """Box and two points of an object, in pixels of the seen image."""

    box_xyxy: tuple[float, float, float, float]  # Half-open, whole pixels
    # Two; the first again where the mask has no second circle.
    points: tuple[tuple[float, float], ...]


def seen_prompt(mask: NDArray[np.bool_], prompt: MaskPrompt, seen_wh: SizeWH) -> SeenPrompt:
    """Scale a prompt to the seen image and round it as the module describes.

    The mask is bool [H, W] of the original image; the prompt is in its pixels.
    """
    height, width = mask.shape
    scale = (seen_wh[0] / width, seen_wh[1] / height)
    x_min, y_min, x_max, y_max = prompt.box_xyxy
    left, right = _round_span(x_min * scale[0], x_max * scale[0])
    top, bottom = _round_span(y_min * scale[1], y_max * scale[1])
    points = [_round_point(mask, point, scale) for point in prompt.points]
    return SeenPrompt((left, top, right, bottom), tuple((points * 2)[:POINTS_PER_OBJECT]))


def _round_span(low: float, high: float) -> tuple[float, float]:
    rounded = math.floor(low + 0.5), math.floor(high + 0.5)
    if rounded[0] == rounded[1]:
        rounded = math.floor(low), math.ceil(high)
    return float(rounded[0]), float(rounded[1])


def _round_point(
    mask: NDArray[np.bool_], point: tuple[float, float], scale: tuple[float, float]
) -> tuple[float, float]:
    x, y = point[0] * scale[0], point[1] * scale[1]
    # Halves up comes first.
    across, down = ((math.floor(value) + 1, math.floor(value)) for value in (x, y))
    corners = [(float(i), float(j)) for i in across for j in down]
    on_mask = [corner for corner in corners if covers(mask, corner, scale)]
    return min(on_mask, key=lambda corner: math.dist(corner, (x, y)), default=(x, y))


def covers(
    mask: NDArray[np.bool_], point: tuple[float, float], scale: tuple[float, float]
) -> bool:
    """Whether a point of the seen image [px] lies on a mask bool [H, W] of the original image.

    The scale is seen pixels per original pixel, along x and y.
    """
    column, row = int(point[0] / scale[0]), int(point[1] / scale[1])
    return row < mask.shape[0] and column < mask.shape[1] and bool(mask[row, column])


def make_rows(
    samples: Iterable[Sample | BadSample], options: RowOptions, processes: int
) -> Iterator[Row | BadSample]:
    """Make the rows of samples, in their order; bad samples pass through.

    Raises:
        SegZeroError: The SAM 2 cannot be loaded, or a process ran out of memory.
    """
    make = partial(make_row, options=options)
    if processes == 1:
        return map(make, samples)
    return map_in_order(make, samples, processes, _use_one_core, (options.sam,))


def _use_one_core(sam: str | None) -> None:
    cv2.setNumThreads(1)
    if sam:
        import torch

        torch.set_num_threads(1)
