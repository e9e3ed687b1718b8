"""Checks prepared data row by row before it is used: a folder may come from anywhere."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segzero_core.errors import InputError
from segzero_core.images.files import UNREADABLE_IMAGE, open_image
from segzero_core.limits import MAX_IMAGE_PX, MAX_OBJECTS
from training.data.sources.base import usable_query
from training.data.sources.rle import rle_from_segmentation

_ROWS_AT_ONCE: Final = 100


def check_shard(path: Path, schema: pa.Schema) -> None:
    """Read a shard once and refuse it where a row is not what this package writes.

    An image must lie in the shard (a name alone would have any file or address opened) in a format
    that is read, masks must cover the image exactly, and numbers must be finite.

    Raises:
        InputError: It is damaged, or a row is wrong; names the row.
    """
    number = 0
    try:
        with pq.ParquetFile(path) as shard:
            if shard.schema_arrow.names != schema.names:
                raise InputError(f"its columns are {shard.schema_arrow.names}")
            for batch in shard.iter_batches(_ROWS_AT_ONCE):
                for row in pa.Table.from_batches([batch]).cast(schema).to_pylist():
                    _check(row)
                    number += 1
    # Damage shows as errors of Arrow, of the system, of decoding, of types and of values.
    except Exception as error:
        raise InputError(f"{path}: row {number}: {error}; prepare the data again") from error


def _check(row: dict[str, Any]) -> None:
    for name in ("kind", "source_id", "split"):
        if not isinstance(row[name], str):
            raise InputError(f"{name} is no text")
    usable_query(row["query"])
    content = (row["image"] or {}).get("bytes")
    if not content:
        raise InputError("its image is not in the file")
    width, height = row["size_wh"]
    for size in (row["size_wh"], row["seen_size_wh"]):
        if min(size) < 1 or prod(size) > MAX_IMAGE_PX:
            raise InputError(f"a size of {size[0]}x{size[1]}")
    try:
        with open_image(content) as image:
            # It may lie on its side, or be squashed to what the model sees (`--picture png`).
            if {*image.size} not in ({width, height}, {*row["seen_size_wh"]}):
                raise InputError(f"its image is {image.size}, its masks are {(width, height)}")
    except UNREADABLE_IMAGE as error:
        raise InputError(f"its image: {error}") from error
    masks = row["masks"]
    if len(masks) > MAX_OBJECTS or not len(masks) == len(row["boxes_xyxy"]) == len(row["points"]):
        raise InputError("it has not one box and two points for each mask")
    for code in (*masks, *([row["ignore"]] if row["ignore"] else [])):
        rle_from_segmentation(code, (width, height))
    if masks and not (np.isfinite(row["boxes_xyxy"]).all() and np.isfinite(row["points"]).all()):
        raise InputError("a box or point is no number")
