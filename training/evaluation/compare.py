"""Compares two evaluations of the same cases, case by case: is the second model better?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Two models on the same cases; differences are second minus first."""

    first: PredictionsFile  # the file of the first model
    second: PredictionsFile  # the file of the second model
    overall: PairedDifference  # the difference of `giou`, averaged as the protocol says
    kinds: Mapping[str, PairedDifference]  # the difference for each kind of queries

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
    for what in ("protocol", "data"):
        old, new = (getattr(file, what) for file in files)
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                raise InputError(
                    f"{first} and {second} cannot be compared: their {what} differs, {key} is"
                    f" {old.get(key)!r} and {new.get(key)!r}"
                )
    for file, other in (files, files[::-1]):
        if missing := [name for name in other.rows if name not in file.rows]:
            shown = ", ".join(missing[:_SHOWN_IDS]) + (" …" if len(missing) > _SHOWN_IDS else "")
            raise InputError(f"{file.path} lacks {len(missing)} cases of {other.path}: {shown}")
    pairs = [(row, files[1].rows[name]) for name, row in files[0].rows.items()]
    is_over_kinds = files[0].protocol.get("giou") == OVER_KINDS
    kinds = dict.fromkeys(row["kind"] for row, _ in pairs)
    return Comparison(
        *files,
        overall=_difference(pairs, [row["kind"] for row, _ in pairs] if is_over_kinds else ()),
        kinds={kind: _difference([p for p in pairs if p[0]["kind"] == kind]) for kind in kinds},
    )


def _difference(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], groups: Sequence[str] = ()
) -> PairedDifference:
    first, second, images = zip(
        *((a["iou"], b["iou"], a["picture"]) for a, b in pairs), strict=True
    )
    return paired_difference(first, second, images, groups)


def _model_name(file: PredictionsFile) -> str:
    name, digest = file.model.get("name"), file.model.get("weights_hash")
    return f"{name} ({digest})" if digest else str(name)
