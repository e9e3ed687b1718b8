"""Writing to the terminal."""

from __future__ import annotations

import contextlib
import io
import sys
import unicodedata
from typing import TextIO

_KEPT_CONTROLS = "\n\t"


def tolerate_any_text() -> None:
    """Let no character stop the program, on a terminal of any encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):  # closed by whoever started us
                stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Replace control characters: a model's text must not steer the terminal."""
    return "".join(
        "\ufffd"
        if unicodedata.category(char) in ("Cc", "Cs") and char not in _KEPT_CONTROLS
        else char
        for char in text
    )


def print_error(message: str) -> None:
    """Say what went wrong, in one line."""
    print(f"segzero: error: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def write(text: str, stream: TextIO) -> None:
    """Write a piece of a longer text at once."""
    stream.write(printable(text))
    stream.flush()


def quieten_libraries() -> None:
    """Stop transformers' progress bars and remarks; ours go to the same terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
