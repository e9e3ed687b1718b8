"""LIBERO's suites as cases, and what is reported besides: per task, and what is left out.

The images are rendered once, into the cache; see `worlds.libero.benchmark`.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from segzero_core.checkpoints.cache import cache_folder
from segzero_core.errors import InputError
from training.evaluation.cases import CaseSet, open_data
from training.evaluation.predictions import Scored

LIBERO: Final = "libero"
_RIGHT_IOU: Final = 0.5
_Z_95: Final = 1.959964


def open_libero(name: str, states: int, kind: str | None, limit: int | None) -> CaseSet:
    """Open a suite, rendered where the cache lacks it.

    Args:
        name: One of the package's suites.
        states: How many initial states of each task.
        kind: Only questions of this kind.
        limit: Only the first so many questions.

    Raises:
        InputError: The extra is missing, there is no such suite or state, nothing can be rendered,
            or nothing is left to ask.
    """
    cases = open_data(render_suite(name, states), kind, None, None)
    images = [entry for entry in cases.images if _state_of(entry.cases[0].image) < states]
    cases = replace(cases, images=tuple(images))
    if limit is not None:
        cases = _first(cases, limit)
    identity = replace(
        cases.data,
        name=f"LIBERO {name}",
        split=f"first {states} initial states",
        rejected=len(_omissions(name)),
    )
    return replace(cases, data=identity)


def render_suite(name: str, states: int) -> Path:
    """Render what the cache lacks of a suite, and return its folder.

    Args:
        name: One of the package's suites.
        states: How many initial states of each task.

    Raises:
        InputError: As for `open_libero`.
    """
    from tqdm import tqdm

    from worlds.libero.benchmark.rendering import render_tasks
    from worlds.libero.benchmark.suites import BenchmarkError, open_suite

    folder = cache_folder(LIBERO) / name
    try:
        tasks, omitted = open_suite(name, states)
        folder.mkdir(parents=True, exist_ok=True)
        total = len(tasks) * states
        with tqdm(total=total, unit="image", desc=name, file=sys.stderr) as progress:
            for count in render_tasks(tasks, omitted, states, folder):
                progress.update(count)
    except (RuntimeError, BenchmarkError, OSError) as error:
        raise InputError(str(error)) from error
    return folder


def _omissions(name: str) -> list[dict[str, Any]]:
    path = cache_folder(LIBERO) / name / "omitted.json"
    return list(json.loads(path.read_text(encoding="utf-8")))


def _state_of(image: str) -> int:
    return int(image.rpartition("state")[2])


def _task_of(image: str) -> int:
    return int(image.removeprefix("task").partition("_")[0])


def _first(cases: CaseSet, limit: int) -> CaseSet:
    """Keep whole images until there are enough questions."""
    kept, count = [], 0
    for entry in cases.images:
        if count >= limit:
            break
        kept.append(entry)
        count += len(entry.cases)
    return replace(cases, images=tuple(kept))


def suite_section(samples: Sequence[Scored], name: str, states: int) -> dict[str, Any]:
    """What is reported of a suite besides the metrics of every evaluation."""
    omissions = _omissions(name)
    tasks = sorted({_task_of(sample.case.image) for sample in samples})
    return {
        "suite": name,
        "states": states,
        "iou_50": _by_kind(samples),
        "tasks": {
            str(task): {
                "text": _instruction(samples, task),
                "iou_50": _by_kind(s for s in samples if _task_of(s.case.image) == task),
            }
            for task in tasks
        },
        "omitted": dict(Counter(record["kind"] for record in omissions)),
        "omissions": omissions,
    }


def _by_kind(samples: Iterable[Scored]) -> dict[str, dict[str, Any]]:
    right: dict[str, list[bool]] = {}
    for sample in samples:
        right.setdefault(sample.case.kind, []).append(sample.outcome.iou >= _RIGHT_IOU)
    return {
        kind: {
            "share": sum(values) / len(values),
            "n": len(values),
            "interval": wilson(sum(values), len(values)),
        }
        for kind, values in right.items()
    }


def _instruction(samples: Sequence[Scored], task: int) -> str:
    for sample in samples:
        if _task_of(sample.case.image) == task and sample.case.kind in ("instruction", "fixture"):
            return sample.case.query
    return ""


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share, square = right / count, _Z_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _Z_95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    half /= 1 + square / count
    return max(0.0, middle - half), min(1.0, middle + half)


def suite_table(section: dict[str, Any]) -> str:
    """IoU of 0.5 and more, per kind and per task, and what is left out."""
    kinds = list(section["iou_50"])
    lines = ["", "", "IoU >= 0.5" + "".join(f"{kind:>13}" for kind in kinds)]
    for task, row in section["tasks"].items():
        shares = row["iou_50"]
        cells = (f"{shares[kind]['share']:.2f}" if kind in shares else "-" for kind in kinds)
        text = "".join(f"{cell:>13}" for cell in cells)
        lines.append(f"task {task:<5}{text}   {row['text']}")
    whole = section["iou_50"].values()
    lines.append("all       " + "".join(f"{row['share']:>13.3f}" for row in whole))
    bounds = (f"{row['interval'][0]:.2f}-{row['interval'][1]:.2f}" for row in whole)
    lines.append("95 %      " + "".join(f"{text:>13}" for text in bounds))
    left_out = ", ".join(f"{count} {kind}" for kind, count in section["omitted"].items())
    lines.append(f"left out  {left_out or 'nothing'}")
    reasons = Counter(record["reason"] for record in section["omissions"])
    lines += [f"          {count} x {reason}" for reason, count in reasons.items()]
    return "\n".join(lines)
