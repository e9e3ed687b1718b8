"""Prepares training data from local copies of public data sets.

    python -m training.data.prepare --source refcocog --root COCO --split train --out data/refcocog
    python -m training.data.prepare --source reasonseg --root LISA --split val --out data/reasonseg
    python -m training.data.prepare --source tabletop --root scenes --seen-size 336 --out data/t
    python -m training.data.prepare --source coco --root DIR --labels labels.json --out data/own

Every sample becomes a row of Parquet or a line of rejects.jsonl. The same command continues a run
that was interrupted, after its last whole shard. See docs/data.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import InputError
from segzero_core.terminal.progress_bar import ProgressBar
from segzero_core.types import SizeWH
from training.arguments import add_fields, new_parser, positive, run_command, settings_from
from training.data.rows import Row, RowOptions, make_rows
from training.data.shards import (
    RECORDS_PER_SHARD,
    REJECTS,
    Manifest,
    PreparedFolder,
    in_words,
    read_manifest,
)
from training.data.sources.base import (
    SENTENCE_POLICIES,
    BadSample,
    Source,
    SourceOptions,
    check_choice,
)
from training.data.sources.coco import open_coco
from training.data.sources.reasonseg import open_reasonseg
from training.data.sources.refcoco import SPLITS as REFCOCO_SPLITS
from training.data.sources.refcoco import open_refcoco
from training.data.sources.tabletop import open_tabletop

REASONSEG: Final = "reasonseg"
TABLETOP: Final = "tabletop"
COCO: Final = "coco"
SOURCES: Final = (*REFCOCO_SPLITS, REASONSEG, TABLETOP, COCO)

_MAX_SEEN_SIDE = 10_000


def open_source(options: SourceOptions) -> Source:
    """Open a data set for training or evaluation; its images are read later, one by one.

    Raises:
        InputError: It is missing, damaged, half downloaded or of another version, or a choice
            does not exist.
    """
    if not options.root.is_dir():
        raise InputError(f"{options.root}: there is no such folder; see docs/data.md")
    if (options.source == COCO) != (options.labels is not None):
        raise InputError(f"{options.source}: --labels goes with the source {COCO}, and only then")
    check_choice("sentences: no", options.sentences, SENTENCE_POLICIES)
    opened = {TABLETOP: open_tabletop, COCO: open_coco, REASONSEG: open_reasonseg}
    return opened.get(options.source, open_refcoco)(options)


def prepare(options: SourceOptions, rows: RowOptions, out: Path, processes: int = 1) -> Manifest:
    """Write a data set as training data, or continue in a folder that the same command began.

    Raises:
        SegZeroError: The data cannot be read, the folder cannot be written, or holds other data.
    """
    source = open_source(options)
    # What decides the rows: not where the data lies, but what it says.
    arguments = asdict(options) | asdict(rows) | {"annotations": source.fingerprint}
    for place in ("root", "labels", "device"):
        del arguments[place]
    if rows.sam:
        arguments["sam"] = _hash_of_sam(rows.sam)
    return prepare_source(source, arguments, rows, out, processes)


def prepare_source(
    source: Source, arguments: Mapping[str, Any], rows: RowOptions, out: Path, processes: int = 1
) -> Manifest:
    """Write training data from an open source, or continue; see `prepare`.

    `arguments` is what decides the rows, as the manifest reports it.
    """
    folder = PreparedFolder(out, arguments)
    if folder.finished:
        return read_manifest(out)
    start = min(folder.shards_done * RECORDS_PER_SHARD, len(source))
    made = make_rows(source.read(start), rows, processes)
    with closing(_with_progress(made, source, start)) as outcomes:
        for _ in range(start, len(source), RECORDS_PER_SHARD):
            folder.write_shard(islice(outcomes, RECORDS_PER_SHARD))
    return folder.finish()


def _with_progress(
    made: Iterator[Row | BadSample], source: Source, start: int
) -> Iterator[Row | BadSample]:
    counts = {"total": len(source), "initial": start, "unit": "sample"}
    with ProgressBar(made, desc=source.name, file=sys.stderr, **counts) as bar:
        yield from bar


def _hash_of_sam(name: str) -> str:
    from segzero_core.checkpoints.sam2_checkpoint import find_sam2
    from segzero_core.checkpoints.weights import weights_hash

    return weights_hash([find_sam2(name).weights])


def _seen_size(text: str) -> SizeWH | None:
    """Read `840`, `1024x768` or `original`."""
    if text == "original":
        return None
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text)
    size_wh = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(1 <= side <= _MAX_SEEN_SIDE for side in size_wh):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a side such as 840, WxH up to {_MAX_SEEN_SIDE}, or original"
        )
    return size_wh


def _run(args: argparse.Namespace) -> str:
    options, rows = settings_from(args, SourceOptions), settings_from(args, RowOptions)
    manifest = prepare(options, rows, args.out, args.processes)
    rejected = manifest.records - manifest.samples
    return (
        f"{args.out}: {manifest.samples} samples ({in_words(manifest.kinds)})\n"
        f"rejected: {rejected} ({in_words(manifest.rejects)}), see {args.out / REJECTS}\n"
        f"data hash: {manifest.data_hash}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `run_command`."""
    parser = new_parser("python -m training.data.prepare", __doc__)
    add_fields(parser, SourceOptions, {"source": {"choices": SOURCES}})
    add_fields(parser, RowOptions, {"seen_size_wh": {"type": _seen_size}})
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder to write, or to go on with"
    )
    parser.add_argument("--processes", type=positive, default=2, help="how many share the work")
    args = parser.parse_args(argv)
    stopped = "stopped; the same command goes on"
    return run_command("training.data.prepare", lambda: _run(args), stopped)


if __name__ == "__main__":
    sys.exit(main())
