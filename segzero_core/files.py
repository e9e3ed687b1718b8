"""Writes files in one step."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def write_atomically(
    path: Path, data: str | bytes | Callable[[Path], object], *, fsync: bool = False
) -> None:
    """Write a file beside the wanted one, then let it take that one's place.

    Readers see the old file or the new one, never a half. When the write fails, for instance
    because the disk is full, the old file stays and nothing else is left behind. The folder must
    exist. The new file has the usual permissions, whatever the writer gave it.

    Args:
        path: The file to write or to replace.
        data: Text (written as UTF-8), bytes, or a function that writes the file it is given. That
            file's name ends in `.tmp`, and a file of no bytes is there already.
        fsync: Wait until the data is on the disk, so that it survives a power failure.

    Raises:
        OSError: The file cannot be written. What the function raises passes through.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch()
        permissions = temporary.stat().st_mode
        if isinstance(data, str):
            temporary.write_text(data, encoding="utf-8")
        elif isinstance(data, bytes):
            temporary.write_bytes(data)
        else:
            data(temporary)
        temporary.chmod(permissions)  # safetensors makes files that nobody else may read
        if fsync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
