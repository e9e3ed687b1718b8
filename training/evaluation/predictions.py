"""The predictions of an evaluation as lines of JSON, for `--compare` and the study.

The first line holds the model, the data and how it was scored; each further line is a case.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import InputError
from segzero_core.files import write_atomically
from segzero_core.types import ObjectPrompt
from training.data.sources.rle import Rle
from training.evaluation.cases import Case, DataIdentity
from training.evaluation.metrics import Outcome

FORMAT: Final = 1
_HEADER_KEYS: Final = ("protocol", "model", "data")


@dataclass(frozen=True)
class Scored:
    """One case with its prediction and its score."""

    case: Case  # what was asked
    outcome: Outcome  # how it was scored
    completion: str  # the reasoner's whole completion
    prompts: tuple[ObjectPrompt, ...]  # the objects of the answer, in pixels of the image
    masks: tuple[Rle, ...]  # one per object, for images of the answer; not written to a file
    error: str = ""  # what went wrong; empty where nothing did

    def to_values(self) -> dict[str, Any]:
        """Return the values of its line."""
        boxes = [list(prompt.box.xyxy) for prompt in self.prompts]
        points = [[list(point.xy) for point in prompt.points] for prompt in self.prompts]
        answer = {"completion": self.completion, "boxes": boxes, "points": points}
        return self.case.to_values() | asdict(self.outcome) | answer | {"error": self.error}


@dataclass(frozen=True)
class Protocol:
    """How cases are scored; metrics of different protocols cannot be compared."""

    ignore: str  # one of `IGNORE_POLICIES`
    giou: str  # how the metric over several kinds is averaged
    # What a case scores in which neither answer nor truth has a pixel.
    empty: str = "1 for a refusal where nothing fits, else 0"


@dataclass(frozen=True)
class EvaluatedModel:
    """Which model made the predictions."""

    name: str  # as it was called; a blind guess says so
    weights_hash: str = ""  # see `ModelIdentity`; empty for a blind guess
    template: str = ""  # the prompt template; empty for a blind guess
    batch: int = 1  # queries asked at once; with more than one, completions may differ in a word
    grammar: bool = False  # decoding was constrained to well-formed answers


@dataclass(frozen=True)
class PredictionsFile:
    """The content of a file of predictions: the values of its header, and rows by case."""

    path: Path
    protocol: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]


def write_predictions(
    path: Path,
    samples: Sequence[Scored],
    protocol: Protocol,
    model: EvaluatedModel,
    data: DataIdentity,
) -> None:
    """Write a file of predictions, in one step.

    Raises:
        InputError: It cannot be written.
    """
    identity = {"protocol": asdict(protocol), "model": asdict(model), "data": asdict(data)}
    values = [{"segzero_samples": FORMAT, **identity}, *(sample.to_values() for sample in samples)]
    write_whole(path, "".join(json.dumps(value) + "\n" for value in values))


def read_predictions(path: Path) -> PredictionsFile:
    """Read a file of predictions.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: damaged: {error}") from error
        if not isinstance(values[-1], dict):
            raise InputError(f"{path}, line {number}: damaged: expected an object")
    header = values[0] if values else {}
    if header.get("segzero_samples") != FORMAT or not all(
        isinstance(header.get(key), dict) for key in _HEADER_KEYS
    ):
        raise InputError(
            f"{path}: its first line is not the header that segzero evaluate --samples writes"
        )
    rows: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(values[1:], 2):
        _check_row(row, f"{path}, line {number}")
        if row["id"] in rows:
            raise InputError(f"{path}, line {number}: the id {row['id']!r} is there twice")
        rows[row["id"]] = row
    if not rows:
        raise InputError(f"{path}: there is no case in it")
    return PredictionsFile(path, header["protocol"], header["model"], header["data"], rows)


def _check_row(row: Mapping[str, Any], where: str) -> None:
    for key in ("id", "picture", "kind"):
        if not isinstance(row.get(key), str):
            raise InputError(f"{where}: damaged: it has no {key}")
    for key in ("iou", "intersection", "union"):
        value = row.get(key)
        if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
            raise InputError(f"{where}: damaged: {key} is {value!r}")


def check_writable(path: Path) -> None:
    """Check early whether a file can be written.

    Raises:
        InputError: Its folder is missing, or it is a folder.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        InputError: It cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}") from error
