"""Reads a recording for Rerun back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

if int(np.__version__.partition(".")[0]) < 2:
    pytest.skip("Rerun needs NumPy 2; CI has it", allow_module_level=True)
pytest.importorskip("rerun", reason="could not import rerun: pip install 'segzero[rerun]'")

Row = dict[str, Any]


def read_recording(path: Path) -> dict[str, list[Row]]:
    """Return the rows of each entity in the order of writing; a value for each component."""
    from rerun.chunk import RrdReader

    entities: dict[str, list[Row]] = {}
    for chunk in RrdReader(path).stream().to_chunks():
        rows = chunk.to_record_batch().to_pylist()
        kept = [{name: value for name, value in row.items() if value is not None} for row in rows]
        entities.setdefault(chunk.entity_path, []).extend(kept)
    for rows in entities.values():
        rows.sort(key=lambda row: row["rerun.controls.RowId"])
    return entities


def values(entities: dict[str, list[Row]], entity: str, component: str) -> list[Any]:
    """Return what was written of a component of an entity, without the outer list of one."""
    rows = [row[component] for row in entities.get(entity, []) if component in row]
    return [row[0] if len(row) == 1 else row for row in rows]


def lines(entities: dict[str, list[Row]], kind: str) -> list[str]:
    """Return the text of a log trace/KIND."""
    return values(entities, f"/trace/{kind}", "TextLog:text")


def image_of(row: Row) -> np.ndarray:
    """Decode the camera's image, uint8 [H, W, 3]."""
    return np.array(Image.open(io.BytesIO(bytes(row["EncodedImage:blob"][0]))))


def plane_of(row: Row, kind: str) -> np.ndarray:
    """Return uint16 [H, W] of a SegmentationImage or DepthImage."""
    layout = row[f"{kind}:format"][0]
    plane = np.frombuffer(bytes(row[f"{kind}:buffer"][0]), "<u2")
    return plane.reshape(layout["height"], layout["width"])


def has_layout(path: Path) -> bool:
    """Whether the file carries a blueprint."""
    from rerun.chunk import RrdReader

    return bool(RrdReader(path).blueprints())
