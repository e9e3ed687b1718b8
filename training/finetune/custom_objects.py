"""`segzero-train own`: from labelled pictures of one's own to a fine-tuned model.

    segzero-train own --images pictures --labels labels.json --out runs/own
    segzero-train own --images pictures --labels labels.json --out runs/own --rehearse scenes

It holds a fifth of the pictures out, imitates the true answers on the others (SFT), and measures
the model on the held-out ones before and after. OUT/model is a folder for `segzero --model`. The
same command goes on with a training that was cut off. See docs/own-objects.md.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from datasets import Image

from segzero_core.checkpoints.registry import find_model
from segzero_core.errors import InputError, SegZeroError
from segzero_core.pipeline import SegZero
from training.config import TrainConfig, load_config
from training.data.prepare import (
    COCO,
    TABLETOP,
    SourceOptions,
    load_prepared,
    open_source,
    prepare,
    prepare_source,
    read_manifest,
)
from training.data.rows import RowOptions
from training.data.shards import MANIFEST, UNFINISHED, in_words
from training.data.sources.base import ALL, Record, Sample, Source, join
from training.data.sources.coco import HELD_OUT, TRAIN
from training.evaluation.cases import open_data, prepared_sample
from training.evaluation.evaluate import evaluate
from training.evaluation.metrics import LISA
from training.evaluation.predictions import EvaluatedModel, Protocol, write_predictions
from training.evaluation.predictors import pipeline_predictor
from training.evaluation.summary import report
from training.finetune.train import train

CONFIG: Final = "own-objects"
_REHEARSAL_SEED = 0
_COLUMNS: Final = (
    ("giou", "gIoU"),
    ("box_acc_50", "box@50"),
    ("refusals_correct", "refused"),
    ("refusals_wrong", "wrongly"),
)


@dataclass(frozen=True)
class OwnRun:
    """What is made from what.

    Attributes:
        images: Folder of the pictures.
        labels: COCO's instances file over them.
        out: Folder for data, checkpoints, figures and the model.
        config: The training; its model is where it begins, its data and output are set here.
        rehearse: Rendered scenes or prepared data, of what the model knew before; None: nothing.
        rehearse_share: Samples of it for each sample of one's own.
    """

    images: Path
    labels: Path
    out: Path
    config: TrainConfig
    rehearse: Path | None = None
    rehearse_share: float = 1.0


def run(own: OwnRun) -> str:
    """Prepare, measure, train, measure again; return the table.

    Raises:
        SegZeroError: Labels, pictures, model or folder cannot be used.
    """
    held_out = _prepare(own)
    before = measure(own.config.model, held_out, own.out / "before.jsonl")
    trained = train("sft", own.config)
    after = measure(str(trained), held_out, own.out / "after.jsonl")
    return f"{_table(before, after)}\n\nthe model is in {trained}"


def measure(model: str, data: Path, samples_file: Path) -> dict[str, Any]:
    """Ask a model everything in some data, as `segzero evaluate` does, and keep the answers.

    Args:
        model: Name, folder or Hub id.
        data: Prepared data.
        samples_file: Where the answers go.

    Returns:
        The figures; see `report`.

    Raises:
        SegZeroError: The model or the data cannot be used.
    """
    cases = open_data(data, kind=None, split=None, limit=None)
    pipeline = SegZero.load(model)
    scored = evaluate(cases.images, pipeline_predictor(pipeline))
    identity = pipeline.identity
    asked = EvaluatedModel(
        identity.name, identity.weights_hash, pipeline.description.prompt_template
    )
    protocol = Protocol(LISA, cases.averaging)
    write_predictions(samples_file, scored, protocol, asked, cases.data)
    return report(scored, protocol, asked, cases.data)


def _prepare(own: OwnRun) -> Path:
    """Write the data of the training and the held-out data; return the folder of the latter."""
    # The labels first: whoever made them wants to hear of their mistakes before a model's.
    options = SourceOptions(COCO, own.images, TRAIN, sentences=ALL, labels=own.labels)
    source = open_source(options)
    rows = RowOptions(find_model(own.config.model).description.seen_size_wh)
    held_out = own.out / "data" / HELD_OUT
    _tell(held_out, prepare(replace(options, split=HELD_OUT, sentences="first"), rows, held_out))
    if own.rehearse is not None:
        source = join([source, _rehearsal(own.rehearse, own.rehearse_share, len(source))])
    arguments = {
        "source": COCO,
        "split": TRAIN,
        "sentences": ALL,
        "rehearse_share": own.rehearse_share if own.rehearse else None,
        "annotations": source.fingerprint,
        **asdict(rows),
    }
    folder = Path(own.config.data)
    _tell(folder, prepare_source(source, arguments, rows, folder))
    return held_out


def _tell(folder: Path, manifest: Any) -> None:
    rejected = f"rejected: {in_words(manifest.rejects)}"
    print(f"{folder}: {manifest.samples} questions ({in_words(manifest.kinds)}), {rejected}")


def _rehearsal(folder: Path, share: float, own_samples: int) -> Source:
    """Draw so many questions of what the model knew before, the same ones every time."""
    if (folder / MANIFEST).is_file() or (folder / UNFINISHED).is_file():
        source = _prepared_source(folder)
    else:
        source = open_source(SourceOptions(TABLETOP, folder))
    count = min(len(source), round(share * own_samples))
    if count < 1:
        raise InputError(f"--rehearse-share {share}: no question of {folder} is left")
    chosen = random.Random(_REHEARSAL_SEED).sample(source.records, count)
    return replace(source, records=tuple(chosen))


def _prepared_source(folder: Path) -> Source:
    manifest = read_manifest(folder)
    rows = load_prepared(folder).cast_column("image", Image(decode=False))
    records = [
        Record(source_id, kind, number)
        for number, (source_id, kind) in enumerate(
            zip(rows["source_id"], rows["kind"], strict=True)
        )
    ]

    def make(record: Record) -> Sample:
        return prepared_sample(rows, record.content)

    return Source(str(folder), records, make, manifest.data_hash)


def _table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Before and after side by side, a row a kind of question."""
    heads = "".join(f"{heading:>18}" for _, heading in _COLUMNS)
    lines = [f"{'held out':<10}{'N':>6}{heads}"]
    pairs = [(kind, row, after["kinds"][kind]) for kind, row in before["kinds"].items()]
    for kind, old, new in [*pairs, ("all", before, after)]:
        cells = (f"{_number(old[key])} -> {_number(new[key])}" for key, _ in _COLUMNS)
        lines.append(f"{kind:<10}{old['n']:>6}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segzero-train own",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of the pictures")
    add("--labels", type=Path, required=True, help="COCO instances file over them")
    add("--out", type=Path, required=True, help="folder to write to, or to go on with")
    add("--model", default="tabletop", help="name, folder or Hub id to begin from")
    add("--minutes", type=float, default=10.0, help="processor time of the training (default 10)")
    add("--rehearse", type=Path, help="rendered scenes or prepared data of what it knew before")
    add(
        "--rehearse-share", type=float, default=1.0, help="of that, for each question of one's own"
    )
    add("--config", default=CONFIG, help="a configuration of segzero-train")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a field of it")
    return parser


def _own_run(args: argparse.Namespace) -> OwnRun:
    config = replace(
        load_config(args.config, args.set),
        model=args.model,
        data=str(args.out / "data" / TRAIN),
        output=str(args.out),
        max_processor_minutes=args.minutes,
    )
    return OwnRun(args.images, args.labels, args.out, config, args.rehearse, args.rehearse_share)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 2 with one line on standard error when something cannot be used, 130 when stopped.
    """
    args = _parser().parse_args(argv)
    try:
        print(run(_own_run(args)))
    except SegZeroError as error:
        print(f"segzero-train own: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("segzero-train own: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
