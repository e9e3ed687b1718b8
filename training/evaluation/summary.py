"""The figures of an evaluation with their intervals, as an object and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from training.evaluation.bootstrap import RESAMPLES, Interval, Resampler
from training.evaluation.cases import DataIdentity
from training.evaluation.metrics import NONE, OVER_KINDS, Outcome, summarise
from training.evaluation.predictions import AskedModel, Protocol, Scored

FIGURES = (
    # key, heading of the table
    ("giou", "gIoU"),
    ("ciou", "cIoU"),
    ("box_acc_50", "box@50"),
    ("point_in_mask", "point"),
    ("unusable", "unusable"),
    ("refusals_correct", "refused"),
    ("refusals_wrong", "wrongly"),
)
"""All figures that are shares. `refused` is right where nothing fits, `wrongly` where it does."""


def report(
    samples: Sequence[Scored], protocol: Protocol, model: AskedModel, data: DataIdentity
) -> dict[str, Any]:
    """Put everything into the one object that `--json` prints."""
    resampler = Resampler([sample.case.picture for sample in samples])
    kinds = dict.fromkeys(sample.case.kind for sample in samples)
    return {
        **_figures(samples, protocol.giou, resampler, None),
        "kinds": {kind: _figures(samples, protocol.giou, resampler, kind) for kind in kinds},
        "protocol": asdict(protocol)
        | {
            "intervals": f"95 %, {RESAMPLES} bootstrap resamples of the pictures",
            "pictures": len({sample.case.picture for sample in samples}),
        },
        "model": asdict(model),
        "data": asdict(data),
    }


def _figures(
    samples: Sequence[Scored], averaging: str, resampler: Resampler, kind: str | None
) -> dict[str, Any]:
    """The figures of one kind of questions, or of all."""
    outcomes = [s.outcome for s in samples if kind in (None, s.case.kind)]
    used = [s.outcome if kind in (None, s.case.kind) else None for s in samples]
    groups = [s.case.kind for s in samples] if averaging == OVER_KINDS and kind is None else []
    return asdict(summarise(outcomes, averaging)) | {
        "intervals": _intervals(used, groups, resampler)
    }


def _intervals(
    outcomes: Sequence[Outcome | None], groups: Sequence[str], resampler: Resampler
) -> dict[str, Interval | None]:
    """The interval of each figure, from the outcomes that are not None."""

    def mean(values: Sequence[float | None], groups: Sequence[str] = ()) -> Interval | None:
        tops = [0.0 if value is None else value for value in values]
        return resampler.interval(tops, [value is not None for value in values], groups)

    refused = [None if o is None else float(o.refused) for o in outcomes]
    fits = [o is not None and o.kind != NONE for o in outcomes]
    return {
        "giou": mean([None if o is None else o.iou for o in outcomes], groups),
        "ciou": resampler.interval(
            [0 if o is None else o.intersection for o in outcomes],
            [0 if o is None else o.union for o in outcomes],
        ),
        "box_acc_50": mean([None if o is None else o.box_hits for o in outcomes]),
        "point_in_mask": mean([None if o is None else o.point_hits for o in outcomes]),
        "unusable": mean([None if o is None else float(o.unusable) for o in outcomes]),
        "refusals_correct": mean(
            [None if fit else value for value, fit in zip(refused, fits, strict=True)]
        ),
        "refusals_wrong": mean(
            [value if fit else None for value, fit in zip(refused, fits, strict=True)]
        ),
    }


def as_table(figures: dict[str, Any]) -> str:
    """Write a report as a table: one row a kind, all of them below, then what was done."""
    rows = [*figures["kinds"].items(), ("all", figures)]
    lines = [
        "kind      " + "".join(f"{heading:>9}" for _, heading in FIGURES) + f"{'N':>7}{'ms':>8}"
    ]
    lines += [f"{kind:<10}{_columns(row)}" for kind, row in rows]
    lines.append("")
    for key, heading in FIGURES[:4]:
        if figures["intervals"][key]:
            low, high = figures["intervals"][key]
            lines.append(f"{heading:<10}{figures[key]:>9.3f}   95 %: {low:.3f} to {high:.3f}")
    return "\n".join([*lines, *_notes(figures)])


def _notes(figures: dict[str, Any]) -> list[str]:
    protocol, model, data = figures["protocol"], figures["model"], figures["data"]
    sentences = f", sentences {data['sentences']}" if data["sentences"] else ""
    rejected = f", {data['rejected']} annotations left out" if data["rejected"] else ""
    return [
        f"data      {data['name']}, {data['split']}{sentences}, hash {data['hash']}{rejected}",
        f"model     {model['name']} {model['weights_hash']} {model['template']}".rstrip(),
        f"protocol  ignore {protocol['ignore']}; gIoU over all: {protocol['giou']};"
        f" intervals: {protocol['intervals']} ({protocol['pictures']})",
    ]


def _columns(row: dict[str, Any]) -> str:
    shown = ("-" if row[key] is None else f"{row[key]:.3f}" for key, _ in FIGURES)
    return "".join(f"{text:>9}" for text in shown) + f"{row['n']:>7}{row['ms'] or 0.0:>8.0f}"
