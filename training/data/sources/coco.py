"""Custom labels: a folder of images and one COCO instances file.

    images/any/name.jpg
    labels.json                 as CVAT, Label Studio or Roboflow export it: polygons or runs

Every image is asked for each category that is on it. All objects of the category are meant. It is
also asked for one category that other images have and this one lacks. Nothing is meant then. So
every object in an image must be labelled: the model learns that an unlabelled object is absent.

A category with a crowd on an image is refused, because the objects of a crowd are not told apart.
An image may have an orientation tag. The width and height in the labels then say whether they lie
over the upright image or over the pixels as stored. Where both fit, they lie over the upright one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import ConfigError, InputError
from training.data.errors import (
    ANNOTATION_DAMAGED,
    ANNOTATION_MISSING,
    CROWD,
    IMAGE_SIZE,
    SampleError,
)
from training.data.sources import base
from training.data.sources.base import BadSample, Record, Sample, Source, SourceOptions
from training.data.sources.coco_instances import Instances, read_json
from training.data.sources.refcoco import KINDS, kind_of

TRAIN: Final = "train"
HELD_OUT: Final = "val"
EVERYTHING: Final = "all"
SPLITS: Final = (TRAIN, HELD_OUT, EVERYTHING)
"""Four fifths of the images | the other fifth | all of them."""

PHRASES: Final = (
    "the {name}",
    "find the {name}",
    "where is the {name}?",
    "show me the {name}",
    "give me the {name}",
    "segment the {name}",
)
"""How a category is asked for; the policy `first` takes the first one."""

ABSENT_SHARE: Final = 1.0
"""Share of the images, of those that lack something, that are asked for it."""

_HELD_OUT_PART = 5
_SEED = "segzero"


@dataclass(frozen=True)
class _Asked:
    """A category on an image, or one that it lacks."""

    image_id: int
    category: str
    annotation_ids: tuple[int, ...]
    is_crowd: bool = False


def open_coco(options: SourceOptions) -> Source:
    """Open a folder of images with custom labels.

    The image names in the labels are relative to `root`. `split` is one of `SPLITS`; an image's
    part depends on its name and on the others' names. `sentences` is `first` to ask for a category
    once, or `all` to ask in each of `PHRASES`.

    Raises:
        InputError: The file is missing, damaged, no instances file, or names an image or number
            twice; too many images are missing; a choice does not exist.
    """
    name, share = f"coco/{options.split}", options.absent_share
    base.check_choice(f"{name}: no split", options.split, SPLITS)
    if options.sentences == base.JOINED:
        raise InputError(f"{name}: the phrases of a category are no sentences to join")
    share = ABSENT_SHARE if share is None else share
    if not 0 <= share <= 1:
        raise ConfigError(f"absent: expected a share from 0 to 1, got {share}")
    assert options.labels is not None  # open_source has checked it
    instances, names = _read(options.root, options.labels)
    if not options.allow_partial:
        base.check_complete(lambda i: instances.image(i)[0], instances.images, str(options.root))
    asked = _asked(instances, names, _image_ids(instances, options.split), share)
    records = base.choose(_records(asked, options.sentences), name, KINDS, options)

    def make(record: Record) -> Sample:
        return _sample(record, *record.content, instances, options.split)

    return Source(name, records, make, base.fingerprint([base.read_annotations(options.labels)]))


def _read(root: Path, labels: Path) -> tuple[Instances, dict[int, str]]:
    content = read_json(labels)
    images = _by_id(content, "images", labels)
    annotations = _by_id(content, "annotations", labels)
    categories = _by_id(content, "categories", labels)
    _check_once([entry.get("file_name") for entry in images.values()], "image", labels)
    names = {number: _name(entry, labels) for number, entry in categories.items()}
    _check_once(list(names.values()), "category", labels)
    return Instances(images, annotations, root, labels.name), names


def _by_id(content: object, key: str, file: Path) -> dict[int, Mapping[str, Any]]:
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f"{file}: it has no list of {key}: no COCO instances file; export the labels as COCO"
            " (instances, with polygons or masks)"
        )
    found: dict[int, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries):
        identity = entry.get("id") if isinstance(entry, dict) else None
        if type(identity) is not int:
            raise InputError(f"{file}: {key}[{number}] has no whole number as its id")
        if identity in found:
            raise InputError(f"{file}: {key}[{number}]: the id {identity} is there twice")
        found[identity] = entry
    return found


def _name(category: Mapping[str, Any], file: Path) -> str:
    try:
        return base.usable_query(str(category.get("name") or "").replace("_", " "))
    except SampleError as error:
        where = f"{file}: category {category['id']}"
        raise InputError(f"{where} has no name that can be asked for: {error}") from error


def _check_once(values: Sequence[object], what: str, file: Path) -> None:
    seen: set[str] = set()
    for value in values:
        if isinstance(value, str):
            if value in seen:
                raise InputError(f"{file}: the {what} {value!r} is there twice")
            seen.add(value)


def _image_ids(instances: Instances, split: str) -> list[int]:
    if split == EVERYTHING:
        return list(instances.images)
    ranked = sorted(
        instances.images,
        key=lambda i: hashlib.sha256(f"{_SEED}/{_file_name(instances, i)}".encode()).digest(),
    )
    held_out = set(ranked[: max(1, round(len(ranked) / _HELD_OUT_PART))])
    return [i for i in instances.images if (i in held_out) == (split == HELD_OUT)]


def _file_name(instances: Instances, image_id: int) -> str:
    name = str(instances.images[image_id].get("file_name"))
    return name.encode("utf-8", "backslashreplace").decode()  # it may hold half a character


def _asked(
    instances: Instances,
    names: Mapping[int, str],
    image_ids: Sequence[int],
    absent_share: float,
) -> Iterator[_Asked | BadSample]:
    on_image: dict[int, dict[int, list[int]]] = {i: {} for i in instances.images}
    for number, entry in instances.annotations.items():
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if type(image_id) is not int or image_id not in on_image:
            detail = f"{instances.name}: annotation {number}: there is no image {image_id!r}"
            yield BadSample(f"coco/annotation/{number}", ANNOTATION_MISSING, detail)
        elif type(category_id) is not int or category_id not in names:
            detail = f"{instances.name}: annotation {number}: no category {category_id!r}"
            yield BadSample(f"coco/annotation/{number}", ANNOTATION_DAMAGED, detail)
        else:
            on_image[image_id].setdefault(category_id, []).append(number)
    # Exporters add categories that nobody used, such as a root over all others.
    used = sorted({number for found in on_image.values() for number in found})
    for image_id in image_ids:
        found = on_image[image_id]
        for category_id, numbers in sorted(found.items()):
            crowd = any(instances.annotations[number].get("iscrowd") for number in numbers)
            yield _Asked(image_id, names[category_id], tuple(numbers), crowd)
        lacking = [number for number in used if number not in found]
        lots = random.Random(f"{_SEED}/{_file_name(instances, image_id)}")
        if lacking and lots.random() < absent_share:
            yield _Asked(image_id, names[lots.choice(lacking)], ())


def _records(asked: Iterator[_Asked | BadSample], policy: str) -> Iterator[Record | BadSample]:
    for one in asked:
        if isinstance(one, BadSample):
            yield one
            continue
        phrases = [(str(n), text.format(name=one.category)) for n, text in enumerate(PHRASES)]
        for number, text in base.apply_sentences(phrases, policy):
            source_id = f"coco/{one.image_id}/{one.category}/{number}"
            yield Record(source_id, kind_of(one.annotation_ids), (one, text))


def _sample(record: Record, asked: _Asked, text: str, instances: Instances, split: str) -> Sample:
    path, size_wh = instances.image(asked.image_id)
    if asked.is_crowd:
        raise SampleError(CROWD, f"{path.name}: {asked.category!r} is labelled as a crowd")
    # The image must be the way round that the labels have.
    header = base.read_header(path)
    if size_wh not in (header.upright_wh, header.stored_wh):
        raise SampleError(IMAGE_SIZE, f"{path} is {header.upright_wh}, the labels say {size_wh}")
    image = path if header.upright_wh == size_wh else base.as_stored(path)
    masks = []
    for number in asked.annotation_ids:
        try:
            masks.append(instances.mask(number, asked.image_id, size_wh))
        except SampleError as error:
            where = f"{_file_name(instances, asked.image_id)}: annotation {number}"
            raise SampleError(error.reason, f"{where}: {error}") from error
    query = base.usable_query(text)
    return Sample(record.source_id, image, size_wh, query, record.kind, tuple(masks), None, split)
