"""What the command lines of all benchmarks share: `--json FILE`, `--check`, and the exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """Begin the command line of a benchmark whose docstring this is."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a target is missed")
    return parser


def conclude(args: argparse.Namespace, figures: Any, *, missed: bool) -> int:
    """Keep the figures where `--json` says; return the exit code that `--check` means."""
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(args.check and missed)
