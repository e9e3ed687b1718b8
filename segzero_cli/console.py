"""Writing to the terminal."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TextIO

from segzero_core.errors import printable


def tolerate_any_text() -> None:
    """Escape characters that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):  # the parent process closed it
                stream.reconfigure(errors="backslashreplace")


def print_error(message: str) -> None:
    """Print an error as one line to stderr."""
    print(f"segzero: error: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def write(text: str, stream: TextIO) -> None:
    """Write a part of a longer text at once."""
    stream.write(printable(text))
    stream.flush()


def quieten_libraries() -> None:
    """Switch off transformers' progress bars and remarks."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
