"""The summary of an evaluation: its metrics with their intervals, as an object and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from training.evaluation.bootstrap import RESAMPLES, Interval, Resampler
from training.evaluation.cases import DataIdentity
from training.evaluation.metrics import MEANS, OVER_KINDS, summarize
from training.evaluation.predictions import EvaluatedModel, Protocol, Scored

METRICS = (
    # key, heading of the table
    ("giou", "gIoU"),
    ("ciou", "cIoU"),
    ("box_acc_50", "box@50"),
    ("point_in_mask", "point"),
    ("unusable", "unusable"),
    ("refusals_correct", "refused"),
    ("refusals_wrong", "wrongly"),
)
"""All metrics that are shares. `refused` is right where nothing fits, `wrongly` elsewhere."""


def report(
    samples: Sequence[Scored], protocol: Protocol, model: EvaluatedModel, data: DataIdentity
) -> dict[str, Any]:
    """Return the one object that `--json` prints."""
    resampler = Resampler([sample.case.image for sample in samples])
    kinds = dict.fromkeys(sample.case.kind for sample in samples)
    return {
        **_summary(samples, protocol.giou, resampler, None),
        "kinds": {kind: _summary(samples, protocol.giou, resampler, kind) for kind in kinds},
        "protocol": asdict(protocol)
        | {
            "intervals": f"95 %, {RESAMPLES} bootstrap resamples of the images",
            "pictures": len({sample.case.image for sample in samples}),
        },
        "model": asdict(model),
        "data": asdict(data),
    }


def _summary(
    samples: Sequence[Scored], averaging: str, resampler: Resampler, kind: str | None
) -> dict[str, Any]:
    """The metrics of one kind of queries, or of all, with their intervals."""
    used = [s.outcome if kind in (None, s.case.kind) else None for s in samples]
    groups = [s.case.kind for s in samples] if averaging == OVER_KINDS and kind is None else []
    intervals: dict[str, Interval | None] = {}
    for key, value in MEANS.items():
        values = [None if o is None else value(o) for o in used]
        tops = [0.0 if v is None else v for v in values]
        counts = [v is not None for v in values]
        intervals[key] = resampler.interval(tops, counts, groups if key == "giou" else ())
    intervals["ciou"] = resampler.interval(
        [0 if o is None else o.intersection for o in used],
        [0 if o is None else o.union for o in used],
    )
    outcomes = [outcome for outcome in used if outcome is not None]
    return asdict(summarize(outcomes, averaging)) | {"intervals": intervals}


def as_table(summary: dict[str, Any]) -> str:
    """Write a summary as a table: one row per kind, a row for all, then how it was made."""
    rows = [*summary["kinds"].items(), ("all", summary)]
    lines = [
        "kind      " + "".join(f"{heading:>9}" for _, heading in METRICS) + f"{'N':>7}{'ms':>8}"
    ]
    lines += [f"{kind:<10}{_columns(row)}" for kind, row in rows]
    lines.append("")
    for key, heading in METRICS[:4]:
        if summary["intervals"][key]:
            low, high = summary["intervals"][key]
            lines.append(f"{heading:<10}{summary[key]:>9.3f}   95 %: {low:.3f} to {high:.3f}")
    return "\n".join([*lines, *_notes(summary)])


def _notes(summary: dict[str, Any]) -> list[str]:
    protocol, model, data = summary["protocol"], summary["model"], summary["data"]
    sentences = f", sentences {data['sentences']}" if data["sentences"] else ""
    rejected = f", {data['rejected']} annotations left out" if data["rejected"] else ""
    return [
        f"data      {data['name']}, {data['split']}{sentences}, hash {data['hash']}{rejected}",
        f"model     {model['name']} {model['weights_hash']} {model['template']}".rstrip(),
        f"protocol  ignore {protocol['ignore']}; gIoU over all: {protocol['giou']};"
        f" intervals: {protocol['intervals']} ({protocol['pictures']})",
    ]


def _columns(row: dict[str, Any]) -> str:
    shown = ("-" if row[key] is None else f"{row[key]:.3f}" for key, _ in METRICS)
    return "".join(f"{text:>9}" for text in shown) + f"{row['n']:>7}{row['ms'] or 0.0:>8.0f}"
