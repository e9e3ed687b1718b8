"""Compares two evaluations of the same cases, case by case: is the second model better?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segzero_core.errors import InputError
from training.evaluation.bootstrap import PairedDifference, paired_difference
from training.evaluation.metrics import OVER_KINDS
from training.evaluation.predictions import PredictionsFile, read_predictions

_SHOWN_IDS = 3


@dataclass(frozen=True)
class Comparison:
    """Two models on the same cases; differences are second minus first.

    Attributes:
        first: The file of the first model.
        second: The file of the second model.
        overall: The difference of `giou`, averaged as the protocol says.
        kinds: The difference for each kind of queries.
    """

    first: PredictionsFile
    second: PredictionsFile
    overall: PairedDifference
    kinds: Mapping[str, PairedDifference]

    def to_values(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "first": dict(self.first.model),
            "second": dict(self.second.model),
            "data": dict(self.first.data),
            "protocol": dict(self.first.protocol),
            "giou": asdict(self.overall),
            "kinds": {kind: asdict(difference) for kind, difference in self.kinds.items()},
        }

    def as_text(self) -> str:
        """Write it as a table."""
        width = max(map(len, (*self.kinds, "kind"))) + 2
        lines = [
            f"first:  {_model_name(self.first)}",
            f"second: {_model_name(self.second)}",
            f"{'kind':<{width}}{'gIoU, second - first':>22}{'95 % interval':>20}{'p':>9}{'N':>7}",
        ]
        for kind, found in [*self.kinds.items(), ("all", self.overall)]:
            ends = "-" if found.interval is None else "{:+.3f} to {:+.3f}".format(*found.interval)
            lines.append(
                f"{kind:<{width}}{found.difference:>+22.3f}{ends:>20}"
                f"{found.p_value:>9.4f}{found.n:>7}"
            )
        return "\n".join(lines)


def compare(first: Path, second: Path) -> Comparison:
    """Compare two files of `segzero evaluate --samples`.

    Raises:
        InputError: One is damaged, or they are not about the same cases, scored the same way.
    """
    files = read_predictions(first), read_predictions(second)
    _check_same("protocol", files[0].protocol, files[1].protocol, files)
    _check_same("data", files[0].data, files[1].data, files)
    _check_ids(*files)
    _check_ids(files[1], files[0])
    ids = list(files[0].rows)
    over_kinds = files[0].protocol.get("giou") == OVER_KINDS
    kinds = dict.fromkeys(row["kind"] for row in files[0].rows.values())
    return Comparison(
        *files,
        overall=_difference(files, ids, over_kinds=over_kinds),
        kinds={
            kind: _difference(
                files, [i for i in ids if files[0].rows[i]["kind"] == kind], over_kinds=False
            )
            for kind in kinds
        },
    )


def _difference(
    files: tuple[PredictionsFile, PredictionsFile], ids: Iterable[str], *, over_kinds: bool
) -> PairedDifference:
    rows = [(files[0].rows[i], files[1].rows[i]) for i in ids]
    return paired_difference(
        [a["iou"] for a, _ in rows],
        [b["iou"] for _, b in rows],
        [a["picture"] for a, _ in rows],
        [a["kind"] for a, _ in rows] if over_kinds else (),
    )


def _check_same(
    what: str,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    files: tuple[PredictionsFile, PredictionsFile],
) -> None:
    for key in dict.fromkeys([*first, *second]):
        if first.get(key) != second.get(key):
            raise InputError(
                f"{files[0].path} and {files[1].path} cannot be compared: their {what} differs,"
                f" {key} is {first.get(key)!r} and {second.get(key)!r}"
            )


def _check_ids(file: PredictionsFile, other: PredictionsFile) -> None:
    if missing := [name for name in other.rows if name not in file.rows]:
        shown = ", ".join(missing[:_SHOWN_IDS]) + (" …" if len(missing) > _SHOWN_IDS else "")
        raise InputError(f"{file.path} lacks {len(missing)} cases of {other.path}: {shown}")


def _model_name(file: PredictionsFile) -> str:
    name, digest = file.model.get("name"), file.model.get("weights_hash")
    return f"{name} ({digest})" if digest else str(name)
