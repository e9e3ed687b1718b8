"""Reads RefCOCO's Python pickles without running what is in them."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

from segzero_core.errors import InputError
from training.data.sources.base import read_annotations

MAX_BYTES = 1 << 30
"""The largest file of the RefCOCO family is a twentieth of this."""


class _PlainUnpickler(pickle.Unpickler):
    """Knows dict, list, tuple, set, text, bytes, numbers, booleans and None.

    Everything else in a pickle begins with a name that is looked up here.
    """

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of plain values; Python 2's texts become str.

    Raises:
        InputError: The file is missing, cut off, too large, no pickle, or asks for anything but
            plain values.
    """
    content = read_annotations(path)
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: {len(content)} bytes, at most {MAX_BYTES} are read")
    try:
        return _PlainUnpickler(BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: {error}; a pickle is read only if it holds nothing but plain values"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path}: no pickle, or half of one: {error}") from error
