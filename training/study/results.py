"""What came out of a training, small enough to be kept beside the document.

A file of its own holds the cases, which are the same for all arms; the file of a training holds a
row of numbers for each figure, in the order of the cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import InputError
from training.evaluation.predictions import SamplesFile, read_samples, write_whole

CASES: Final = "cases.json"
METRICS: Final = "metrics.jsonl"
KEPT_COMPLETIONS: Final = 120
_METRIC_KEYS: Final = ("step", "processor_s", "loss", "reward", "reward_std", "kl", "entropy")


@dataclass(frozen=True)
class Cases:
    """What all arms were asked.

    Attributes:
        ids: One per case.
        pictures: The scene each is about.
        kinds: The kind of each question.
        splits: `test` where the phrasing, or the pair of colour and kind, is one that training
            never sees; else `train`.
        queries: The questions.
        data_hash: Of the annotations.
    """

    ids: tuple[str, ...]
    pictures: tuple[str, ...]
    kinds: tuple[str, ...]
    splits: tuple[str, ...]
    queries: tuple[str, ...]
    data_hash: str


@dataclass(frozen=True)
class Result:
    """What one training, or the model before it, answered.

    Attributes:
        arm: Name of the arm.
        seed: Of the training.
        base_hash: Weights that it began from.
        weights_hash: Weights that answered.
        iou: For each case.
        refused: For each case, 1 where the answer was empty.
        unusable: For each case, 1 where the reply could not be read.
        box_hit: For each case, the share of boxes that hit.
        point_hit: For each case, the share of points inside the mask; None without a point.
        words: Score of each question of the retention test.
        word_kinds: The kind of each of those.
        rewards: For each held-out question the mean reward of the replies drawn to it.
        rewarded: The pictures of those questions.
        completions: Of the first cases.
    """

    arm: str
    seed: int
    base_hash: str
    weights_hash: str
    iou: tuple[float, ...]
    refused: tuple[int, ...]
    unusable: tuple[int, ...]
    box_hit: tuple[float, ...]
    point_hit: tuple[float | None, ...]
    words: tuple[float, ...]
    word_kinds: tuple[str, ...]
    rewards: tuple[float, ...]
    rewarded: tuple[str, ...]
    completions: tuple[str, ...] = field(default=())


def cases_of(samples: SamplesFile, kinds: Sequence[str]) -> Cases:
    """The cases of an evaluation that are of the given kinds."""
    rows = [row for row in samples.rows.values() if row["kind"] in kinds]
    columns = (
        [str(row[key]) for row in rows] for key in ("id", "picture", "kind", "split", "query")
    )
    return Cases(*map(tuple, columns), data_hash=str(samples.data["hash"]))


def make_result(arm: str, seed: int, base_hash: str, folder: Path, cases: Cases) -> Result:
    """Put the outcome of all evaluations of a model together.

    Args:
        arm: Name of the arm.
        seed: Of the training.
        base_hash: Weights that it began from.
        folder: Holds `test.jsonl` of `segzero evaluate --samples`, `words.jsonl` of
            `python -m training.evaluation.retention` and `rewards.jsonl` of
            `training.finetune.reward_statistics`.
        cases: What must have been asked.

    Raises:
        InputError: A file is damaged, or holds other cases.
    """
    samples = folder / "test.jsonl"
    found = read_samples(samples)
    missing = [name for name in cases.ids if name not in found.rows]
    if missing or found.data["hash"] != cases.data_hash:
        raise InputError(f"{samples}: not the cases of this study; {len(missing)} are missing")
    rows = [found.rows[name] for name in cases.ids]
    spoken, rewarded = _rows(folder / "words.jsonl"), _rows(folder / "rewards.jsonl")
    return Result(
        arm=arm,
        seed=seed,
        base_hash=base_hash,
        weights_hash=str(found.model["weights_hash"]),
        iou=tuple(round(float(row["iou"]), 4) for row in rows),
        refused=tuple(int(row["refused"]) for row in rows),
        unusable=tuple(int(row["unusable"]) for row in rows),
        box_hit=tuple(round(_share(row["box_hits"]), 4) for row in rows),
        point_hit=tuple(_point_share(row["point_hits"]) for row in rows),
        words=tuple(float(row["score"]) for row in spoken),
        word_kinds=tuple(str(row["kind"]) for row in spoken),
        rewards=tuple(round(float(row["reward"]), 4) for row in rewarded),
        rewarded=tuple(str(row["id"]).rpartition("/")[0] for row in rewarded),
        completions=tuple(str(row["completion"]) for row in rows[:KEPT_COMPLETIONS]),
    )


def save(value: Cases | Result, path: Path) -> None:
    """Write cases or a result as one object."""
    write_whole(path, json.dumps(asdict(value), separators=(",", ":")) + "\n")


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
    """Copy the rows of a training's metrics, without what nobody reads."""
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
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a file of the study: {error}") from error


def _share(value: Any) -> float:
    return 0.0 if value is None else float(value)


def _point_share(value: Any) -> float | None:
    return None if value is None else round(float(value), 4)
