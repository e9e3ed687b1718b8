"""Gives memory back to the system when a model is let go."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any


def release_memory() -> None:
    """Collect what nobody holds any more, and return it: to the GPU's driver and to the system.

    glibc keeps freed memory for the process, which after a model of gigabytes looks like a leak.
    """
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
