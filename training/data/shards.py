"""The folder of prepared training data: whole shards, and a manifest that says it is finished.

    shard-00000.parquet …   rows; each covers a fixed number of records, so that work goes on there
    unfinished.json         what is being made, while it is being made
    rejects.jsonl           every bad sample with its reason
    manifest.json           written last; without it nothing is read

A shard carries the bad samples of its records in its own metadata. It is written under another
name and renamed when it is whole, so that a folder never holds half a shard.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, IterableDataset, List, Value, load_dataset

from segzero_core.errors import InputError
from segzero_core.files import write_atomically
from training.data.check_shard import check_shard
from training.data.rows import Row
from training.data.sources.base import BadSample

SCHEMA_VERSION: Final = 1
RECORDS_PER_SHARD: Final = 1000
MANIFEST: Final = "manifest.json"
UNFINISHED: Final = "unfinished.json"
REJECTS: Final = "rejects.jsonl"

# Not of a fixed length: where `ignore` is null, pyarrow before 26 cannot read such a list back.
_RLE: Final = {"size": List(Value("int32")), "counts": Value("string")}
FEATURES: Final = Features(
    {
        "image": Image(),
        "query": Value("string"),
        "kind": Value("string"),
        "source_id": Value("string"),
        "split": Value("string"),
        "size_wh": List(Value("int32"), length=2),
        "seen_size_wh": List(Value("int32"), length=2),
        "masks": List(_RLE),
        "ignore": _RLE,
        "boxes_xyxy": List(List(Value("float32"), length=4)),
        "points": List(List(List(Value("float32"), length=2), length=2)),
    }
)
"""The columns: masks in pixels of the original image, boxes and points in those of the seen one.

No object means that nothing fits. `ignore` is null where every pixel counts.
"""

_ROWS_PER_GROUP = 100  # what is held in memory at once
_REJECTS_KEY = b"segzero_rejects"


@dataclass(frozen=True)
class Shard:
    """One file of rows."""

    name: str  # file name
    samples: int  # number of rows
    bytes: int  # size of the file
    sha256: str  # hash of the file


@dataclass(frozen=True)
class Manifest:
    """What a finished folder holds."""

    schema_version: int  # `SCHEMA_VERSION` when it was written
    arguments: Mapping[str, Any]  # how it was made
    records: int  # number of annotations it was made of; samples and rejects add up to it
    samples: int  # number of rows
    kinds: Mapping[str, int]  # rows by kind of question
    rejects: Mapping[str, int]  # bad samples by reason
    shards: tuple[Shard, ...]  # the files
    data_hash: str  # SHA-256 over the hashes of the files


class PreparedFolder:
    """A folder while it is being filled; the same `arguments` (JSON) again continue the work.

    Raises:
        InputError: The folder holds something else, or cannot be written to.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self._folder = folder
        self._arguments = json.loads(json.dumps(arguments))
        self.finished = (folder / MANIFEST).is_file()
        """Nothing is left to do."""
        if self.finished:
            self._compare(read_manifest(folder).arguments)
        elif (folder / UNFINISHED).is_file():
            self._compare(_read_object(folder / UNFINISHED).get("arguments"))
            for leftover in folder.glob("*.tmp"):
                leftover.unlink()
        else:
            with _writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                if any(path.suffix != ".tmp" for path in folder.iterdir()):
                    raise InputError(f"{folder} is not empty and holds no prepared data")
            _write(
                folder / UNFINISHED, json.dumps({"arguments": self._arguments}, indent=1) + "\n"
            )

    def _compare(self, made_with: object) -> None:
        before = made_with if isinstance(made_with, dict) else {}
        for name in dict.fromkeys([*self._arguments, *before]):
            old, new = before.get(name), self._arguments.get(name)
            if old != new:
                raise InputError(
                    f"{self._folder} was made with {name} {old!r}, not {new!r}; choose another"
                    " folder, or remove this one"
                )

    @property
    def shards_done(self) -> int:
        """Number of whole shards."""
        return len(_whole_shards(self._folder))

    def write_shard(self, outcomes: Iterable[Row | BadSample]) -> None:
        """Write the next shard, under its name only when it is whole.

        It holds the outcomes of `RECORDS_PER_SHARD` records, the last one of fewer.

        Raises:
            InputError: It cannot be written, such as on a full disk.
        """
        path = self._folder / _shard_name(self.shards_done)
        rejects: list[dict[str, str]] = []

        def write(temporary: Path) -> None:
            rest = iter(outcomes)
            with pq.ParquetWriter(temporary, FEATURES.arrow_schema) as writer:
                while group := list(islice(rest, _ROWS_PER_GROUP)):
                    rejects.extend(asdict(bad) for bad in group if isinstance(bad, BadSample))
                    rows = [row for row in group if not isinstance(row, BadSample)]
                    writer.write_table(pa.Table.from_pylist(rows, FEATURES.arrow_schema))
                writer.add_key_value_metadata({_REJECTS_KEY: json.dumps(rejects)})

        _write(path, write)

    def finish(self) -> Manifest:
        """Write the list of bad samples and the manifest.

        Raises:
            InputError: There is not a single good sample, or the disk is full.
        """
        paths = _whole_shards(self._folder)
        rejects = [bad for path in paths for bad in _rejects_of(path)]
        lines = "".join(f"{json.dumps(bad)}\n" for bad in rejects)
        _write(self._folder / REJECTS, lines)
        manifest = _describe(paths, self._arguments, rejects)
        if not manifest.samples:
            raise InputError(
                f"{self._folder}: none of {manifest.records} samples can be used:"
                f" {in_words(manifest.rejects)}; see {REJECTS}"
            )
        _write(self._folder / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")
        (self._folder / UNFINISHED).unlink()
        return manifest


def in_words(counts: Mapping[str, int]) -> str:
    """Write counts as `3 image_missing, 1 empty_mask`, or `none`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def read_manifest(folder: Path) -> Manifest:
    """Read what a finished folder holds.

    Raises:
        InputError: It is no prepared data, unfinished, damaged, or of another schema.
    """
    if not (folder / MANIFEST).is_file():
        if (folder / UNFINISHED).is_file():
            raise InputError(
                f"{folder} is unfinished; run the command that makes it again, it goes on"
            )
        raise InputError(f"{folder} holds no {MANIFEST}: no prepared data; see docs/data.md")
    values = _read_object(folder / MANIFEST)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{folder}: schema {values.get('schema_version')!r}, this version reads"
            f" {SCHEMA_VERSION}; prepare the data again"
        )
    try:
        shards = tuple(Shard(**shard) for shard in values.pop("shards"))
        return Manifest(shards=shards, **values)
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / MANIFEST}: no manifest: {error}") from error


def load_prepared(
    folder: Path,
    *,
    streaming: bool = False,
    cache_dir: Path | None = None,
) -> Dataset | IterableDataset:
    """Open prepared data as rows with the columns of `FEATURES`; the image comes decoded.

    `streaming` reads rows as they are needed; else a copy goes to `cache_dir`, by default the
    cache of `datasets`.

    Raises:
        InputError: The folder is unfinished or damaged, or a row is not what this package writes.
    """
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        path = folder / shard.name
        if path.parent != folder or not path.is_file() or path.stat().st_size != shard.bytes:
            raise InputError(f"{path}: missing or cut off; prepare the data again")
        if _sha256(path) != shard.sha256:
            raise InputError(f"{path}: damaged, its hash differs; prepare the data again")
        check_shard(path, FEATURES.arrow_schema)
    return load_dataset(
        "parquet",
        data_files=[str(folder / shard.name) for shard in manifest.shards],
        split="train",
        features=FEATURES,
        streaming=streaming,
        cache_dir=None if cache_dir is None else str(cache_dir),
    )


def _describe(
    paths: list[Path], arguments: Mapping[str, Any], rejects: list[dict[str, str]]
) -> Manifest:
    kinds: Counter[str] = Counter()
    shards = []
    for path in paths:
        column = pq.read_table(path, columns=["kind"])["kind"].to_pylist()
        kinds.update(column)
        shards.append(Shard(path.name, len(column), path.stat().st_size, _sha256(path)))
    reasons = Counter(bad["reason"] for bad in rejects)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        arguments=arguments,
        records=kinds.total() + len(rejects),
        samples=kinds.total(),
        kinds=dict(sorted(kinds.items())),
        rejects=dict(sorted(reasons.items())),
        shards=tuple(shards),
        data_hash=hashlib.sha256("".join(s.sha256 for s in shards).encode()).hexdigest(),
    )


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def _whole_shards(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("shard-*.parquet"))
    if [path.name for path in paths] != [_shard_name(number) for number in range(len(paths))]:
        raise InputError(f"{folder}: a shard is missing from the middle; remove the folder")
    return paths


def _rejects_of(path: Path) -> list[dict[str, str]]:
    try:
        return list(json.loads(pq.read_metadata(path).metadata[_REJECTS_KEY]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged: {error}; remove it and all later ones") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError into one clear error."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; make room and run the same command again, whole shards are kept"
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"{path}: cannot be written: {reason}{advice if full else ''}") from error


def _write(path: Path, data: str | Callable[[Path], object]) -> None:
    with _writing(path):
        write_atomically(path, data, fsync=True)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged: {error}; remove the folder") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: damaged: no object; remove the folder")
    return values


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
