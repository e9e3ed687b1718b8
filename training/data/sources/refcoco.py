"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: references into COCO's annotations.

    ROOT/refcoco/refs(unc).p        or .json; grefs(unc).json for gRefCOCO
    ROOT/refcoco/instances.json     COCO's annotations of these images
    ROOT/images/mscoco/images/train2014/COCO_train2014_000000000009.jpg

A reference names one annotation (in gRefCOCO: several, or none) and has several sentences. The
names of the images come from `instances.json`. No file has the names in the references, because
they carry a suffix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import InputError
from training.data.errors import ANNOTATION_DAMAGED, IMAGE_SIZE, SampleError
from training.data.sources import base
from training.data.sources.base import Record, Sample, Source, SourceOptions
from training.data.sources.coco_instances import Instances, read_json
from training.data.sources.safe_pickle import read_plain_pickle

SINGLE: Final = "single"
MANY: Final = "many"
NONE: Final = "none"
KINDS: Final = (SINGLE, MANY, NONE)

_UNC_SPLITS = ("train", "val", "testA", "testB")
# Data set and who split it, to its splits; the first of a data set is the usual one.
SPLITS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "refcoco": {"unc": _UNC_SPLITS, "google": ("train", "val", "test")},
    "refcoco+": {"unc": _UNC_SPLITS},
    "refcocog": {"umd": ("train", "val", "test"), "google": ("train", "val")},
    "grefcoco": {"unc": _UNC_SPLITS},
}
# References per split as published; where nothing stands here, the count is not checked.
_PUBLISHED: Final[Mapping[tuple[str, str], Mapping[str, int]]] = {
    ("refcoco", "unc"): {"train": 42_404, "val": 3_811, "testA": 1_975, "testB": 1_810},
    ("refcoco+", "unc"): {"train": 42_278, "val": 3_805, "testA": 1_975, "testB": 1_798},
    ("refcocog", "umd"): {"train": 42_226, "val": 2_573, "test": 5_023},
    ("refcocog", "google"): {"train": 44_822, "val": 5_000},
}
_IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")
_NO_ANNOTATION = -1


def kind_of(annotation_ids: Sequence[int]) -> str:
    """Name the kind of a question by how many objects it means, one of `KINDS`."""
    if not annotation_ids:
        return NONE
    return SINGLE if len(annotation_ids) == 1 else MANY


@dataclass(frozen=True)
class _Reference:
    """One entry of the references, its types checked."""

    ref_id: int
    image_id: int
    annotation_ids: tuple[int, ...]
    sentences: tuple[tuple[str, str], ...]
    no_target: bool | None


def open_refcoco(options: SourceOptions) -> Source:
    """Open a data set of the RefCOCO family.

    `root` holds the data set's folder and the images; see the module. `split_by` says who split
    it: by default `unc`, and `umd` for RefCOCOg. `allow_partial` accepts another number of
    references than published, and missing images.

    Raises:
        InputError: A file is missing, damaged or of another version, or a choice does not exist.
    """
    dataset, split = options.source, options.split
    base.check_choice("no data set", dataset, SPLITS)
    split_by = options.split_by or next(iter(SPLITS[dataset]))
    base.check_choice(f"{dataset}: no split by", split_by, SPLITS[dataset])
    name = f"{dataset}/{split_by}/{split}"
    base.check_choice(f"{name}: no split", split, SPLITS[dataset][split_by])
    file, entries = _read_references(options.root / dataset, dataset, split_by)
    references = [_reference(entry, file) for entry in entries if entry.get("split") == split]
    if not options.allow_partial:
        published = _PUBLISHED.get((dataset, split_by), {}).get(split)
        base.check_count(len(references), published, file, f"references of the split {split}")
    instances = _read_instances(options.root, dataset)
    records = base.choose(_records(references, name, options.sentences), name, KINDS, options)
    if not options.allow_partial:
        image_ids = [reference.image_id for reference in references]
        base.check_complete(lambda i: instances.image(i)[0], image_ids, name)

    def make(record: Record) -> Sample:
        return _sample(record, *record.content, instances, split)

    parts = map(base.read_annotations, (file, options.root / dataset / "instances.json"))
    return Source(name, records, make, base.fingerprint(parts))


def _read_references(
    folder: Path, dataset: str, split_by: str
) -> tuple[Path, list[dict[str, Any]]]:
    stem = f"{'grefs' if dataset == 'grefcoco' else 'refs'}({split_by})"
    places = [folder / f"{stem}.json", folder / f"{stem}.p"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(f"{folder}: there is neither {stem}.p nor {stem}.json; see docs/data.md")
    entries = read_json(file) if file.suffix == ".json" else read_plain_pickle(file)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{file}: no list of references; another version or another file")
    return file, entries


def _reference(entry: Mapping[str, Any], file: Path) -> _Reference:
    """Check one entry; a wrong form means another version, so it is an error of the whole file."""
    try:
        ids = entry["ann_id"]
        sentences = tuple((str(s["sent_id"]), s["sent"]) for s in entry["sentences"])
        numbers = (entry["ref_id"], entry["image_id"], *(ids if isinstance(ids, list) else [ids]))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file}: reference {entry.get('ref_id')!r} lacks {error}: another version"
        ) from error
    texts_only = bool(sentences) and all(isinstance(text, str) for _, text in sentences)
    if not texts_only or not all(type(number) is int for number in numbers):
        raise InputError(
            f"{file}: reference {entry.get('ref_id')!r} has no sentence, or a number that is none:"
            " another version"
        )
    ref_id, image_id, *annotation_ids = numbers
    meant = tuple(dict.fromkeys(i for i in annotation_ids if i != _NO_ANNOTATION))
    return _Reference(ref_id, image_id, meant, sentences, entry.get("no_target"))


def _read_instances(root: Path, dataset: str) -> Instances:
    file = root / dataset / "instances.json"
    content = read_json(file)
    try:
        images = {image["id"]: image for image in content["images"]}
        annotations = {entry["id"]: entry for entry in content["annotations"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: no COCO annotations: {error!r}; another version") from error
    folder = next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise InputError(f"{root}: no images; they belong in {root / _IMAGE_FOLDERS[0]}")
    return Instances(images, annotations, folder, file.name)


def _records(references: Sequence[_Reference], name: str, policy: str) -> Iterator[Record]:
    for reference in references:
        for number, text in base.apply_sentences(reference.sentences, policy):
            source_id = f"{name}/{reference.ref_id}/{number}"
            yield Record(source_id, kind_of(reference.annotation_ids), (reference, text))


def _sample(
    record: Record, reference: _Reference, text: object, instances: Instances, split: str
) -> Sample:
    if reference.no_target is not None and reference.no_target != (record.kind == NONE):
        raise SampleError(ANNOTATION_DAMAGED, "its no_target and ann_id contradict each other")
    path, size_wh = instances.image(reference.image_id)
    header = base.read_header(path)
    if header.stored_wh != size_wh:
        raise SampleError(
            IMAGE_SIZE, f"{path} is {header.stored_wh}, the annotation says {size_wh}"
        )
    masks = tuple(
        instances.mask(annotation_id, reference.image_id, size_wh)
        for annotation_id in reference.annotation_ids
    )
    # COCO's masks lie over the pixels as stored. Other readers would turn the image by its tag.
    image = path if header.is_upright else base.as_stored(path)
    query = base.usable_query(text)
    return Sample(record.source_id, image, size_wh, query, record.kind, masks, None, split)
