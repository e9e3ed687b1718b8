"""Small folders in the formats of the public data sets, made from nothing."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.data.prepare import open_source, prepare
from training.data.rows import RowOptions
from training.data.shards import load_prepared
from training.data.sources.base import BadSample, Sample, Source, SourceOptions

SIZE_WH = (160, 120)
IMAGES = "images/mscoco/images/train2014"

SQUARE = [20.0, 30.0, 60.0, 30.0, 60.0, 70.0, 20.0, 70.0]
OVERLAPPING = [40.0, 30.0, 90.0, 30.0, 90.0, 70.0, 40.0, 70.0]


def write_image(path: Path, size_wh: tuple[int, int] = SIZE_WH, seed: int = 0, **save: Any):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size_wh[::-1], 3), np.uint8)
    Image.fromarray(noise).save(path, **save)


def annotation(number: int, image: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "segmentation": segmentation, "iscrowd": 0, **more}


def reference(
    number: int,
    annotation_id: Any,
    image: int,
    split: str = "train",
    sentences: Sequence[str] = ("the square", "a box on the left"),
    **more: Any,
) -> dict[str, Any]:
    texts = [
        {"sent_id": 100 * number + i, "sent": text, "raw": text, "tokens": text.split()}
        for i, text in enumerate(sentences)
    ]
    return {
        "ref_id": number,
        "ann_id": annotation_id,
        "image_id": image,
        "category_id": 1,
        # As published: a name that no file has.
        "file_name": f"COCO_train2014_{image:012d}_{number}.jpg",
        "split": split,
        "sentences": texts,
        "sent_ids": [text["sent_id"] for text in texts],
        **more,
    }


def crowd(size_wh: tuple[int, int] = SIZE_WH) -> dict[str, Any]:
    """The uncompressed runs of columns 10 to 29, whole."""
    width, height = size_wh
    return {"size": [height, width], "counts": [10 * height, 20 * height, (width - 30) * height]}


def annotations() -> list[dict[str, Any]]:
    return [
        annotation(11, 1, [SQUARE]),
        annotation(12, 1, [SQUARE, OVERLAPPING]),
        annotation(21, 2, crowd(), iscrowd=1),
    ]


def references() -> list[dict[str, Any]]:
    return [
        reference(1, 11, 1),
        reference(2, 12, 1, sentences=["both squares together"]),
        reference(3, 21, 2, sentences=["the crowd"]),
        reference(4, 11, 1, split="val"),
    ]


def write_refcoco(
    root: Path,
    dataset: str = "refcoco",
    split_by: str = "unc",
    refs: list[dict[str, Any]] | None = None,
    anns: list[dict[str, Any]] | None = None,
    *,
    images: list[dict[str, Any]] | None = None,
    form: str = "p",
) -> Path:
    """Write references, instances and two images; `form` is `p` or `json`."""
    folder = root / dataset
    folder.mkdir(parents=True, exist_ok=True)
    refs = references() if refs is None else refs
    stem = f"{'grefs' if dataset == 'grefcoco' else 'refs'}({split_by})"
    content = pickle.dumps(refs, 2) if form == "p" else json.dumps(refs).encode()
    (folder / f"{stem}.{form}").write_bytes(content)
    names = {number: f"COCO_train2014_{number:012d}.jpg" for number in (1, 2)}
    width, height = SIZE_WH
    listed = images or [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, name in names.items()
    ]
    instances = {
        "images": listed,
        "annotations": annotations() if anns is None else anns,
        "categories": [{"id": 1, "name": "box"}],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    for number, name in names.items():
        write_image(root / IMAGES / name, seed=number)
    return root


def write_many_refcoco(root: Path, count: int) -> Path:
    """Write that many references about one object, each with one sentence of its own."""
    refs = [reference(i + 1, 11, 1, sentences=[f"square number {i}"]) for i in range(count)]
    return write_refcoco(root, refs=refs)


def shape(label: str, *corners: tuple[float, float]) -> dict[str, Any]:
    return {"label": label, "labels": [label], "shape_type": "polygon", "points": list(corners)}


def rectangle(label: str, left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
    return shape(label, (left, top), (right, top), (right, bottom), (left, bottom))


def write_reasonseg(
    folder: Path,
    stem: str = "0001",
    shapes: Sequence[dict[str, Any]] | None = None,
    text: Any = ("What could be sat on?",),
    *,
    is_sentence: bool = True,
    encoding: str = "utf-8",
) -> Path:
    """Write one image with its JSON into the folder of a split."""
    write_image(folder / f"{stem}.jpg")
    values = {
        "text": list(text) if isinstance(text, tuple) else text,
        "is_sentence": is_sentence,
        "shapes": list(shapes or [rectangle("target", 10, 20, 49, 59)]),
    }
    content = json.dumps(values, ensure_ascii=False).encode(encoding)
    (folder / f"{stem}.json").write_bytes(content)
    return folder


def open_data(kind: str, root: Path, **choice: Any) -> Source:
    """Open a data set by the choices of `SourceOptions`."""
    return open_source(SourceOptions(**{"source": kind, "root": root} | choice))


def read_data(kind: str, root: Path, **choice: Any) -> list[Sample | BadSample]:
    return list(open_data(kind, root, **{"allow_partial": True} | choice).read())


def only_bad(outcomes: list[Sample | BadSample]) -> BadSample:
    (bad,) = [outcome for outcome in outcomes if isinstance(outcome, BadSample)]
    return bad


def options(root: Path, **choice: Any) -> SourceOptions:
    return SourceOptions(**{"source": "refcoco", "root": root, "allow_partial": True} | choice)


def prepared(tmp_path: Path, rows: RowOptions | None = None, **choice: Any) -> list[dict]:
    prepare(
        options(**{"root": tmp_path / "root"} | choice), rows or RowOptions(), tmp_path / "out"
    )
    return list(load_prepared(tmp_path / "out", cache_dir=tmp_path / "cache"))
