"""Results of the study's trainings, which are committed beside the document.

One file holds the cases, which are the same for all arms. The file of a training holds one row of
numbers per metric, in the order of the cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import InputError
from training.evaluation.predictions import PredictionsFile, read_predictions, write_whole

CASES: Final = "cases.json"
METRICS: Final = "metrics.jsonl"
KEPT_COMPLETIONS: Final = 120
_JSON_KEYS: Final = {"images": "pictures"}
"""Fields whose key in the committed files differs from their name."""
_METRIC_KEYS: Final = ("step", "processor_s", "loss", "reward", "reward_std", "kl", "entropy")


@dataclass(frozen=True)
class Cases:
    """The cases of all arms; each column has one value per case."""

    ids: tuple[str, ...]  # names of the cases
    images: tuple[str, ...]  # the scene each is about
    kinds: tuple[str, ...]  # the kind of each question
    # `test` where training never sees the phrasing, or the pair of color and kind; else `train`.
    splits: tuple[str, ...]
    queries: tuple[str, ...]  # the questions
    data_hash: str  # of the annotations


@dataclass(frozen=True)
class Result:
    """The answers of one training, or of the model before it."""

    arm: str
    seed: int
    base_hash: str  # weights that it began from
    weights_hash: str  # weights that answered
    # One value per case:
    iou: tuple[float, ...]
    refused: tuple[int, ...]  # 1 where the answer was empty
    unusable: tuple[int, ...]  # 1 where the completion could not be read
    box_hit: tuple[float, ...]  # share of boxes that hit
    point_hit: tuple[float | None, ...]  # share of points inside the mask; None without a point
    # One value per question of the retention test:
    words: tuple[float, ...]
    word_kinds: tuple[str, ...]
    # One value per held-out question:
    rewards: tuple[float, ...]  # mean reward of its sampled completions
    rewarded: tuple[str, ...]  # its image
    completions: tuple[str, ...] = ()  # of the first cases


def cases_of(samples: PredictionsFile, kinds: Sequence[str]) -> Cases:
    """The cases of an evaluation that are of the given kinds."""
    rows = [row for row in samples.rows.values() if row["kind"] in kinds]
    columns = (
        [str(row[key]) for row in rows] for key in ("id", "picture", "kind", "split", "query")
    )
    return Cases(*map(tuple, columns), data_hash=str(samples.data["hash"]))


def make_result(arm: str, seed: int, base_hash: str, folder: Path, cases: Cases) -> Result:
    """Combine all evaluations of a model.

    The folder holds `test.jsonl` of `segzero evaluate --samples`, `words.jsonl` of `python -m
    training.evaluation.retention` and `rewards.jsonl` of `training.finetune.reward_statistics`.
    The cases are what must have been asked.

    Raises:
        InputError: A file is damaged, or holds other cases.
    """
    samples = folder / "test.jsonl"
    found = read_predictions(samples)
    missing = [name for name in cases.ids if name not in found.rows]
    if missing or found.data["hash"] != cases.data_hash:
        raise InputError(f"{samples}: not the cases of this study; {len(missing)} are missing")
    rows = [found.rows[name] for name in cases.ids]
    words, rewarded = _rows(folder / "words.jsonl"), _rows(folder / "rewards.jsonl")
    return Result(
        arm=arm,
        seed=seed,
        base_hash=base_hash,
        weights_hash=str(found.model["weights_hash"]),
        iou=tuple(round(float(row["iou"]), 4) for row in rows),
        refused=tuple(int(row["refused"]) for row in rows),
        unusable=tuple(int(row["unusable"]) for row in rows),
        box_hit=tuple(round(row["box_hits"] or 0.0, 4) for row in rows),
        point_hit=tuple(
            None if row["point_hits"] is None else round(row["point_hits"], 4) for row in rows
        ),
        words=tuple(float(row["score"]) for row in words),
        word_kinds=tuple(str(row["kind"]) for row in words),
        rewards=tuple(round(float(row["reward"]), 4) for row in rewarded),
        rewarded=tuple(str(row["id"]).rpartition("/")[0] for row in rewarded),
        completions=tuple(str(row["completion"]) for row in rows[:KEPT_COMPLETIONS]),
    )


def save(value: Cases | Result, path: Path) -> None:
    """Write cases or a result as one JSON object."""
    values = {_JSON_KEYS.get(name, name): item for name, item in asdict(value).items()}
    write_whole(path, json.dumps(values, separators=(",", ":")) + "\n")


def load_cases(folder: Path) -> Cases:
    """Read the cases of a folder of results.

    Raises:
        InputError: The file is missing or damaged.
    """
    return _load(folder / CASES, Cases)


def load_result(path: Path) -> Result:
    """Read the result of one training.

    Raises:
        InputError: The file is missing or damaged.
    """
    return _load(path, Result)


def result_path(folder: Path, arm: str, seed: int) -> Path:
    """Where the result of a training is kept."""
    return folder / f"{arm}-{seed}.json"


def metrics_path(folder: Path, arm: str, seed: int) -> Path:
    """Where the metrics of a training are kept."""
    return folder / f"{arm}-{seed}.{METRICS}"


def keep_metrics(source: Path, target: Path) -> None:
    """Copy the metrics that the report uses."""
    rows = [row for row in _rows(source) if "train_runtime" not in row]
    kept = [{key: value for key, value in row.items() if _is_kept(key)} for row in rows]
    write_whole(target, "".join(json.dumps(row) + "\n" for row in kept))


def load_metrics(path: Path) -> list[dict[str, float]]:
    """Read the metrics of a training, a row a step; none where it was not trained."""
    return _rows(path) if path.is_file() else []


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _is_kept(key: str) -> bool:
    return key in _METRIC_KEYS or key.endswith("/mean") or key == "completions/mean_length"


def _load(path: Path, kind: type[Any]) -> Any:
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = {key: name for name, key in _JSON_KEYS.items()}
        columns = {names.get(key, key): value for key, value in values.items()}
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in columns.items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a file of the study: {error}") from error
