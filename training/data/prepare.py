"""Training data of local copies of public data sets: `python -m training.data.prepare --help`.

    python -m training.data.prepare --source refcocog --root COCO --split train --out data/refcocog
    python -m training.data.prepare --source reasonseg --root LISA --split val --out data/reasonseg
    python -m training.data.prepare --source tabletop --root scenes --seen-size 336 --out data/t
    python -m training.data.prepare --source coco --root DIR --labels labels.json --out data/own

Every sample becomes one row of Parquet, or one line of rejects.jsonl. A run that was cut off goes
on after its last whole shard when the same command is given again. See docs/data.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from segzero_core.errors import InputError, SegZeroError
from segzero_core.types import SizeWH
from training.arguments import positive
from training.data.mask_prompts import POINT_POLICIES
from training.data.rows import IMAGE_ENCODINGS, Row, RowOptions, make_rows
from training.data.shards import (
    RECORDS_PER_SHARD,
    REJECTS,
    Manifest,
    PreparedFolder,
    in_words,
    read_manifest,
)
from training.data.sources.base import FIRST, SENTENCE_POLICIES, BadSample, Source
from training.data.sources.coco import ABSENT_SHARE, open_coco
from training.data.sources.reasonseg import open_reasonseg
from training.data.sources.refcoco import SPLITS as REFCOCO_SPLITS
from training.data.sources.refcoco import open_refcoco
from training.data.sources.tabletop import open_tabletop

REASONSEG: Final = "reasonseg"
TABLETOP: Final = "tabletop"
COCO: Final = "coco"
SOURCES: Final = (*REFCOCO_SPLITS, REASONSEG, TABLETOP, COCO)

BAD_INPUT_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130
_MAX_SEEN_SIDE = 10_000


@dataclass(frozen=True)
class SourceOptions:
    """Which samples are read.

    Attributes:
        source: One of `SOURCES`.
        root: The folder it lies in.
        split: One of the source's splits.
        split_by: Who split it, for the RefCOCO family; None is the usual one.
        sentences: One of `SENTENCE_POLICIES`; tabletop queries are all samples of their own.
        kinds: Only these kinds of questions; None is all.
        limit: Only the first so many samples; None is all.
        allow_partial: Accept a copy that is not whole.
        labels: The instances file of `coco`, and of no other source.
        absent_share: Of `coco`: share of the images that are asked for what they lack; None is
            the usual one.
    """

    source: str
    root: Path
    split: str = "train"
    split_by: str | None = None
    sentences: str = FIRST
    kinds: tuple[str, ...] | None = None
    limit: int | None = None
    allow_partial: bool = False
    labels: Path | None = None
    absent_share: float | None = None


def open_source(options: SourceOptions) -> Source:
    """Open a data set, for training or evaluation; its images are read one by one later.

    Raises:
        InputError: It is missing, damaged, half downloaded or of another version, or a choice
            does not exist.
    """
    if not options.root.is_dir():
        raise InputError(f"{options.root}: there is no such folder; see docs/data.md")
    if (options.source == COCO) != (options.labels is not None):
        raise InputError(f"{options.source}: --labels goes with the source {COCO}, and only then")
    chosen: dict[str, Any] = {"kinds": options.kinds, "limit": options.limit}
    if options.source == TABLETOP:
        return open_tabletop(options.root, options.split, **chosen)
    chosen |= {"sentences": options.sentences, "allow_partial": options.allow_partial}
    if options.labels is not None:
        share = ABSENT_SHARE if options.absent_share is None else options.absent_share
        return open_coco(options.root, options.labels, options.split, absent_share=share, **chosen)
    if options.source == REASONSEG:
        return open_reasonseg(options.root, options.split, **chosen)
    return open_refcoco(options.root, options.source, options.split, options.split_by, **chosen)


def prepare(options: SourceOptions, rows: RowOptions, out: Path, processes: int = 1) -> Manifest:
    """Write a data set as training data, or go on with it.

    Args:
        options: What is read.
        rows: What is made of it.
        out: The folder to write; its own, or one that the same command began.
        processes: How many share the work.

    Raises:
        SegZeroError: The data cannot be read, the folder cannot be written, or holds other data.
    """
    source = open_source(options)
    return prepare_source(source, _arguments(options, rows, source), rows, out, processes)


def prepare_source(
    source: Source, arguments: Mapping[str, Any], rows: RowOptions, out: Path, processes: int = 1
) -> Manifest:
    """Write a source that is open already as training data, or go on with it.

    Args:
        source: What is read.
        arguments: What decides over the rows, as the manifest tells it.
        rows: What is made of the samples.
        out: As for `prepare`.
        processes: As for `prepare`.

    Raises:
        SegZeroError: See `prepare`.
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
    outcomes: Iterator[Row | BadSample], source: Source, start: int
) -> Generator[Row | BadSample, None, None]:
    with tqdm(
        outcomes,
        desc=source.name,
        total=len(source),
        initial=start,
        unit="sample",
        file=sys.stderr,
    ) as bar:
        yield from bar


def _arguments(options: SourceOptions, rows: RowOptions, source: Source) -> dict[str, Any]:
    """What decides over the rows: not where the data lies, but what it says."""
    arguments = asdict(options) | asdict(rows)
    for place in ("root", "labels", "device"):
        del arguments[place]
    arguments["annotations"] = source.fingerprint
    if rows.sam:
        arguments["sam"] = _hash_of_sam(rows.sam)
    return arguments


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", choices=SOURCES, required=True, help="the data set")
    add("--root", type=Path, required=True, help="the folder it lies in")
    add("--out", type=Path, required=True, help="the folder to write, or to go on with")
    add("--labels", type=Path, help="COCO instances file over the images, for the source coco")
    add("--absent", type=float, help="of coco: share of the images asked for what they lack")
    add("--split", default="train", help="the data set's split")
    add("--split-by", help="unc, umd or google; the usual one of the data set by default")
    add("--sentences", choices=SENTENCE_POLICIES, default=FIRST, help="of an annotation")
    add("--kinds", nargs="+", help="only these kinds of questions")
    add("--limit", type=positive, help="only the first so many samples")
    add("--allow-partial", action="store_true", help="accept a copy that is not whole")
    add(
        "--seen-size",
        type=_seen_size,
        default=(840, 840),
        help="the frame of boxes and points: a side, WxH, or original (default 840)",
    )
    add(
        "--picture",
        choices=IMAGE_ENCODINGS,
        default=IMAGE_ENCODINGS[0],
        help="as it is, or squashed to it",
    )
    add("--points", choices=POINT_POLICIES, default=POINT_POLICIES[0], help="the second point")
    add("--sam", help="keep only what this SAM 2 (Hub id or folder) agrees with")
    add("--device", default="cpu", help="where that SAM 2 runs")
    add("--processes", type=positive, default=2, help="how many share the work")
    return parser


def _run(args: argparse.Namespace) -> str:
    options = SourceOptions(
        source=args.source,
        root=args.root,
        split=args.split,
        split_by=args.split_by,
        sentences=args.sentences,
        kinds=tuple(args.kinds) if args.kinds else None,
        limit=args.limit,
        allow_partial=args.allow_partial,
        labels=args.labels,
        absent_share=args.absent,
    )
    rows = RowOptions(args.seen_size, args.picture, args.points, args.sam, args.device)
    manifest = prepare(options, rows, args.out, args.processes)
    rejected = manifest.records - manifest.samples
    return (
        f"{args.out}: {manifest.samples} samples ({in_words(manifest.kinds)})\n"
        f"rejected: {rejected} ({in_words(manifest.rejects)}), see {args.out / REJECTS}\n"
        f"data hash: {manifest.data_hash}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 2 with one line on standard error when the input cannot be used, or 130 when stopped.
    """
    args = _parser().parse_args(argv)
    try:
        print(_run(args))
    except SegZeroError as error:
        print(f"training.data.prepare: {error}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    except KeyboardInterrupt:
        print("training.data.prepare: stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
