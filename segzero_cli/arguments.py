"""Command-line parsing that reports a mistake in one line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from segzero_core.errors import InputError, SegZeroError

RECORDING_SUFFIX: Final = ".rrd"


class UsageError(SegZeroError):
    """The arguments of a command are wrong."""


class Parser(argparse.ArgumentParser):
    """Argument parser that raises `UsageError` instead of printing the usage and exiting.

    Args:
        examples: Arguments to show at the end of the help, each a line for a shell.
        **how: As of `argparse.ArgumentParser`.
    """

    def __init__(self, *, examples: Sequence[str] = (), **how: Any) -> None:
        super().__init__(**how)
        self.examples = examples

    def format_help(self) -> str:
        """Return the help, with the examples on lines of their own."""
        lines = [f"  {self.prog} {example}".rstrip() for example in self.examples]
        return super().format_help() + ("\nexamples:\n" + "\n".join(lines) + "\n" if lines else "")

    def error(self, message: str) -> NoReturn:
        """Raise a mistake in the arguments."""
        raise UsageError(f"{message}; see {self.prog} --help")

    def add_model_arguments(self) -> None:
        """Add --model and --segmenter."""
        self.add_argument(
            "--model", default="tabletop", help="tabletop (default), folder, Hub id, or server"
        )
        self.add_argument("--segmenter", help="folder or Hub id, in place of the model's own")

    def add_fallback_argument(self) -> None:
        """Add --fallback."""
        self.add_argument(
            "--fallback",
            action="append",
            default=[],
            metavar="MODEL",
            help="answers when the model is down or too slow; may be given several times",
        )

    def add_device_argument(self) -> None:
        """Add --device."""
        self.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:1")

    def add_rerun_argument(self) -> None:
        """Add --rerun."""
        self.add_argument(
            "--rerun",
            type=Path,
            metavar="OUT.rrd",
            help="write a recording for the viewer Rerun; one that is there is replaced",
        )


def check_output_path(path: Path, suffix: str) -> None:
    """Check early whether a file can be written to this path; one that is there is replaced.

    Raises:
        InputError: It cannot, or its name does not end in the suffix.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file such as {path / f'answer{suffix}'}")
    if path.suffix != suffix:
        raise InputError(f"{path}: the name must end in {suffix}; viewers open no other")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path}: cannot be written: permission denied")


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value
