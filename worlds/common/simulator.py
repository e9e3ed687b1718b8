"""Imports MuJoCo, in one place because the order of its first import matters.

Use `from worlds.common.simulator import mujoco`.
"""

from __future__ import annotations

import contextlib
import os

os.environ.setdefault("MUJOCO_GL", "osmesa")  # read by mujoco on its first import

# Mesa brings an LLVM that PyOpenGL makes visible to everything loaded later. Triton (a part of
# PyTorch's installation) holds another LLVM and crashes the process unless it was loaded before.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

import mujoco

__all__ = ["mujoco"]
