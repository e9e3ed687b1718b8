"""Gives memory back to the system when a model is let go."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any


def loaded_cuda() -> Any:
    """Return torch's CUDA module if torch is loaded and has a GPU, else None.

    While another thread imports torch, the module is there but most of it is not.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_available = getattr(cuda, "is_available", lambda: False)
    return cuda if is_available() else None


def release_memory() -> None:
    """Collect what nobody holds any more, and return it: to the GPU's driver and to the system.

    glibc keeps freed memory for the process, which after a model of gigabytes looks like a leak.
    """
    gc.collect()
    if (cuda := loaded_cuda()) is not None:
        cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
