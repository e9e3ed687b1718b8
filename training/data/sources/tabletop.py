"""The rendered tabletop folders: every query of a scene is a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError
from segzero_core.images.files import UNREADABLE_IMAGE, open_image
from segzero_core.types import SizeWH
from training.data.errors import (
    ANNOTATION_DAMAGED,
    EMPTY_MASK,
    IMAGE_DAMAGED,
    IMAGE_MISSING,
    IMAGE_SIZE,
    SampleError,
)
from training.data.rendered_scenes import QUERY_KINDS, open_scenes, read_record
from training.data.sources import base
from training.data.sources.base import BadSample, Record, Sample, Source, SourceOptions
from training.data.sources.rle import Rle
from worlds.common.scene import Query, split_of_seed

SPLITS: Final = ("train", "validation", "test")
"""By the seed of the scene; see `split_of_seed`."""

Instances = NDArray[np.uint16]


def open_tabletop(options: SourceOptions) -> Source:
    """Open rendered scenes (`*/scene.json`) of one of `SPLITS`; each query is one sample.

    The other splits leave out the phrasings that are meant for tests alone.

    Raises:
        InputError: There is no scene of this split, or a choice does not exist.
    """
    name, split = f"tabletop/{options.split}", options.split
    base.check_choice(f"{name}: no split", split, SPLITS)
    records = base.choose(_records(open_scenes(options.root), split), name, QUERY_KINDS, options)
    read = lru_cache(maxsize=1)(_read_instances)  # the queries of a scene come together

    def make(record: Record) -> Sample:
        return _sample(record, *record.content, read, split)

    # What a record says, whatever folder it lies in.
    said = ((r.source_id, r.content[-1] if isinstance(r, Record) else None) for r in records)
    return Source(name, records, make, base.fingerprint(repr(pair).encode() for pair in said))


def _records(folders: Sequence[Path], split: str) -> Iterator[Record | BadSample]:
    for folder in folders:
        try:
            scene = read_record(folder)
        except InputError as error:
            yield BadSample(f"tabletop/{folder.name}", ANNOTATION_DAMAGED, str(error))
            continue
        if split_of_seed(scene.seed) != split:
            continue
        for number, query in enumerate(scene.queries):
            if query.split != "test" or split == "test":
                content = (folder, scene.image_size_wh, query)
                yield Record(f"tabletop/{scene.seed}/{number}", query.kind, content)


def _read_instances(folder: Path) -> Instances:
    """Return uint16 [H, W]: 0 is background, else an object's id."""
    try:
        with open_image(folder / "instances.png") as image:
            return np.asarray(image).astype(np.uint16)
    except FileNotFoundError as error:
        raise SampleError(IMAGE_MISSING, f"{folder}/instances.png is missing") from error
    except UNREADABLE_IMAGE as error:
        raise SampleError(IMAGE_DAMAGED, f"{folder}/instances.png: {error}") from error


def _sample(
    record: Record,
    folder: Path,
    size_wh: SizeWH,
    query: Query,
    read: Callable[[Path], Instances],
    split: str,
) -> Sample:
    if query.kind not in QUERY_KINDS:
        raise SampleError(ANNOTATION_DAMAGED, f"{folder}: unknown kind of query {query.kind!r}")
    image, instances = folder / "color.png", read(folder)
    size_wh = (int(size_wh[0]), int(size_wh[1]))
    if {base.read_header(image).upright_wh, instances.shape[::-1]} != {size_wh}:
        raise SampleError(
            IMAGE_SIZE, f"{folder}: color.png, instances.png and scene.json differ in size"
        )
    found = [instances == index for index in query.ids]
    if not all(mask.any() for mask in found):
        raise SampleError(EMPTY_MASK, f"{folder}: {query.text!r} means what cannot be seen")
    if bool(found) == (query.kind == "none"):
        raise SampleError(ANNOTATION_DAMAGED, f"{folder}: {query.text!r}: wrong number of objects")
    masks, text = tuple(map(Rle.from_mask, found)), base.usable_query(query.text)
    return Sample(record.source_id, image, size_wh, text, query.kind, masks, None, split)
