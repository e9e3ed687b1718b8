"""ReasonSeg: for each question an image, and beside it a JSON file of polygons and instructions.

    ROOT/val/0123.jpg and ROOT/val/0123.json; ROOT may also be the folder that holds ReasonSeg

A polygon's label is `target` or `ignore`. Smaller polygons lie on top of larger ones. The files do
not say which polygons form one object, so a sample has one mask: all targets united.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError
from segzero_core.types import SizeWH
from training.data.errors import (
    ANNOTATION_DAMAGED,
    ANNOTATION_MISSING,
    EMPTY_MASK,
    IMAGE_MISSING,
    SampleError,
)
from training.data.sources import base
from training.data.sources.base import BadSample, Record, Sample, Source, SourceOptions
from training.data.sources.rle import Rle, check_corners, is_outside, outside_image

LONG: Final = "long"
SHORT: Final = "short"
KINDS: Final = (LONG, SHORT)
"""Whole sentences, and phrases; the benchmark reports them apart."""

PUBLISHED: Final[Mapping[str, int]] = {"train": 239, "val": 200, "test": 779}
"""Images per split."""

_PLACES = (".", "ReasonSeg", "reason_seg/ReasonSeg")
_TARGET, _IGNORE = 1, 255


@dataclass(frozen=True, eq=False)
class _Annotation:
    """One JSON file, its types checked."""

    image: Path
    kind: str
    sentences: tuple[tuple[str, str], ...]
    shapes: tuple[tuple[str, Any], ...]


def open_reasonseg(options: SourceOptions) -> Source:
    """Open ReasonSeg; `split` is a key of `PUBLISHED`, and only `train` has several sentences.

    Raises:
        InputError: The folder is missing, half downloaded or of another version, or a choice does
            not exist.
    """
    root, split, name = options.root, options.split, f"reasonseg/{options.split}"
    base.check_choice(f"{name}: no split", split, PUBLISHED)
    folder = next((root / p / split for p in _PLACES if (root / p / split).is_dir()), None)
    if folder is None:
        raise InputError(f"{root / split}: there is no such folder; see docs/data.md")
    stems = sorted({path.stem for pattern in ("*.json", "*.jpg") for path in folder.glob(pattern)})
    if not stems:
        raise InputError(f"{folder}: no images (*.jpg) and no annotations (*.json) in it")
    if not options.allow_partial:
        base.check_complete(lambda stem: folder / f"{stem}.jpg", stems, name)
        base.check_count(len(stems), PUBLISHED[split], folder, "images")
    files = {stem: folder / f"{stem}.json" for stem in stems}
    contents = {
        stem: base.read_annotations(file) if file.is_file() else None
        for stem, file in files.items()
    }
    records = _records(folder, contents, name, options.sentences)
    parts = (part for stem in stems for part in (stem.encode(), contents[stem] or b""))
    return Source(
        name,
        base.choose(records, name, KINDS, options),
        lambda record: _sample(record, *record.content, split),
        base.fingerprint(parts),
    )


def _records(
    folder: Path, contents: Mapping[str, bytes | None], name: str, policy: str
) -> Iterator[Record | BadSample]:
    for stem, content in contents.items():
        source_id = f"{name}/{stem}"
        try:
            annotation = _annotation(folder / f"{stem}.jpg", content)
        except SampleError as error:
            yield BadSample(source_id, error.reason, str(error))
            continue
        for number, text in base.apply_sentences(annotation.sentences, policy):
            yield Record(f"{source_id}/{number}", annotation.kind, (annotation, text))


def _annotation(image: Path, content: bytes | None) -> _Annotation:
    file = image.with_suffix(".json")
    if content is None:
        raise SampleError(ANNOTATION_MISSING, f"{file}: there is no such annotation")
    if not image.is_file():
        raise SampleError(IMAGE_MISSING, f"{image}: there is no such image")
    try:
        try:
            decoded = content.decode("utf-8")
        except UnicodeDecodeError:  # a few of the published files are in a Windows code page
            decoded = content.decode("cp1252")
        values = json.loads(decoded)
        texts = values["text"] if isinstance(values["text"], list) else [values["text"]]
        shapes = tuple((shape["label"].lower(), shape["points"]) for shape in values["shapes"])
        kind = LONG if values["is_sentence"] else SHORT
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SampleError(ANNOTATION_DAMAGED, f"{file}: no annotation: {error!r}") from error
    if not texts or not all(isinstance(text, str) for text in texts):
        raise SampleError(ANNOTATION_DAMAGED, f"{file}: it has no text")
    sentences = tuple((str(number), text) for number, text in enumerate(texts))
    return _Annotation(image, kind, sentences, shapes)


def _sample(record: Record, annotation: _Annotation, text: object, split: str) -> Sample:
    size_wh = base.read_header(annotation.image).upright_wh
    target, ignore = _draw(annotation.shapes, size_wh)
    query, masks = base.usable_query(text), (target,)
    return Sample(
        record.source_id, annotation.image, size_wh, query, record.kind, masks, ignore, split
    )


def _draw(shapes: Sequence[tuple[str, Any]], size_wh: SizeWH) -> tuple[Rle, Rle | None]:
    """Draw the polygons, the larger ones first.

    Corners are cut to whole pixels and the outline belongs to the area.

    Source: the protocol of LISA's evaluation (arXiv:2308.00692 and its public code); any label but
    `ignore` counts as target, `flag` is an abandoned one.
    """
    width, height = size_wh
    drawn: list[tuple[int, NDArray[np.uint8]]] = []
    outside = []
    for label, corners in shapes:
        if label == "flag":
            continue
        points = check_corners(corners, size_wh)
        value = _IGNORE if "ignore" in label else _TARGET
        outside += [is_outside(points, size_wh)] if value == _TARGET else []
        layer = np.zeros((height, width), np.uint8)
        if not is_outside(points, size_wh):
            cv2.fillPoly(layer, [points.astype(np.int32)], value)
        drawn.append((value, layer))
    if not outside:
        raise SampleError(EMPTY_MASK, "it has no polygon of a target")
    if all(outside):
        raise outside_image(size_wh)
    canvas = np.zeros((height, width), np.uint8)
    for value, layer in sorted(drawn, key=lambda item: -int(np.count_nonzero(item[1]))):
        canvas[layer != 0] = value
    if not (canvas == _TARGET).any():
        raise SampleError(EMPTY_MASK, "its targets cover no pixel")
    ignore = canvas == _IGNORE
    return Rle.from_mask(canvas == _TARGET), Rle.from_mask(ignore) if ignore.any() else None
