"""The rendered tabletop folders: every query of a scene is a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.errors import (
    ANNOTATION_DAMAGED,
    EMPTY_MASK,
    IMAGE_DAMAGED,
    IMAGE_MISSING,
    IMAGE_SIZE,
    SampleError,
)
from training.data.rendered_scenes import QUERY_KINDS, open_scenes
from training.data.sources.base import (
    UNREADABLE_IMAGE,
    BadSample,
    Record,
    Sample,
    Source,
    check_split,
    choose,
    fingerprint,
    read_header,
    usable_query,
)
from training.data.sources.rle import Rle
from worlds.tabletop.scene import Query, Scene, split_of_seed

SPLITS: Final = ("train", "validation", "test")
"""By the seed of the scene; see `split_of_seed`."""


def open_tabletop(
    root: Path,
    split: str = "train",
    kinds: Sequence[str] | None = None,
    limit: int | None = None,
) -> Source:
    """Open rendered scenes.

    Phrasings that are meant for tests alone are left out of the other splits.

    Args:
        root: The folder that was rendered into (`*/scene.json`).
        split: One of `SPLITS`; scenes of other splits are passed over.
        kinds: Only these of `QUERY_KINDS`.
        limit: Only the first so many samples.

    Raises:
        InputError: There is no scene of this split, or a choice does not exist.
    """
    name = f"tabletop/{split}"
    check_split(name, split, SPLITS)
    records = choose(_records(open_scenes(root), split), name, QUERY_KINDS, kinds, limit)
    reader = _InstancesReader()

    def make(record: Record) -> Sample:
        folder, size_wh, query = record.content
        return _sample(record, folder, size_wh, query, reader, split)

    return Source(name, records, make, fingerprint(_described(record) for record in records))


def _described(record: Record | BadSample) -> bytes:
    """What a record says, whatever folder it lies in."""
    query = record.content[-1] if isinstance(record, Record) else None
    return repr((record.source_id, query)).encode()


def _records(folders: Sequence[Path], split: str) -> Iterator[Record | BadSample]:
    for folder in folders:
        try:
            scene = Scene.from_json((folder / "scene.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError) as error:
            detail = f"{folder}: not a rendered scene: {error}"
            yield BadSample(f"tabletop/{folder.name}", ANNOTATION_DAMAGED, detail)
            continue
        if split_of_seed(scene.seed) != split:
            continue
        for number, query in enumerate(scene.queries):
            if query.split == "test" and split != "test":
                continue
            content = (folder, scene.image_size_wh, query)
            yield Record(f"tabletop/{scene.seed}/{number}", query.kind, content)


class _InstancesReader:
    """Reads which object each pixel shows, and remembers the last scene: queries come together."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._instances: NDArray[np.uint16] = np.zeros((0, 0), np.uint16)

    def read(self, folder: Path) -> NDArray[np.uint16]:
        """Return uint16 [H, W]: 0 is background, else an object's id."""
        if folder != self._folder:
            try:
                with Image.open(folder / "instances.png") as image:
                    self._instances = np.asarray(image).astype(np.uint16)
            except FileNotFoundError as error:
                raise SampleError(IMAGE_MISSING, f"{folder}/instances.png is missing") from error
            except UNREADABLE_IMAGE as error:
                raise SampleError(IMAGE_DAMAGED, f"{folder}/instances.png: {error}") from error
            self._folder = folder
        return self._instances


def _sample(
    record: Record,
    folder: Path,
    size_wh: tuple[int, int],
    query: Query,
    reader: _InstancesReader,
    split: str,
) -> Sample:
    if query.kind not in QUERY_KINDS:
        raise SampleError(ANNOTATION_DAMAGED, f"{folder}: unknown kind of query {query.kind!r}")
    image = folder / "color.png"
    instances = reader.read(folder)
    sizes = {read_header(image).upright_wh, instances.shape[::-1], tuple(size_wh)}
    if len(sizes) > 1:
        raise SampleError(
            IMAGE_SIZE, f"{folder}: color.png, instances.png and scene.json differ in size"
        )
    masks = [instances == index for index in query.ids]
    if not all(mask.any() for mask in masks):
        raise SampleError(EMPTY_MASK, f"{folder}: {query.text!r} means what cannot be seen")
    if bool(masks) == (query.kind == "none"):
        raise SampleError(ANNOTATION_DAMAGED, f"{folder}: {query.text!r}: wrong number of objects")
    return Sample(
        source_id=record.source_id,
        image=image,
        size_wh=(int(size_wh[0]), int(size_wh[1])),
        query=usable_query(query.text),
        kind=query.kind,
        masks=tuple(Rle.from_mask(mask) for mask in masks),
        ignore=None,
        split=split,
    )
