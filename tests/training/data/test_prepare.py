from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from segzero_core.errors import InputError
from tests.training.data.data_folders import (
    IMAGES,
    annotation,
    options,
    reference,
    references,
    write_many_refcoco,
    write_reasonseg,
    write_refcoco,
)
from training.data import prepare as prepare_module
from training.data import shards
from training.data.errors import SampleError
from training.data.prepare import main, prepare
from training.data.rows import RowOptions
from training.data.shards import (
    MANIFEST,
    UNFINISHED,
    load_prepared,
    read_manifest,
)

REPOSITORY = Path(__file__).parents[3]


def run_main(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def complaint(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    code, out, err = run_main(capsys, *args)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.fixture
def small_shards(monkeypatch) -> int:
    monkeypatch.setattr(prepare_module, "RECORDS_PER_SHARD", 4)
    return 4


# Bad samples


def test_bad_samples_are_listed_with_their_reason_and_counted(tmp_path: Path, capsys):
    outside = annotation(13, 1, [[500, 5, 520, 5, 520, 20]])
    refs = [*references(), reference(5, 13, 1), reference(6, 99, 1)]
    anns = [annotation(11, 1, [[20, 30, 60, 30, 60, 70]]), annotation(12, 1, []), outside]
    write_refcoco(tmp_path / "root", refs=refs, anns=anns)
    args = ("--source", "refcoco", "--root", tmp_path / "root", "--out", tmp_path / "out")
    code, out, _ = run_main(capsys, *args, "--allow-partial", "--processes", 1)
    assert code == 0
    assert "1 samples (1 single)" in out
    assert "rejected: 4 (2 annotation_missing, 1 empty_mask, 1 outside_picture)" in out
    lines = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    rejects = [json.loads(line) for line in lines]
    assert [bad["source_id"].split("/")[3] for bad in rejects] == ["2", "3", "5", "6"]
    assert rejects[2]["reason"] == "outside_picture"
    assert "outside the 160x120 image" in rejects[2]["detail"]
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.records, manifest.samples) == (5, 1)


def test_an_image_that_is_cut_off_is_a_bad_sample(tmp_path: Path):
    root = write_refcoco(tmp_path / "root")
    path = root / IMAGES / "COCO_train2014_000000000002.jpg"
    path.write_bytes(path.read_bytes()[:-2000])
    prepare(options(root), RowOptions(), tmp_path / "out")
    assert read_manifest(tmp_path / "out").rejects == {"image_damaged": 1}


def test_when_no_sample_is_left_nothing_counts_as_finished(tmp_path: Path, capsys):
    root = write_refcoco(tmp_path / "root", anns=[])
    args = ("--source", "refcoco", "--root", root, "--out", tmp_path / "out", "--allow-partial")
    assert "none of 3 samples can be used: 3 annotation_missing" in complaint(
        capsys, *args, "--processes", 1
    )
    assert len((tmp_path / "out" / "rejects.jsonl").read_text().splitlines()) == 3
    with pytest.raises(InputError, match="unfinished"):
        load_prepared(tmp_path / "out")


def test_a_sam_that_is_not_there_is_one_line_and_code_2(tmp_path: Path, scenes: Path, capsys):
    args = ("--source", "tabletop", "--root", scenes, "--out", tmp_path / "out")
    assert "nowhere" in complaint(capsys, *args, "--sam", tmp_path / "nowhere")


# Shards, going on, the manifest


def test_the_same_command_gives_the_same_hash(tmp_path: Path, small_shards: int):
    root = write_many_refcoco(tmp_path / "root", 10)
    first = prepare(options(root), RowOptions(), tmp_path / "a")
    second = prepare(options(root), RowOptions(), tmp_path / "b", processes=2)
    assert first == second
    assert [shard.samples for shard in first.shards] == [4, 4, 2]
    assert read_manifest(tmp_path / "a").data_hash == first.data_hash


def test_other_data_have_another_hash(tmp_path: Path):
    root = write_refcoco(tmp_path / "root")
    hashes = {
        prepare(options(root, sentences=policy), RowOptions(), tmp_path / policy).data_hash
        for policy in ("first", "all", "joined")
    }
    assert len(hashes) == 3


class CutOffError(Exception):
    pass


def cut_after(monkeypatch, count: int) -> None:
    """Let the work break off after so many samples."""
    whole = prepare_module.make_rows

    def broken(*args: Any) -> Any:
        for number, outcome in enumerate(whole(*args)):
            if number == count:
                raise CutOffError
            yield outcome

    monkeypatch.setattr(prepare_module, "make_rows", broken)


def test_a_run_that_was_cut_off_goes_on_after_its_last_whole_shard(
    tmp_path: Path, small_shards: int
):
    refs = [reference(i, 99 if i % 5 == 0 else 11, 1, sentences=[f"no {i}"]) for i in range(1, 12)]
    root = write_refcoco(tmp_path / "root", refs=refs)
    whole = prepare(options(root), RowOptions(), tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        cut_after(patch, 9)
        with pytest.raises(CutOffError):
            prepare(options(root), RowOptions(), tmp_path / "cut")
    left = sorted(path.name for path in (tmp_path / "cut").iterdir())
    assert left == ["shard-00000.parquet", "shard-00001.parquet", UNFINISHED]
    with pytest.raises(InputError, match="unfinished; run the command that makes it again"):
        load_prepared(tmp_path / "cut")
    # What a process that was killed outright leaves behind.
    (tmp_path / "cut" / "shard-00002.parquet.tmp").write_bytes(b"half")
    before = (tmp_path / "cut" / "shard-00000.parquet").stat().st_mtime_ns
    resumed = prepare(options(root), RowOptions(), tmp_path / "cut")
    assert resumed == whole
    assert resumed.rejects == {"annotation_missing": 2}
    assert (tmp_path / "cut" / "shard-00000.parquet").stat().st_mtime_ns == before
    rejects = [(tmp_path / name / "rejects.jsonl").read_text() for name in ("whole", "cut")]
    assert rejects[0] == rejects[1]
    assert not list((tmp_path / "cut").glob("*.tmp"))


def test_a_process_that_is_killed_leaves_only_whole_shards(tmp_path: Path):
    root = write_many_refcoco(tmp_path / "root", 6000)
    out = tmp_path / "out"
    code = "import sys; from training.data import prepare;"
    code += "prepare.RECORDS_PER_SHARD = 50; prepare.main()"
    args = ["--source", "refcoco", "--root", root, "--out", out, "--allow-partial"]
    command = [sys.executable, "-c", code, *map(str, args), "--processes", "1"]
    child = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("shard-*.parquet")) and time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    shards = sorted(out.glob("shard-*.parquet"))
    assert shards
    assert all(pq.read_metadata(path).num_rows == 50 for path in shards)
    assert not (out / MANIFEST).exists()
    with pytest.raises(InputError, match="unfinished"):
        load_prepared(out)


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path, monkeypatch):
    root = write_refcoco(tmp_path / "root")
    first = prepare(options(root), RowOptions(), tmp_path / "out")
    cut_after(monkeypatch, 0)
    assert prepare(options(root), RowOptions(), tmp_path / "out") == first


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_another_argument_refuses_to_go_on(tmp_path: Path, monkeypatch, finished: bool):
    root = write_refcoco(tmp_path / "root")
    if finished:
        prepare(options(root), RowOptions(), tmp_path / "out")
    else:
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, 1)
            with pytest.raises(CutOffError):
                prepare(options(root), RowOptions(), tmp_path / "out")
    with pytest.raises(InputError, match=r"seen_size_wh \[840, 840\], not \[336, 336\]"):
        prepare(options(root), RowOptions((336, 336)), tmp_path / "out")
    write_refcoco(root, refs=references()[:2])
    with pytest.raises(InputError, match="annotations"):
        prepare(options(root), RowOptions(), tmp_path / "out")


def test_a_copy_of_the_data_elsewhere_is_the_same_data(tmp_path: Path):
    roots = [write_refcoco(tmp_path / name) for name in ("a", "b")]
    first = prepare(options(roots[0]), RowOptions(), tmp_path / "out")
    assert prepare(options(roots[1]), RowOptions(), tmp_path / "out") == first


def fill_the_disk_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writing this file find the disk full."""
    monkeypatch.setattr("secrets.token_hex", lambda length: "0" * 2 * length)
    path.parent.mkdir(exist_ok=True)
    path.with_name(f".{path.name}.00000000.tmp").symlink_to("/dev/full")


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys, small_shards: int
):
    root = write_many_refcoco(tmp_path / "root", 10)
    fill_the_disk_for(tmp_path / "out" / "shard-00001.parquet", monkeypatch)
    args = ("--source", "refcoco", "--root", root, "--out", tmp_path / "out", "--allow-partial")
    line = complaint(capsys, *args, "--processes", 1)
    assert "shard-00001.parquet: cannot be written: No space left on device; make room" in line
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "shard-00000.parquet",
        UNFINISHED,
    ]
    code, out, _ = run_main(capsys, *args, "--processes", 1)
    assert code == 0
    assert "10 samples" in out


@pytest.mark.parametrize("name", ["rejects.jsonl", MANIFEST])
def test_a_disk_that_is_full_at_the_very_end_leaves_no_manifest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    root = write_refcoco(tmp_path / "root", refs=[*references(), reference(9, 99, 1)])
    fill_the_disk_for(tmp_path / "out" / name, monkeypatch)
    with pytest.raises(InputError, match=rf"{name}: cannot be written: No space left"):
        prepare(options(root), RowOptions(), tmp_path / "out")
    assert not list((tmp_path / "out").glob(f"{name}*"))
    with pytest.raises(InputError, match="unfinished"):
        read_manifest(tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path):
    root = write_refcoco(tmp_path / "root")
    with pytest.raises(InputError, match="not empty and holds no prepared data"):
        prepare(options(root), RowOptions(), root)


def test_a_file_in_the_place_of_the_folder_is_one_clear_error(tmp_path: Path):
    root = write_refcoco(tmp_path / "root")
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match=r"cannot be written: File exists$"):
        prepare(options(root), RowOptions(), tmp_path / "out")


# Reading what was prepared


@pytest.fixture
def out(tmp_path: Path) -> Path:
    prepare(options(write_refcoco(tmp_path / "root")), RowOptions(), tmp_path / "out")
    return tmp_path / "out"


def test_rows_can_be_streamed(out: Path):
    rows = load_prepared(out, streaming=True)
    assert isinstance(rows, datasets.IterableDataset)
    assert [row["query"] for row in rows] == ["the square", "both squares together", "the crowd"]
    assert rows.features == shards.FEATURES


def test_streamed_and_cached_rows_are_the_same(out: Path, tmp_path: Path):
    streamed = list(load_prepared(out, streaming=True).remove_columns("image"))
    cached = list(load_prepared(out, cache_dir=tmp_path / "cache").remove_columns("image"))
    assert streamed == cached


@pytest.mark.parametrize("damage", ["missing", "cut off", "changed"])
def test_a_damaged_shard_is_not_read(out: Path, damage: str):
    path = out / "shard-00000.parquet"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-9] if damage == "cut off" else b"XXXX" + content[4:])
    with pytest.raises(InputError, match=r"shard-00000\.parquet: "):
        load_prepared(out, streaming=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ("[]", "no object"),
        ('{"schema_version": 99}', "schema 99, this version reads 1"),
        ('{"schema_version": 1}', "no manifest"),
        ('{"schema_version": 1, "shards": [{}]}', "no manifest"),
    ],
    ids=["empty", "list", "another schema", "no fields", "no shard"],
)
def test_a_damaged_manifest_is_one_clear_error(out: Path, text: str, words: str):
    (out / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=words):
        load_prepared(out)


def test_a_folder_without_prepared_data_is_one_clear_error(tmp_path: Path):
    with pytest.raises(InputError, match="no prepared data"):
        load_prepared(tmp_path)


# The command


@pytest.mark.parametrize("source", ["refcoco", "reasonseg", "tabletop"])
def test_a_missing_folder_is_one_line_and_code_2(tmp_path: Path, capsys, source: str):
    args = ("--source", source, "--root", tmp_path / "none", "--out", tmp_path / "out")
    assert "there is no such folder" in complaint(capsys, *args)
    assert not (tmp_path / "out").exists()


def test_a_half_downloaded_folder_is_one_line_and_code_2(tmp_path: Path, capsys):
    write_refcoco(tmp_path / "root")
    args = ("--source", "refcoco", "--root", tmp_path / "root", "--out", tmp_path / "out")
    assert "another version or half a download" in complaint(capsys, *args)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--seen-size", "0"),
        ("--seen-size", "840x"),
        ("--seen-size", "99999"),
        ("--limit", "0"),
        ("--processes", "-1"),
        ("--source", "imagenet"),
        ("--sentences", "last"),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_refused_with_code_2(tmp_path: Path, capsys, wrong):
    with pytest.raises(SystemExit) as stop:
        main(["--source", "refcoco", "--root", "x", "--out", str(tmp_path / "o"), *wrong])
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_every_choice_of_the_command_reaches_the_data(tmp_path: Path, capsys):
    root = write_reasonseg(tmp_path / "root" / "train", text=("a seat", "a chair")).parent
    args = ["--source", "reasonseg", "--root", root, "--out", tmp_path / "out", "--split", "train"]
    args += ["--sentences", "all", "--kinds", "long", "--limit", 1, "--seen-size", "64x48"]
    args += ["--picture", "png", "--points", "reference", "--processes", 2, "--allow-partial"]
    code, printed, err = run_main(capsys, *args)
    assert code == 0
    assert "reasonseg/train" in err  # the progress bar
    assert read_manifest(tmp_path / "out").data_hash in printed
    (row,) = load_prepared(tmp_path / "out", streaming=True)
    assert (row["query"], row["seen_size_wh"]) == ("a seat", [64, 48])
    assert row["image"].size == (64, 48)
    arguments = read_manifest(tmp_path / "out").arguments
    assert (arguments["points"], arguments["limit"]) == ("reference", 1)


def test_stopping_by_hand_says_how_to_go_on(tmp_path: Path, capsys, monkeypatch):
    write_refcoco(tmp_path / "root")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "make_rows", stop)
    args = ("--source", "refcoco", "--root", tmp_path / "root", "--out", tmp_path / "out")
    code, _, err = run_main(capsys, *args, "--allow-partial")
    assert code == 130
    assert "the same command goes on" in err


def test_an_error_of_a_sample_travels_between_processes():
    error = pickle.loads(pickle.dumps(SampleError("empty_mask", "nothing there")))
    assert (error.reason, str(error)) == ("empty_mask", "nothing there")
