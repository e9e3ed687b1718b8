"""Keeps the process's memory small: few heaps, and what a model took goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any, Final

_M_ARENA_MAX: Final = -8
"""glibc's own number of the setting."""
HEAPS: Final = 2


def loaded_cuda() -> Any:
    """Return torch's CUDA module if torch is loaded and has a GPU, else None.

    While another thread imports torch, the module is there but most of it is not.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_available = getattr(cuda, "is_available", lambda: False)
    return cuda if is_available() else None


def limit_heaps() -> None:
    """Let all threads that begin from now on allocate from a few heaps; to be called first.

    glibc has up to eight heaps a core, and threads that come and go wander through them. An image
    encoder leaves some 30 MB of freed memory in each.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every libc has one
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, HEAPS)


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
