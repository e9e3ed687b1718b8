"""Reads RefCOCO's Python pickles without running what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from segzero_core.checkpoints.isolation import IsolatedError, run_isolated
from segzero_core.errors import InputError
from training.data.sources.base import read_annotations

MAX_BYTES: Final = 1 << 29
"""The largest file of the RefCOCO family is a tenth of this."""
_SCRIPT: Final = Path(__file__).with_name("read_pickle.py")
_CPU_S: Final = 300
_MEMORY_BYTES: Final = 6 << 30


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of plain values; Python 2's texts become str, and tuples lists.

    In a process of its own: a pickle of a few bytes can crash its reader, or take all memory.

    Raises:
        InputError: The file is missing, cut off, too large, no pickle, or asks for anything but
            plain values.
    """
    content = read_annotations(path)
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: {len(content)} bytes, at most {MAX_BYTES} are read")
    try:
        return run_isolated(_SCRIPT, content, _CPU_S, _MEMORY_BYTES)
    except IsolatedError as error:
        raise InputError(
            f"{path}: {error}; a pickle is read only if it is whole, and holds nothing but plain"
            " values"
        ) from error
