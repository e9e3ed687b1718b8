"""The benchmark's own tasks as grounding data: an image, what is asked, and the true masks.

    python -m worlds.libero.benchmark.suites --suite libero_spatial_swap --states 10 --out DIR

For every task of a suite and its first initial states, the scene settles as an evaluation of
policies lets it, and `agentview` is rendered into a folder that reads as any world's. What was
rendered is not rendered again. What cannot be asked is listed with its reason in `omitted.json`.

Needs the extra `libero` (`make libero-setup`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from segzero_core.terminal.progress_bar import ProgressBar
from worlds.libero.benchmark.rendering import render_suite
from worlds.libero.benchmark.suites import open_suite


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m worlds.libero.benchmark.suites", description=__doc__
    )
    parser.add_argument("--suite", required=True, help="for instance libero_spatial_swap")
    parser.add_argument("--states", type=int, default=10, help="initial states of each task (10)")
    parser.add_argument("--out", type=Path, required=True, help="folder for this suite")
    args = parser.parse_args(argv)
    try:
        tasks, _ = open_suite(args.suite, args.states)
        args.out.mkdir(parents=True, exist_ok=True)
        total = len(tasks) * args.states
        with ProgressBar(total=total, desc=args.suite, unit="image") as bar:
            for count in render_suite(args.suite, args.states, args.out):
                bar.update(count)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"worlds.libero.benchmark.suites: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
