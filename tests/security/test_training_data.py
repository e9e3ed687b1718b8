"""Training data, configurations and output folders from elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segzero_core.errors import ConfigError, InputError
from tests.training.data.data_folders import (
    IMAGES,
    SIZE_WH,
    SQUARE,
    annotation,
    read_data,
    write_image,
    write_refcoco,
)
from training.config import TrainConfig, load_config
from training.data.prepare import open_source, prepare
from training.data.rows import RowOptions
from training.data.shards import load_prepared
from training.data.sources.base import BadSample, SourceOptions
from training.data.sources.safe_pickle import read_plain_pickle
from training.finetune.checkpoints import (
    BEGUN,
    CheckpointError,
    Provenance,
    finish_checkpoint,
    last_complete,
    only_run,
)


def reasons(samples: list[Any]) -> list[str]:
    return [each.reason if isinstance(each, BadSample) else "" for each in samples]


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_out_of_the_images_is_not_followed(tmp_path: Path, link: str) -> None:
    root = write_refcoco(tmp_path / "data")
    folder, outside = root / IMAGES, tmp_path / "outside"
    name = "COCO_train2014_000000000001.jpg"
    write_image(outside / name, seed=1)
    (folder / name).unlink()
    if link == "file":
        (folder / name).symlink_to(outside / name)
    else:
        (folder / "sub").symlink_to(outside)
        file = root / "refcoco" / "instances.json"
        file.write_text(file.read_text().replace(name, f"sub/{name}"))
    found = reasons(read_data("refcoco", root))
    assert found == ["path_outside", "path_outside", ""]


def test_images_that_are_a_link_as_a_whole_are_read(tmp_path: Path) -> None:
    root = write_refcoco(tmp_path / "data")
    elsewhere = (root / IMAGES).rename(tmp_path / "disk")
    (root / IMAGES).symlink_to(elsewhere)
    assert reasons(read_data("refcoco", root)) == ["", "", ""]


def own_labels(root: Path, **changes: Any) -> SourceOptions:
    width, height = SIZE_WH
    write_image(root / "1.png")
    image = {"id": 1, "file_name": changes.get("file_name", "1.png")}
    category = {"id": 1, "name": changes.get("name", "mug")}
    labels = {
        "images": [image | {"width": width, "height": height}],
        "annotations": [annotation(1, 1, [SQUARE], category_id=1)],
        "categories": [category],
    }
    (root / "labels.json").write_text(json.dumps(labels))
    path = root / "labels.json"
    return SourceOptions(source="coco", root=root, labels=path, split="train", allow_partial=True)


def test_half_a_character_in_labels_is_a_bad_sample_or_one_line(tmp_path: Path) -> None:
    source = open_source(replace(own_labels(tmp_path, file_name="a\ud800.png"), split="all"))
    assert reasons(list(source.read())) == ["annotation_damaged"]
    held_out = open_source(replace(own_labels(tmp_path, file_name="a\ud800.png"), split="val"))
    assert reasons(list(held_out.read())) == ["annotation_damaged"]
    with pytest.raises(InputError, match="no name that can be asked for"):
        open_source(own_labels(tmp_path, name="mug\ud800"))


def test_an_eps_file_that_is_called_jpg_starts_nothing(tmp_path: Path) -> None:
    root = write_refcoco(tmp_path)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 160 120\n%%EndComments\n"
    (root / IMAGES / "COCO_train2014_000000000001.jpg").write_bytes(eps)
    assert reasons(read_data("refcoco", root))[:2] == ["image_damaged"] * 2


@pytest.mark.timeout(60)
def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path) -> None:
    root = write_refcoco(tmp_path)
    image = root / IMAGES / "COCO_train2014_000000000001.jpg"
    image.unlink()
    os.mkfifo(image)
    assert reasons(read_data("refcoco", root))[:2] == ["image_damaged"] * 2


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x80\x02K\x01r\xff\xff\xff\x7f.", id="memo of 2^31"),
        pytest.param(b"\x80\x02}(K\x01" + b"\x85" * 2_000_000 + b"K\x02u.", id="nested key"),
        pytest.param(pickle.dumps({1, 2}), id="set"),
        pytest.param(pickle.dumps(b"bytes"), id="bytes"),
    ],
)
def test_a_pickle_neither_crashes_its_reader_nor_takes_all_memory(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(InputError, match=r"refs\.p: .*plain values"):
        read_plain_pickle(tmp_path / "refs.p")


def test_a_pickle_of_code_runs_nothing(tmp_path: Path, payload: Any, witness: Path) -> None:
    (tmp_path / "refs.p").write_bytes(pickle.dumps([payload]))
    with pytest.raises(InputError, match="it asks for"):
        read_plain_pickle(tmp_path / "refs.p")
    assert not witness.exists()


def rewrite(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change each row of prepared data, and make the hashes fit again."""
    path = out / "shard-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    manifest = json.loads((out / "manifest.json").read_text())
    shard = manifest["shards"][0]
    shard["bytes"] = path.stat().st_size
    shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (out / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda row: row["image"].update(bytes=None, path="/etc/passwd"), "not in the file"),
        (lambda row: row["image"].update(bytes=None, path="http://x/a.png"), "not in the file"),
        (lambda row: row["image"].update(bytes=b"%!PS-Adobe-3.0 EPSF-3.0\n"), "its image"),
        (lambda row: row.update(size_wh=[7, 7]), "its image is"),
        (lambda row: row.update(seen_size_wh=[0, 10**9]), "a size of"),
        (lambda row: row["masks"][0].update(counts="5"), "runs do not add up"),
        (lambda row: row["masks"][0].update(counts="\x00"), "runs are damaged"),
        (lambda row: row["masks"][0].update(size=[9, 9]), "are of size"),
        (lambda row: row.update(boxes_xyxy=[]), "one box and two points"),
        (lambda row: row.update(boxes_xyxy=[[0.0, 0.0, float("nan"), 1.0]]), "no number"),
        (lambda row: row.update(query="a</answer>"), "markup"),
        (lambda row: row.update(kind=None), "kind is no text"),
    ],
)
def test_rows_of_prepared_data_are_not_believed(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    out = tmp_path / "out"
    root = write_refcoco(tmp_path / "data")
    options = SourceOptions(source="refcoco", root=root, allow_partial=True)
    prepare(options, RowOptions(seen_size_wh=(84, 84)), out)
    assert len(list(load_prepared(out, streaming=True))) == 3
    rewrite(out, change)
    with pytest.raises(InputError, match=rf"row 0: .*{complaint}"):
        load_prepared(out, streaming=True)


@pytest.mark.parametrize(
    "setting",
    [
        "sft.learning_rate=nan",
        "sft.learning_rate=inf",
        "sft.batch_size=0",
        "grpo.learning_rate=-1",
        "grpo.temperature=nan",
        "grpo.max_completion_tokens=1000000000000000000",
        "weight_decay=nan",
        "epochs=nan",
        "seed=-1",
    ],
)
def test_numbers_of_a_configuration_have_ranges(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.split("=")[0]):
        load_config("debug", [setting])


RUN = Provenance("sft", TrainConfig().__dict__ | {"sft": {}, "grpo": {}}, "d", "g", "m", {})


def test_checkpoints_of_other_programs_are_neither_removed_nor_used(tmp_path: Path) -> None:
    foreign = tmp_path / "checkpoint-7"
    foreign.mkdir()
    (foreign / "precious.bin").write_bytes(b"1")
    with pytest.raises(CheckpointError, match="not written by segzero-train"):
        last_complete(tmp_path, RUN)
    assert (foreign / "precious.bin").exists()


def test_half_a_checkpoint_of_its_own_is_removed(tmp_path: Path) -> None:
    for step in (3, 7):
        (tmp_path / f"checkpoint-{step}").mkdir()
    finish_checkpoint(tmp_path / "checkpoint-3", RUN)
    (tmp_path / BEGUN).write_text("checkpoint-3\ncheckpoint-7\n")
    folder, messages = last_complete(tmp_path, RUN)
    assert folder == tmp_path / "checkpoint-3"
    assert len(messages) == 1
    assert not (tmp_path / "checkpoint-7").exists()


def test_one_training_at_a_time_has_an_output_folder(tmp_path: Path) -> None:
    second = only_run(tmp_path)
    with only_run(tmp_path), pytest.raises(CheckpointError, match=f"process {os.getpid()}"):
        second.__enter__()
    with only_run(tmp_path):
        pass
