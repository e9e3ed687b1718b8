"""Fine-tunes a model on labelled images of custom objects, and measures it before and after."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from datasets import Image

from segzero_core.checkpoints.registry import find_model
from segzero_core.errors import InputError
from segzero_core.pipeline import SegZero
from training.config import TrainConfig
from training.data.prepare import (
    COCO,
    TABLETOP,
    open_source,
    prepare,
    prepare_source,
)
from training.data.rows import RowOptions
from training.data.shards import MANIFEST, UNFINISHED, in_words, load_prepared, read_manifest
from training.data.sources.base import ALL, Record, Sample, Source, SourceOptions, join
from training.data.sources.coco import HELD_OUT, TRAIN
from training.evaluation.cases import open_data, prepared_sample
from training.evaluation.evaluate import evaluate
from training.evaluation.metrics import LISA
from training.evaluation.predictions import EvaluatedModel, Protocol, write_predictions
from training.evaluation.predictors import pipeline_predictor
from training.evaluation.summary import report
from training.finetune.train import train

_REHEARSAL_SEED = 0
_COLUMNS: Final = {
    "giou": "gIoU",
    "box_acc_50": "box@50",
    "refusals_correct": "refused",
    "refusals_wrong": "wrongly",
}


def train_on_labels(
    images: Path,
    labels: Path,
    out: Path,
    config: TrainConfig,
    rehearse: Path | None = None,
    rehearse_share: float = 1.0,
) -> str:
    """Prepare data, fine-tune a model by SFT, and return a table of metrics before and after.

    `labels` is a COCO instances file. For each question about them, `rehearse_share` questions are
    learned of `rehearse`: rendered scenes or prepared data that the model knows already.

    Raises:
        SegZeroError: Labels, images, model or folder cannot be used.
    """
    # The labels first: their mistakes are found before a model is loaded.
    options = SourceOptions(COCO, images, TRAIN, sentences=ALL, labels=labels)
    source = open_source(options)
    rows = RowOptions(find_model(config.model).description.seen_size_wh)
    held_out = out / "data" / HELD_OUT
    options = replace(options, split=HELD_OUT, sentences="first")
    _print_counts(held_out, prepare(options, rows, held_out))
    if rehearse is not None:
        source = join([source, _rehearsal(rehearse, rehearse_share, len(source))])
    arguments = {"source": COCO, "split": TRAIN, "sentences": ALL, **asdict(rows)}
    arguments["rehearse_share"] = rehearse_share if rehearse else None
    arguments["annotations"] = source.fingerprint
    folder = Path(config.data)
    _print_counts(folder, prepare_source(source, arguments, rows, folder))

    before = measure(config.model, held_out, out / "before.jsonl")
    trained = train("sft", config)
    after = measure(str(trained), held_out, out / "after.jsonl")
    return f"{_table(before, after)}\n\nthe model is in {trained}"


def measure(model: str, data: Path, samples_file: Path) -> dict[str, Any]:
    """Ask a model every question of prepared data, as `segzero evaluate` does; return the metrics.

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


def _print_counts(folder: Path, manifest: Any) -> None:
    rejected = f"rejected: {in_words(manifest.rejects)}"
    print(f"{folder}: {manifest.samples} questions ({in_words(manifest.kinds)}), {rejected}")


def _rehearsal(folder: Path, share: float, own_samples: int) -> Source:
    """Draw questions that the model knows already, always the same ones."""
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
    names = zip(rows["source_id"], rows["kind"], strict=True)
    records = [Record(source_id, kind, number) for number, (source_id, kind) in enumerate(names)]

    def make(record: Record) -> Sample:
        return prepared_sample(rows, record.content)

    return Source(str(folder), records, make, manifest.data_hash)


def _table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return a table of the metrics before and after, with a row for each kind of question."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = [f"{'held out':<10}{'N':>6}" + "".join(f"{name:>18}" for name in _COLUMNS.values())]
    pairs = [(kind, row, after["kinds"][kind]) for kind, row in before["kinds"].items()]
    for kind, old, new in [*pairs, ("all", before, after)]:
        cells = (f"{cell(old[key])} -> {cell(new[key])}" for key in _COLUMNS)
        lines.append(f"{kind:<10}{old['n']:>6}" + "".join(f"{text:>18}" for text in cells))
    return "\n".join(lines)
