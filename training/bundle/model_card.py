"""Writes the model card of the bundled weights from the evaluations' and the trainings' own files.

    python -m training.bundle.model_card --runs docs/runs/tabletop-3 --plot docs/training.png

The folder holds what these commands print (each with `--json`): `pipeline.json` (`segzero
evaluate`), `warmup.json` (the same before GRPO), `truth.json` (`--prompts truth`), `random.json`
and `largest.json` (`--baseline`), `tracking.json` (`benchmarks.tracking`), and the logs of the
trainings: `reasoner.jsonl` (stages dense and text), one `reasoner_N_NAME.jsonl` for every later
run of the warm-up, in their order, `grpo.jsonl`, `segmenter.jsonl` and `tracker.jsonl`. No figure
of the card is written by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from worlds.tabletop.vocabulary import QUERY_KINDS

Rows = list[dict[str, Any]]
FIRST_STAGES = ("dense", "text")
SMOOTHED_OVER = 20  # steps

_HEAD = """# The model `tabletop`

A small reasoner and a small segmenter for images like those of
`python -m worlds.tabletop.render`: everyday objects on a table. They show that the whole system
works and let it be tested without a download. They know nothing else: use the published weights
(see the README) for images of the world.

| part | architecture | parameters | file |
|---|---|---|---|
{parts}

Both were trained from nothing on rendered scenes with seeds below 800,000. The figures below are
from {n_scenes} unseen scenes with seeds from 1,000,000 on, of which half the questions use
phrasings, and some of the objects colours, that training never shows.
"""

_LIMITS = """
## How it answers

It thinks in one fixed manner: what the question asks for, which candidates it sees, and which of
them it chooses. A question about something outside its vocabulary is answered with an empty list,
and the thinking says that it does not know the object. Both prompt templates work; `many` needs
the multi-object one.

## Limits

- Sixteen object classes and eight colors, drawn by MuJoCo; real photographs are outside of what
  it was trained on.
- English of a few hundred words. What it does not know it refuses, and sometimes it refuses what
  it should know.
- It sees 336x336 pixels: small, thin and half hidden objects are often mistaken for others.
- Its numbers are only as good as the training of a few hours on two processor cores made them; the
  curve is below.
- What it tracks over frames it loses most often when something passes in front of it.

Licence: Apache-2.0, like the rest of the repository. No outside data or weights went into it.
"""


@dataclass(frozen=True)
class Logs:
    """What the trainings wrote, in the order of their steps."""

    warmup: Rows  # rows of the reasoner's warm-up, each with its `stage`
    stages: tuple[str, ...]  # their order
    grpo: Rows  # rows of the reasoner's GRPO
    segmenter: Rows  # rows of the segmenter, on single images
    tracker: Rows  # rows of its memory


def read_logs(runs: Path) -> Logs:
    """Read the logs of a folder."""
    warmup, stages = _log(runs / "reasoner.jsonl"), list(FIRST_STAGES)
    for path in sorted(runs.glob("reasoner_*.jsonl")):
        stages.append(path.stem.split("_", 2)[2])
        warmup += [row | {"stage": stages[-1]} for row in _log(path)]
    grpo = [row for row in _log(runs / "grpo.jsonl") if "reward" in row]  # the last one sums up
    segmenter, tracker = (_log(runs / f"{name}.jsonl") for name in ("segmenter", "tracker"))
    return Logs(warmup, tuple(stages), grpo, segmenter, tracker)


def write_card(runs: Path, bundle: Path, plot: Path) -> str:
    """Return the text of the card of a bundle, from the logs of its runs.

    `plot` is where the curves are, from the root of the repository.
    """
    names = ("pipeline", "warmup", "truth", "random", "largest", "tracking")
    figures = {name: _read(runs / f"{name}.json") for name in names}
    text = _HEAD.format(parts=_parts(bundle), n_scenes=_read(runs / "scenes.json")["count"])
    text += "\n## Figures\n\n" + _pipeline_table(figures)
    text += "\n" + _segmenter_table(figures["truth"])
    text += "\n" + _tracking(figures["tracking"])
    commands = (runs / "commands.txt").read_text()
    text += "\n## Training\n\n" + _training(read_logs(runs), commands)
    text += f"\n![training curves](../../{plot.as_posix()})\n"
    return text + _LIMITS


def draw_curves(logs: Logs, path: Path) -> None:
    """Plot the trainings over their steps or images."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), layout="constrained")
    warmup = _latest(logs.warmup, logs.stages)
    steps, before = [], 0
    for stage in logs.stages:
        own = [r["step"] for r in warmup if r["stage"] == stage]
        steps += [before + step for step in own]
        before += max(own, default=0)
    _draw_reasoner(axes[:2], list(zip(steps, warmup, strict=True)), "warm-up", 336)
    rewards = [(row["step"], row) for row in _smoothed(logs.grpo, "reward")]
    _curve(axes[2], rewards, "reward", "C7", f"mean of {SMOOTHED_OVER} steps")
    axes[2].set(title="GRPO: reward", xlabel="step")
    trained = [(r["pictures"], r) for r in logs.segmenter if r.get("kind") == "train"]
    _curve(axes[3], trained, "iou", "C5", "training IoU")
    axes[3].set(title="segmenter: IoU of jittered prompts", xlabel="images", ylim=(0, 1))
    _save(figure, path)


def draw_reasoner_curves(logs: Sequence[Path], seen_size_px: int, path: Path) -> None:
    """Plot trainings of a reasoner that followed one another, of whose logs each begins anew."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows: list[tuple[int, dict[str, Any]]] = []
    for log in logs:
        before = rows[-1][0] if rows else 0
        rows += [(before + row["step"], row) for row in _log(log)]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    _draw_reasoner(axes, rows, "reasoner", seen_size_px)
    _save(figure, path)


def _draw_reasoner(
    axes: Sequence[Any], rows: Sequence[tuple[int, dict[str, Any]]], name: str, seen_size_px: int
) -> None:
    """Plot what is right, and how far coordinates are off."""
    _curve(axes[0], rows, "kind_acc", "C0", "kind")
    _curve(axes[0], rows, "color_acc", "C1", "colour")
    _curve(axes[0], rows, "word_acc", "C3", "words")
    _curve(axes[0], rows, "deciding_acc", "C6", "words that decide")
    _curve(axes[1], rows, "place_px", "C2", "at the tokens")
    _curve(axes[1], rows, "number_px", "C4", "in the answer")
    axes[0].set(title=f"{name}: right", xlabel="step", ylim=(0, 1))
    error = f"{name}: coordinate error [px of {seen_size_px}]"
    axes[1].set(title=error, xlabel="step", yscale="log")


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    for axis in figure.axes:
        axis.legend()
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _smoothed(rows: Rows, key: str) -> Rows:
    """Rows whose value is the mean of the last few."""
    return [
        rows[end - 1] | {key: _mean(rows[end - SMOOTHED_OVER : end], key)}
        for end in range(SMOOTHED_OVER, len(rows) + 1)
    ]


def _mean(rows: Rows, key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def _curve(
    axis: Any, rows: Sequence[tuple[int, dict[str, Any]]], key: str, color: str, label: str
) -> None:
    """Draw what the stages that measure it have measured."""
    known = [(step, row[key]) for step, row in rows if key in row]
    axis.plot([step for step, _ in known], [value for _, value in known], color, label=label)


def _pipeline_table(figures: dict[str, Any]) -> str:
    whole, before = figures["pipeline"], figures["warmup"]
    lines = [
        "The whole pipeline (question to mask), and true masks picked blindly for comparison:",
        "",
        "| kind | gIoU | cIoU | box acc. @0.5 | unusable | N | before GRPO | random | largest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in (*(kind for kind in QUERY_KINDS if kind in whole["kinds"]), None):
        row, *others = (
            figures[name]["kinds"][kind] if kind else figures[name]
            for name in ("pipeline", "warmup", "random", "largest")
        )
        cells = [row[key] for key in ("giou", "ciou", "box_acc_50", "unusable", "n")]
        cells = map(_number, [*cells, *(other["giou"] for other in others)])
        lines.append(f"| {kind or '**all**'} | " + " | ".join(cells) + " |")
    right, right_before = (
        _number(found["kinds"]["none"]["refusals_correct"]) for found in (whole, before)
    )
    wrong, wrong_before = (_number(found["refusals_wrong"]) for found in (whole, before))
    return "\n".join(lines) + (
        f"\n\nCorrect refusals on `none`: {right} (before GRPO {right_before}); wrong ones of all"
        f" other questions: {wrong} ({wrong_before})."
        f" Time of a question: {whole['ms']:.0f} ms on one core of two.\n"
    )


def _segmenter_table(truth: dict[str, Any]) -> str:
    rows = (f"| {name} | {_number(r['giou'])} | {r['n']} |" for name, r in truth["sizes"].items())
    return (
        f"The segmenter alone, given true boxes and points, on {truth['n']} objects:\n\n"
        "| objects, points given | mean IoU | N |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _tracking(tracking: dict[str, Any]) -> str:
    iou = tracking["iou"]["tracker"]
    return (
        f"Tracked over {tracking['clips']} clips of {tracking['frames']} frames, from the true"
        f" mask on: mean IoU {_number(iou['mean'])}; {tracking['hz']} frames per second with"
        f" {tracking['threads']} threads.\n"
    )


def _training(logs: Logs, commands: str) -> str:
    lines = []
    for stage in logs.stages:
        rows = [r for r in logs.warmup if r["stage"] == stage]
        clock = [r["s"] for r in rows]
        # The clock of a log begins anew whenever the training does.
        ends = (a for a, b in zip(clock, [*clock[1:], 0.0], strict=True) if b < a)
        minutes = sum(ends) / 60
        lines.append(f"- reasoner, warm-up, {stage}: {rows[-1]['step']} steps, {minutes:.0f} min")
    grpo = logs.grpo
    first, last = (_mean(rows, "reward") for rows in (grpo[:SMOOTHED_OVER], grpo[-SMOOTHED_OVER:]))
    lines.append(
        f"- reasoner, GRPO: {grpo[-1]['step']} steps, {grpo[-1]['processor_s'] / 60:.0f} min of"
        f" processor time; mean reward {_number(first)} in the first {SMOOTHED_OVER} steps,"
        f" {_number(last)} in the last"
    )
    for name, rows in (("segmenter", logs.segmenter), ("its memory", logs.tracker)):
        end = [r for r in rows if r.get("kind") == "train"][-1]
        lines.append(f"- {name}: {end['pictures']} images, {end['minutes']:.0f} min")
    block = "\n".join(f"    {line}" for line in commands.strip().splitlines())
    return (
        "\n".join(lines)
        + "\n\nWhere nothing else is said, minutes of wall clock, trainings beside each other (and"
        + f" other work) on two cores. The commands:\n\n{block}\n"
    )


def _latest(rows: Rows, stages: tuple[str, ...]) -> Rows:
    """Rows in order of their steps; what was trained again after an interruption counts once."""
    latest = {(stages.index(row["stage"]), row["step"]): row for row in rows}
    return [latest[key] for key in sorted(latest)]


def _parts(bundle: Path) -> str:
    rows = []
    for name, kind in (("reasoner", "Qwen2.5-VL"), ("segmenter", "SAM 2.1")):
        file = bundle / name / "model.safetensors"
        with safe_open(file, "pt") as weights:
            names = list(weights.keys())
            count = sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
        megabytes = file.stat().st_size / 1e6
        rows.append(f"| {name} | {kind} | {count / 1e6:.2f} M | {megabytes:.1f} MB float16 |")
    return "\n".join(rows)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _log(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.bundle.model_card", description=__doc__
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder of figures and logs")
    parser.add_argument("--bundle", type=Path, default=Path("models/tabletop"))
    parser.add_argument("--plot", type=Path, default=Path("docs/training.png"))
    args = parser.parse_args(argv)
    draw_curves(read_logs(args.runs), args.plot)
    card = write_card(args.runs, args.bundle, args.plot)
    (args.bundle / "README.md").write_text(card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
