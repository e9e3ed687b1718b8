"""LIBERO's suites as cases, with results for each task and a list of what is left out.

The images are rendered once, into the cache; see `worlds.libero.benchmark`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from scipy.stats import binomtest

from segzero_core.checkpoints.cache import cache_folder
from segzero_core.errors import InputError
from training.evaluation.cases import CaseSet, open_data
from training.evaluation.predictions import Scored

LIBERO: Final = "libero"
_RIGHT_IOU: Final = 0.5


def open_libero(name: str, states: int, kind: str | None, limit: int | None) -> CaseSet:
    """Open a suite with so many initial states of each task, rendered where the cache lacks it.

    Raises:
        InputError: The extra is missing, there is no such suite or state, nothing can be rendered,
            or nothing is left to ask.
    """
    cases = open_data(render_suite(name, states), kind, None, None)
    kept, count = [], 0
    for entry in cases.images:
        if int(entry.cases[0].image.rpartition("state")[2]) >= states:
            continue
        if limit is not None and count >= limit:  # images are kept whole
            break
        kept.append(entry)
        count += len(entry.cases)
    split, rejected = f"first {states} initial states", len(_omissions(name))
    data = replace(cases.data, name=f"LIBERO {name}", split=split, rejected=rejected)
    return replace(cases, data=data, images=tuple(kept))


def render_suite(name: str, states: int) -> Path:
    """Render what the cache lacks of so many initial states of each task; return its folder.

    Raises:
        InputError: As for `open_libero`.
    """
    from segzero_core.terminal.progress_bar import ProgressBar
    from worlds.libero.benchmark.rendering import render_tasks
    from worlds.libero.benchmark.suites import BenchmarkError, open_suite

    folder = cache_folder(LIBERO) / name
    try:
        tasks, omitted = open_suite(name, states)
        folder.mkdir(parents=True, exist_ok=True)
        total = len(tasks) * states
        with ProgressBar(total=total, unit="image", desc=name, file=sys.stderr) as progress:
            for count in render_tasks(tasks, omitted, states, folder):
                progress.update(count)
    except (RuntimeError, BenchmarkError, OSError) as error:
        raise InputError(str(error)) from error
    return folder


def _omissions(name: str) -> list[dict[str, Any]]:
    path = cache_folder(LIBERO) / name / "omitted.json"
    return list(json.loads(path.read_text(encoding="utf-8")))


def suite_section(samples: Sequence[Scored], name: str, states: int) -> dict[str, Any]:
    """Return the part of the report that only LIBERO's suites have."""
    omissions = _omissions(name)
    tasks: dict[int, list[Scored]] = {}
    for sample in samples:
        task = int(sample.case.image.removeprefix("task").partition("_")[0])
        tasks.setdefault(task, []).append(sample)
    return {
        "suite": name,
        "states": states,
        "iou_50": _by_kind(samples),
        "tasks": {
            str(task): {"text": _instruction(own), "iou_50": _by_kind(own)}
            for task, own in sorted(tasks.items())
        },
        "omitted": dict(Counter(record["kind"] for record in omissions)),
        "omissions": omissions,
    }


def _by_kind(samples: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """Share of the queries of each kind whose IoU is high enough, with its 95 % interval."""
    right: dict[str, list[bool]] = {}
    for sample in samples:
        right.setdefault(sample.case.kind, []).append(sample.outcome.iou >= _RIGHT_IOU)
    shares = {}
    for kind, values in right.items():
        hits, n = sum(values), len(values)
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        shares[kind] = {"share": hits / n, "n": n, "interval": (interval.low, interval.high)}
    return shares


def _instruction(samples: Sequence[Scored]) -> str:
    asked = [s.case.query for s in samples if s.case.kind in ("instruction", "fixture")]
    return asked[0] if asked else ""


def suite_table(section: dict[str, Any]) -> str:
    """Return a table: the share with IoU of 0.5 or more by kind and task, and omissions."""

    def line(name: str, cells: Iterable[str], after: str = "") -> str:
        return f"{name:<10}" + "".join(f"{cell:>13}" for cell in cells) + after

    whole = section["iou_50"]
    lines = ["", "", line("IoU >= 0.5", whole)]
    for task, row in section["tasks"].items():
        shares = row["iou_50"]
        cells = (f"{shares[kind]['share']:.2f}" if kind in shares else "-" for kind in whole)
        lines.append(line(f"task {task}", cells, f"   {row['text']}"))
    lines.append(line("all", (f"{row['share']:.3f}" for row in whole.values())))
    ends = (row["interval"] for row in whole.values())
    lines.append(line("95 %", (f"{low:.2f}-{high:.2f}" for low, high in ends)))
    left_out = ", ".join(f"{count} {kind}" for kind, count in section["omitted"].items())
    lines.append(f"left out  {left_out or 'nothing'}")
    reasons = Counter(record["reason"] for record in section["omissions"])
    lines += [f"          {count} x {reason}" for reason, count in reasons.items()]
    return "\n".join(lines)
