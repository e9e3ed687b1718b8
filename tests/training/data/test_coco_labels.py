"""Labels of one's own: what is asked about them, and what is said of a mistake in them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from segzero_core.errors import InputError
from tests.training.data.data_folders import (
    OVERLAPPING,
    SIZE_WH,
    SQUARE,
    annotation,
    crowd,
    write_image,
)
from training.data.prepare import open_source, prepare
from training.data.rows import RowOptions
from training.data.sources.base import BadSample, Sample, SourceOptions
from training.data.sources.coco import PHRASES

FAR = [900.0, 900.0, 950.0, 900.0, 950.0, 950.0]


def labels(anns: list[dict[str, Any]], images: int = 3) -> dict[str, Any]:
    """Labels over images 1.png, 2.png, …; category 3 is never used."""
    width, height = SIZE_WH
    return {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": width, "height": height}
            for n in range(1, images + 1)
        ],
        "annotations": anns,
        "categories": [
            {"id": 1, "name": "rubber_duck"},
            {"id": 2, "name": "mug"},
            {"id": 3, "name": "objects"},
        ],
    }


def duck(number: int, image: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return annotation(number, image, segmentation, **{"category_id": 1, **more})


def usual() -> list[dict[str, Any]]:
    return [
        duck(11, 1, [SQUARE]),
        duck(12, 1, [OVERLAPPING]),
        duck(21, 2, {**crowd()}),
        duck(22, 2, [SQUARE], category_id=2),
    ]


def write(root: Path, content: Any) -> SourceOptions:
    for number in (1, 2, 3):
        write_image(root / "images" / f"{number}.png", seed=number)
    file = root / "labels.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return SourceOptions("coco", root / "images", "all", labels=file)


def asked(options: SourceOptions) -> dict[tuple[str, str], Sample]:
    outcomes = list(open_source(options).read())
    assert not any(isinstance(outcome, BadSample) for outcome in outcomes)
    return {(Path(str(o.image)).name, o.query): o for o in outcomes if isinstance(o, Sample)}


def rejects(options: SourceOptions) -> list[BadSample]:
    return [o for o in open_source(options).read() if isinstance(o, BadSample)]


def test_each_category_on_an_image_is_asked_for_with_all_its_objects(tmp_path: Path) -> None:
    samples = asked(write(tmp_path, labels(usual())))
    kinds = {key: (sample.kind, len(sample.masks)) for key, sample in samples.items()}
    assert kinds[("1.png", "the rubber duck")] == ("many", 2)
    assert kinds[("2.png", "the rubber duck")] == ("single", 1)
    assert kinds[("2.png", "the mug")] == ("single", 1)


def test_an_image_is_asked_for_one_object_that_it_lacks_and_another_has(tmp_path: Path) -> None:
    samples = asked(write(tmp_path, labels(usual())))
    absent = {key for key, sample in samples.items() if sample.kind == "none"}
    assert ("1.png", "the mug") in absent
    assert Counter(name for name, _ in absent) == {"1.png": 1, "3.png": 1}
    assert not any("objects" in query for _, query in absent)


def test_the_share_of_such_questions_is_a_choice(tmp_path: Path) -> None:
    options = write(tmp_path, labels(usual()))
    never = SourceOptions("coco", options.root, "all", labels=options.labels, absent_share=0.0)
    assert {sample.kind for sample in asked(never).values()} == {"single", "many"}


def test_all_sentences_are_the_plain_phrases(tmp_path: Path) -> None:
    options = write(tmp_path, labels(usual()))
    every = SourceOptions("coco", options.root, "all", sentences="all", labels=options.labels)
    samples = asked(every)
    said = {query for name, query in samples if name == "1.png" and "duck" in query}
    assert said == {phrase.format(name="rubber duck") for phrase in PHRASES}
    assert len(samples) == len(PHRASES) * len(asked(options))


def test_a_fifth_of_the_images_is_held_out_whatever_their_order(tmp_path: Path) -> None:
    content = labels([duck(n, n, [SQUARE]) for n in range(1, 11)], images=10)
    options = write(tmp_path, content)

    def images(split: str) -> list[str]:
        chosen = SourceOptions(
            "coco", options.root, split, labels=options.labels, allow_partial=True
        )
        records = open_source(chosen).records
        return sorted(record.source_id.split("/")[1] for record in records)

    held_out = images("val")
    assert len(held_out) == 2
    assert sorted(held_out + images("train")) == images("all")
    content["images"].reverse()
    write(tmp_path, content)
    assert images("val") == held_out


def test_a_crowd_is_refused_and_counted_and_is_not_taken_for_absent(tmp_path: Path) -> None:
    options = write(tmp_path, labels([duck(1, 1, crowd(), iscrowd=1), duck(2, 2, [SQUARE])]))
    (bad,) = rejects(options)
    assert bad.reason == "crowd"
    assert "1.png" in bad.detail
    manifest = prepare(options, RowOptions(), tmp_path / "out")
    assert manifest.rejects == {"crowd": 1}
    assert manifest.kinds == {"none": 1, "single": 1}


@pytest.mark.parametrize(
    ("entry", "reason", "complaint"),
    [
        pytest.param(duck(7, 1, []), "empty_mask", "1.png: annotation 7", id="no polygon"),
        pytest.param(duck(7, 1, None), "bad_mask", "1.png: annotation 7", id="no segmentation"),
        pytest.param(duck(7, 1, [FAR]), "outside_picture", "1.png: annotation 7", id="outside"),
        pytest.param(duck(7, 1, [[1.0, 2.0]]), "bad_mask", "annotation 7", id="two numbers"),
        pytest.param(
            duck(7, 1, {"size": [5, 5], "counts": [25]}), "bad_mask", "annotation 7", id="size"
        ),
        pytest.param(duck(7, 9, [SQUARE]), "annotation_missing", "no image 9", id="no image"),
        pytest.param(
            duck(7, 1, [SQUARE], category_id=8),
            "annotation_damaged",
            "annotation 7: no category 8",
            id="no category",
        ),
        pytest.param(
            duck(7, 1, [SQUARE], category_id=[1]), "annotation_damaged", "[1]", id="list"
        ),
    ],
)
def test_a_bad_annotation_is_rejected_by_name_and_the_others_stay(
    entry: dict[str, Any], reason: str, complaint: str, tmp_path: Path
) -> None:
    options = write(tmp_path, labels([entry, duck(2, 2, [SQUARE])]))
    (bad,) = rejects(options)
    assert bad.reason == reason
    assert complaint in bad.detail
    good = [o for o in open_source(options).read() if isinstance(o, Sample)]
    assert any(sample.kind == "single" for sample in good)


def test_an_image_of_another_size_is_rejected(tmp_path: Path) -> None:
    options = write(tmp_path, labels(usual()))
    write_image(options.root / "1.png", (10, 10))
    assert {bad.reason for bad in rejects(options)} == {"image_size"}


def test_labels_over_the_upright_image_or_the_stored_pixels_are_both_read(
    tmp_path: Path,
) -> None:
    width, height = SIZE_WH
    options = write(tmp_path, labels([duck(1, 1, [SQUARE])], images=1))
    turned = {0x0112: 6}
    write_image(tmp_path / "new" / "1.jpg", (height, width), exif=_exif(turned))
    (options.root / "1.png").write_bytes((tmp_path / "new" / "1.jpg").read_bytes())
    (upright,) = open_source(options).read()
    assert isinstance(upright, Sample)
    assert isinstance(upright.image, Path)
    write_image(tmp_path / "new" / "2.jpg", (width, height), exif=_exif(turned))
    (options.root / "1.png").write_bytes((tmp_path / "new" / "2.jpg").read_bytes())
    (stored,) = open_source(options).read()
    assert isinstance(stored, Sample)
    assert isinstance(stored.image, bytes)


def _exif(tags: dict[int, int]) -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif.update(tags)
    return exif


def test_missing_images_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    options = write(tmp_path, labels(usual()))
    (options.root / "2.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images are missing, the first is .*2\.png"):
        open_source(options)
    partial = SourceOptions("coco", options.root, "all", labels=options.labels, allow_partial=True)
    assert {bad.reason for bad in rejects(partial)} == {"image_missing"}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in labels(usual()).items() if name != key}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param('{"images": [', "no JSON, or half of a file", id="cut off"),
        pytest.param([1], "no list of images", id="list"),
        pytest.param(without("categories"), "no list of categories", id="no categories"),
        pytest.param(without("annotations"), "no list of annotations", id="no annotations"),
        pytest.param(labels([duck("a", 1, [])]), "annotations[0] has no whole", id="id"),  # type: ignore[arg-type]
        pytest.param(labels([*usual(), *usual()]), "id 11 is there twice", id="id twice"),
        pytest.param(
            labels(usual()) | {"categories": [{"id": 1, "name": ""}]},
            "category 1 has no name",
            id="no name",
        ),
        pytest.param(
            labels(usual()) | {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]},
            "category 'a' is there twice",
            id="name twice",
        ),
        pytest.param(
            labels(usual()) | {"images": [{"id": n, "file_name": "1.png"} for n in (1, 2)]},
            "image '1.png' is there twice",
            id="image twice",
        ),
    ],
)
def test_a_wrong_file_is_an_error_that_names_file_and_entry(
    content: Any, complaint: str, tmp_path: Path
) -> None:
    options = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        open_source(options)
    assert str(options.labels) in str(caught.value)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"labels": None}, "--labels goes with", id="no labels"),
        pytest.param({"source": "tabletop", "split": "train"}, "--labels goes with", id="source"),
        pytest.param({"split": "test"}, "no split 'test'", id="split"),
        pytest.param({"sentences": "joined"}, "no sentences to join", id="joined"),
        pytest.param({"absent_share": 2.0}, "share from 0 to 1", id="share"),
        pytest.param({"labels": Path("/nowhere.json")}, "no such file", id="no file"),
    ],
)
def test_a_choice_that_does_not_exist_is_an_error(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    options = write(tmp_path, labels(usual()))
    with pytest.raises(ValueError, match=complaint):
        open_source(SourceOptions(**{**options.__dict__, **changes}))
