"""Looks through a `.pt` file's pickle before torch reads it.

torch builds tensors and plain containers only (`weights_only=True`), but does not limit their
number or depth: a tuple nested 100,000 times crashes the interpreter, and a packed file of some
kilobytes can become gigabytes.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Final

from segzero_core.errors import ModelLoadError

_MAX_BYTES: Final = 20_000_000
_MAX_DEPTH: Final = 32
_MARK: Final = -1


def check_pt(path: Path) -> None:
    """Refuse a `.pt` file that is no plain archive of tensors.

    Raises:
        ModelLoadError: It is packed, in torch's format before 1.6, too large, or nested deeply.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ModelLoadError(f"{path}: it is packed, and could unpack to any size")
            (pickled,) = (entry for entry in entries if entry.filename.endswith("/data.pkl"))
            if pickled.file_size > _MAX_BYTES:
                raise ModelLoadError(f"{path}: its list of weights has {pickled.file_size} bytes")
            content = archive.read(pickled)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelLoadError(
            f"{path} is missing or damaged: no archive of torch 1.6 or later; fetch it again"
        ) from error
    try:
        depth = nesting(content)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path} is missing or damaged: {error}; fetch it again") from error
    if depth > _MAX_DEPTH:
        raise ModelLoadError(f"{path}: its values are nested more than {_MAX_DEPTH} deep")


def nesting(content: bytes) -> int:
    """Return how deeply the values of a pickle are nested, without building them.

    Raises:
        ValueError: It is no pickle; IndexError or KeyError where it is a broken one.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    deepest = 0
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "MARK":
            stack.append(_MARK)
            continue
        if "GET" in name:
            stack.append(memo[int(argument or 0)])
            continue
        if "PUT" in name or name == "MEMOIZE":
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
            continue
        taken: list[int] = []
        before = opcode.stack_before
        if pickletools.markobject in before:
            while (value := stack.pop()) != _MARK:
                taken.append(value)
            before = before[: before.index(pickletools.markobject)]
        taken += [stack.pop() for _ in before]
        depth = 1 + max(taken, default=0)
        deepest = max(deepest, depth)
        stack += [depth] * len(opcode.stack_after)
    return deepest
