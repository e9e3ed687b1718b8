"""Hashes of weight files, and the check that a file is unchanged."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from segzero_core.errors import ModelLoadError
from segzero_core.files import open_regular, read_regular
from segzero_core.limits import MAX_JSON_BYTES, MAX_WEIGHTS_BYTES

SUMS_FILE: Final = "SHA256SUMS"
"""Optional file beside weights, as `sha256sum` writes it; what it lists must still be so."""

HASH_DIGITS: Final = 16

_REASONER_FILES: Final = frozenset(
    (
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "segzero.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    )
)
"""What changes a reasoner's answers, beside its weights."""

_SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; no name or link stands for them.

    Raises:
        ModelLoadError: The file cannot be read.
    """
    try:
        with open_regular(path, MAX_WEIGHTS_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


def weights_hash(paths: Iterable[Path]) -> str:
    """Return the first digits of the SHA-256 over the weight files, in the order given.

    Where a file is listed in a `SHA256SUMS` beside it, its bytes are compared with that.

    Raises:
        ModelLoadError: A file cannot be read, or is not the file that was listed.
    """
    total = hashlib.sha256()
    for path in paths:
        digest = file_digest(path)
        expected = read_sums(path.parent).get(path.name)
        if expected not in (None, digest):
            raise ModelLoadError(
                f"{path} is damaged: its SHA-256 begins with {digest[:HASH_DIGITS]}, while"
                f" {SUMS_FILE} lists {str(expected)[:HASH_DIGITS]}; fetch the file again"
            )
        total.update(bytes.fromhex(digest))
    return total.hexdigest()[:HASH_DIGITS]


def reasoner_hash(folder: Path) -> str:
    """Return the hash of every file of a reasoner's folder that changes its answers.

    Raises:
        ModelLoadError: As `weights_hash`.
    """
    is_read = (
        path
        for path in folder.iterdir()
        if path.suffix == ".safetensors" or path.name in _REASONER_FILES
    )
    return weights_hash(sorted(is_read))


def combined_hash(hashes: Iterable[str]) -> str:
    """Return one hash for several parts, in the order given."""
    joined = hashlib.sha256("".join(hashes).encode())
    return joined.hexdigest()[:HASH_DIGITS]


def read_sums(folder: Path) -> dict[str, str]:
    """Return the digests that a folder's `SHA256SUMS` lists, by file name; often none."""
    try:
        text = read_regular(folder / SUMS_FILE, MAX_JSON_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    lines = (_SUM_LINE.fullmatch(line) for line in text.splitlines())
    return {match[2]: match[1].lower() for match in lines if match}
