"""The cases of an evaluation, grouped by image, from any data it can read.

Three kinds of data become the same form: folders of rendered scenes, data that was prepared with
`python -m training.data.prepare`, and the public benchmarks as their authors publish them. An
image and its masks are read only when their turn comes, and once for all cases about it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError
from segzero_core.geometry import box_from_mask
from segzero_core.types import Box, RgbImage
from training.data.rendered_scenes import (
    LIBERO_KINDS,
    QUERY_KINDS,
    EvaluationScene,
    open_scenes,
    read_record,
)
from training.data.sources.base import BadSample, Sample, SourceOptions, check_choice, fingerprint
from training.data.sources.refcoco import SPLITS as REFCOCO_SPLITS
from training.evaluation.metrics import LISA, OVER_KINDS, OVER_QUERIES

REASONSEG: Final = "reasonseg"
TABLETOP: Final = "tabletop"
BENCHMARKS: Final = (*REFCOCO_SPLITS, REASONSEG)
PHRASINGS: Final = ("train", "test", "all")
"""Which questions of rendered scenes are asked, by what training sees of their phrasing."""

_HASH_DIGITS = 16


@dataclass(frozen=True)
class Case:
    """One query."""

    id: str  # unique in its data, and the same wherever the data lies
    image: str  # name of the image; cases with the same one are not independent
    query: str  # what is asked
    kind: str  # the data's kind of query; `none` where nothing fits
    split: str  # the data's split of it

    def to_values(self) -> dict[str, str]:
        """Return the values of its line in a file of predictions."""
        values = asdict(self)
        return {"id": values.pop("id"), "picture": values.pop("image"), **values}


@dataclass(frozen=True, eq=False)
class TrueAnswer:
    """The right answer to one case."""

    mask: NDArray[np.bool_]  # bool [H, W], the union of the objects that are meant
    # Those of these objects, in pixels of the image; none where nothing fits.
    boxes: tuple[Box, ...]
    # bool [H, W], pixels that count nowhere; None where all of them count.
    ignore: NDArray[np.bool_] | None = None

    def under(self, policy: str) -> TrueAnswer:
        """Return the right answer by one of `IGNORE_POLICIES`.

        By that of the reference, the ignored pixels belong to the one object, and its box grows.
        """
        if self.ignore is None or policy == LISA:
            return self
        mask = self.mask | self.ignore
        box = box_from_mask(mask)
        return TrueAnswer(mask, self.boxes if box is None else (box,))


@dataclass(frozen=True, eq=False)
class View:
    """An image that was read, with the right answers about it."""

    image: RgbImage  # uint8 [H, W, 3], RGB
    truths: tuple[TrueAnswer, ...]  # one per case
    # bool [H, W], every single object in the image, where the data knows them.
    objects: tuple[NDArray[np.bool_], ...] = ()


@dataclass(frozen=True, eq=False)
class ImageCases:
    """All cases about one image."""

    cases: tuple[Case, ...]  # at least one
    # Reads image and masks; raises InputError where they are damaged.
    read: Callable[[], View] = field(repr=False)


@dataclass(frozen=True)
class DataIdentity:
    """Which data the cases are from."""

    name: str  # data set, and who split it
    split: str  # its split, or the phrasings of rendered scenes
    sentences: str  # how the sentences of an annotation become queries; empty where each has one
    hash: str  # first digits of a SHA-256 over all annotations, used or not
    rejected: int = 0  # annotations that cannot be used, and are not in the metrics


@dataclass(frozen=True, eq=False)
class CaseSet:
    """All cases of an evaluation."""

    data: DataIdentity  # which data they come from
    averaging: str  # how `giou` is put together on this data, see `training.evaluation.metrics`
    images: tuple[ImageCases, ...]  # in a fixed order

    @property
    def cases(self) -> list[Case]:
        """All cases, image by image."""
        return [case for entry in self.images for case in entry.cases]

    def share(self, rank: int, count: int) -> tuple[ImageCases, ...]:
        """Return the images that process number `rank` of `count` takes."""
        return self.images[rank::count]


def open_data(data: Path, kind: str | None, split: str | None, limit: int | None) -> CaseSet:
    """Open a folder, rendered scenes or prepared data, and keep the cases that are asked for.

    `split` is one of `PHRASINGS` for rendered scenes (all by default); prepared data has one.

    Raises:
        InputError: The folder is missing, damaged, of neither sort, or nothing is left of it.
    """
    if (data / "manifest.json").is_file() or (data / "unfinished.json").is_file():
        return _open_prepared(data, kind, split, limit)
    return _open_rendered(data, kind, split or "all", limit)


def open_benchmark(options: SourceOptions) -> CaseSet:
    """Open a public benchmark as its authors publish it.

    Every annotation is read at once, so that a bad one is found before a model is asked.

    Raises:
        InputError: It is missing, half downloaded or of another version, a choice does not exist,
            or an annotation cannot be used and `allow_partial` is not set.
    """
    from training.data.prepare import open_source

    source = open_source(options)
    samples: list[Sample] = []
    bad: list[BadSample] = []
    for outcome in source.read():
        (bad if isinstance(outcome, BadSample) else samples).append(outcome)  # type: ignore[arg-type]
    if bad and not options.allow_partial:
        raise InputError(
            f"{source.name}: {len(bad)} of {len(source)} annotations cannot be used, the first is"
            f" {bad[0].source_id}: {bad[0].detail}; leave them out with --allow-partial"
        )
    identity = DataIdentity(
        name=source.name.rpartition("/")[0],
        split=options.split,
        sentences=options.sentences,
        hash=source.fingerprint[:_HASH_DIGITS],
        rejected=len(bad),
    )
    asked = ((_case(sample), lambda sample=sample: sample) for sample in samples)
    return _case_set(identity, OVER_QUERIES, _by_image(asked))


def _open_rendered(data: Path, kind: str | None, split: str, limit: int | None) -> CaseSet:
    check_choice(f"{data}: no split", split, PHRASINGS)
    folders = open_scenes(data)
    images = []
    left = limit
    for folder in folders:
        cases = _rendered_cases(folder, kind, split)[:left]
        if cases:
            numbers = tuple(number for number, _ in cases)
            read = partial(_read_scene, folder, numbers)
            images.append(ImageCases(tuple(case for _, case in cases), read))
        if left is not None and (left := left - len(cases)) <= 0:
            break
    if not images:
        raise InputError(f"no query to ask: kind {kind or 'all'}, split {split}")
    records = (folder / "scene.json" for folder in folders)
    digest = fingerprint(part for path in records for part in _named(path))
    identity = DataIdentity(TABLETOP, split, "", digest[:_HASH_DIGITS])
    return _case_set(identity, OVER_KINDS, images)


def _rendered_cases(folder: Path, kind: str | None, split: str) -> list[tuple[int, Case]]:
    queries = read_record(folder).queries
    for query in queries:
        if query.kind not in (*QUERY_KINDS, *LIBERO_KINDS):
            raise InputError(f"{folder}: unknown kind of query {query.kind!r}")
    return [
        (number, Case(f"{folder.name}/{number}", folder.name, q.text, q.kind, q.split))
        for number, q in enumerate(queries)
        if kind in (None, q.kind) and split in ("all", q.split)
    ]


def _named(path: Path) -> tuple[bytes, bytes]:
    try:
        return path.parent.name.encode(), path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _read_scene(folder: Path, numbers: Sequence[int]) -> View:
    scene = EvaluationScene.read(folder)
    queries = [scene.questions[number] for number in numbers]
    truths = (TrueAnswer(scene.union(q.ids), tuple(scene.boxes(q.ids))) for q in queries)
    objects = tuple(scene.mask(index) for index in scene.visible_ids)
    return View(scene.image, tuple(truths), objects)


def _open_prepared(data: Path, kind: str | None, split: str | None, limit: int | None) -> CaseSet:
    from datasets import Image

    from training.data.shards import load_prepared, read_manifest

    manifest = read_manifest(data)
    arguments = manifest.arguments
    if split not in (None, arguments["split"]):
        raise InputError(f"{data}: it holds the split {arguments['split']}, not {split}")
    rows = load_prepared(data).cast_column("image", Image(decode=False))
    kinds = rows["kind"]
    numbers = islice((i for i, k in enumerate(kinds) if kind in (None, k)), limit)
    asked = ((_prepared_case(rows[i]), partial(prepared_sample, rows, i)) for i in numbers)
    images = _by_image(asked)
    if not images:
        raise InputError(f"{data}: no sample of kind {kind}; there are {', '.join(set(kinds))}")
    is_tabletop = arguments["source"] == TABLETOP
    identity = DataIdentity(
        name=f"prepared {arguments['source']}",
        split=arguments["split"],
        sentences="" if is_tabletop else arguments["sentences"],
        hash=manifest.data_hash[:_HASH_DIGITS],
        rejected=manifest.records - manifest.samples,
    )
    return _case_set(identity, OVER_KINDS if is_tabletop else OVER_QUERIES, images)


def _prepared_case(row: dict[str, Any]) -> Case:
    image = hashlib.sha256(row["image"]["bytes"]).hexdigest()[:_HASH_DIGITS]
    return Case(row["source_id"], image, row["query"], row["kind"], row["split"])


def prepared_sample(rows: Any, number: int) -> Sample:
    """Read a row of prepared data, its image not decoded, back as the sample it was made of."""
    from training.data.sources.rle import Rle

    row = rows[number]
    masks = [Rle(tuple(code["size"]), code["counts"]) for code in row["masks"]]
    ignore = row["ignore"]
    return Sample(
        source_id=row["source_id"],
        image=row["image"]["bytes"],
        size_wh=tuple(row["size_wh"]),
        query=row["query"],
        kind=row["kind"],
        masks=tuple(masks),
        ignore=Rle(tuple(ignore["size"]), ignore["counts"]) if ignore else None,
        split=row["split"],
    )


def _case(sample: Sample) -> Case:
    """Return the case of a sample; its image is named by file and folder, wherever they lie."""
    if isinstance(sample.image, bytes):
        image = hashlib.sha256(sample.image).hexdigest()[:_HASH_DIGITS]
    else:
        image = f"{sample.image.parent.name}/{sample.image.name}"
    return Case(sample.source_id, image, sample.query, sample.kind, sample.split)


def _by_image(asked: Iterable[tuple[Case, Callable[[], Sample]]]) -> list[ImageCases]:
    """Group cases by their image; images in order of appearance."""
    groups: dict[str, list[tuple[Case, Callable[[], Sample]]]] = {}
    for case, open_sample in asked:
        groups.setdefault(case.image, []).append((case, open_sample))
    return [
        ImageCases(
            tuple(case for case, _ in group),
            partial(_read_samples, [open_sample for _, open_sample in group]),
        )
        for group in groups.values()
    ]


def _read_samples(open_samples: Sequence[Callable[[], Sample]]) -> View:
    from training.data.rows import read_image

    samples = [open_sample() for open_sample in open_samples]
    _, image = read_image(samples[0])
    return View(image, tuple(_true_answer(sample) for sample in samples))


def _true_answer(sample: Sample) -> TrueAnswer:
    width, height = sample.size_wh
    mask = np.zeros((height, width), np.bool_)
    boxes = []
    for rle in sample.masks:
        single = rle.decode()
        mask |= single
        boxes += [box for box in [box_from_mask(single)] if box is not None]
    return TrueAnswer(mask, tuple(boxes), sample.ignore.decode() if sample.ignore else None)


def _case_set(data: DataIdentity, averaging: str, images: Sequence[ImageCases]) -> CaseSet:
    found = CaseSet(data, averaging, tuple(images))
    seen: set[str] = set()
    for case in found.cases:
        if case.id in seen:
            raise InputError(f"{data.name}: two questions have the id {case.id}")
        seen.add(case.id)
    return found
