"""The cache folder, for files that can be made again: exported encoders and engines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from segzero_core.errors import ConfigError, ModelLoadError, shown
from segzero_core.files import write_atomically

FOLDER_VARIABLE: Final = "SEGZERO_CACHE"
"""Environment variable that names the folder."""


def cache_folder(part: str) -> Path:
    """Return a folder of the cache, such as `engines`, whether it exists or not.

    Raises:
        ConfigError: It is in the home of somebody who does not exist.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    base = chosen or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "segzero")
    try:
        return Path(base).expanduser() / part
    except RuntimeError as error:  # ~user of nobody
        raise ConfigError(f"{FOLDER_VARIABLE}: {shown(base)}: {error}") from error


def write_cached(path: Path, data: str | bytes | Callable[[Path], object]) -> None:
    """Write a file of the cache in one step, and make its folder; see `write_atomically`.

    Raises:
        ModelLoadError: The folder cannot be written to, or has no room.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Let one process at a time work on a file, by a lock beside it; others wait.

    Raises:
        ModelLoadError: The folder cannot be written to.
    """
    import fcntl

    lock = path.with_name(path.name + ".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unwritable(path: Path, error: OSError) -> ModelLoadError:
    return ModelLoadError(
        f"{path} cannot be written: {error}; make room, or name another folder by"
        f" {FOLDER_VARIABLE}"
    )
