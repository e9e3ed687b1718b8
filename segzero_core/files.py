"""Opens regular files only, and writes files atomically."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path


def open_regular(path: str | Path, max_bytes: int) -> BufferedReader:
    """Open a file to read it; links are followed.

    Reading a pipe or a device could wait forever, and a huge file could take all memory.

    Raises:
        OSError: It is missing, unreadable, no regular file, or larger than `max_bytes`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a name with a NUL or half a character
        raise OSError(errno.EINVAL, f"is no file name: {error}", ascii(str(path))) from error
    file = open(descriptor, "rb")  # noqa: SIM115 - the caller closes it
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_size <= max_bytes:
        return file
    file.close()
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    reason = f"has {about.st_size} bytes, at most {max_bytes} are read"
    raise OSError(errno.EFBIG, reason, str(path))


def read_regular(path: str | Path, max_bytes: int) -> bytes:
    """Read a whole file; see `open_regular`.

    Raises:
        OSError: As `open_regular`.
    """
    with open_regular(path, max_bytes) as file:
        return file.read(max_bytes)


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
