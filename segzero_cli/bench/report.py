"""Summarizes a benchmark's runs: as JSON, table, text and plot, and against the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from segzero_cli.bench.flows import STAGES, Run
from segzero_core.geometry import mask_iou

MIN_RUNS: Final = 20
MIN_FIRST_RATIO: Final = 2.0
MIN_SECOND_RATIO: Final = 3.0
MIN_IOU: Final = 0.99

Runs = Mapping[str, Sequence[Run]]
"""By flow and query: `plain first`, `ours first`, `plain second`, `ours second`."""


def summarize(runs: Runs) -> dict[str, Any]:
    """Return percentiles, ratios and agreement; runs of one index answered the same query."""
    pairs = [
        pair
        for turn in ("first", "second")
        for pair in zip(runs[f"plain {turn}"], runs[f"ours {turn}"], strict=True)
    ]
    return {
        "runs": len(runs["ours first"]),
        "identical_completions": sum(a.completion == b.completion for a, b in pairs),
        "compared": len(pairs),
        # Of the unions, because different completions may have different numbers of masks.
        "least_mask_iou": min(
            mask_iou(np.any(a.masks, axis=0), np.any(b.masks, axis=0)) for a, b in pairs
        ),
        "first_ratio": _ratio(runs, "first"),
        "second_ratio": _ratio(runs, "second"),
        "flows": {name: _stages(kind) for name, kind in runs.items()},
    }


def misses(found: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each target that was missed."""
    runs, iou = found["runs"], found["least_mask_iou"]
    sentences = [f"only {runs} runs, {MIN_RUNS} count"] if runs < MIN_RUNS else []
    if differing := found["compared"] - found["identical_completions"]:
        sentences.append(f"{differing} completions differ")
    if not iou >= MIN_IOU:
        sentences.append(f"masks agree by {iou:.3f}, {MIN_IOU} is wanted")
    for turn, least in (("first", MIN_FIRST_RATIO), ("second", MIN_SECOND_RATIO)):
        if not (ratio := found[f"{turn}_ratio"]) >= least:  # also where it is not a number
            sentences.append(f"{turn} query {ratio:.2f} times faster, {least} is wanted")
    return sentences


def table(found: Mapping[str, Any]) -> str:
    """Return a Markdown table of the stages of every flow: median (95th percentile) in ms."""
    head = "| | " + " | ".join(stage.replace("_", " ") for stage in STAGES) + " | tokens/s |"
    lines = [head, "|---" * (len(STAGES) + 2) + "|"]
    for name, stages in found["flows"].items():
        cells = [f"{stages[stage]['p50']:.0f} ({stages[stage]['p95']:.0f})" for stage in STAGES]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {stages['tokens_per_s']:.0f} |")
    return "\n".join(lines)


def describe(found: Mapping[str, Any]) -> str:
    """Return the figures that are not in the table, in sentences."""
    limits, machine = found["limits"], found["machine"]
    ours = found["flows"]["ours first"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        "median (95th percentile) in ms; encoder and decoder are their own working times\n"
        f"completions: {found['identical_completions']} of {found['compared']} identical, masks"
        f" agree by {found['least_mask_iou']:.4f} or more; encoder: {found['backend']}\n"
        f"memory: {machine['peak_memory_mb']:.0f} MB at most, both flows together\n"
        f"limits: {limits['bandwidth_gb_s']:.1f} GB/s over {limits['weights_per_token_mb']:.0f} MB"
        f" a token allow {limits['tokens_per_s']:.0f} tokens/s, reached"
        f" {ours['tokens_per_s'] / limits['tokens_per_s']:.0%};"
        f" {limits['matrix_gflop_s']:.0f} GFLOP/s over {limits['encoder_gflop']:.0f} GFLOP allow"
        f" the encoder {limits['encoder_ms']:.0f} ms\n"
        f"on {machine['device']}, {machine['threads']} threads, Python {machine['python']},"
        f" {versions}"
    )


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draw the time to the first mask of every flow into an image file."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.6))
    names = list(found["flows"])[::-1]
    middle = [found["flows"][name]["first_mask"]["p50"] for name in names]
    late = [found["flows"][name]["first_mask"]["p95"] for name in names]
    colors = ["tab:green" if name.startswith("ours") else "tab:gray" for name in names]
    axes.barh(names, middle, color=colors)
    axes.plot(late, names, "k|", markersize=14)
    axes.set_xlabel("from the query to the first mask [ms], median, and 95th percentile as |")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _stages(runs: Sequence[Run]) -> dict[str, Any]:
    stages: dict[str, Any] = {
        stage: {
            f"p{percent}": round(float(np.percentile([r.ms[stage] for r in runs], percent)), 2)
            for percent in (50, 95)
        }
        for stage in STAGES
    }
    stages["tokens_per_s"] = round(float(np.nanmedian([run.tokens_per_s for run in runs])), 2)
    stages["tokens"] = sum(run.tokens for run in runs)
    return stages


def _ratio(runs: Runs, turn: str) -> float:
    plain, ours = (
        float(np.median([run.ms["first_mask"] for run in runs[f"{flow} {turn}"]]))
        for flow in ("plain", "ours")
    )
    return plain / ours
