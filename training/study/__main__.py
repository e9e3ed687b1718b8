"""Command line of the study: `python -m training.study run`, or `make study`.

python -m training.study run                      everything; goes on where it was stopped
python -m training.study run --only rl sft        some arms
python -m training.study report                   the tables and plots of docs/study.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from segzero_core.errors import SegZeroError
from training.study.jobs import ROOT, Study, run
from training.study.plan import Scale
from training.study.report import write_report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("action", choices=("run", "report"))
    add("--work", type=Path, default=ROOT / "runs" / "study", help="scenes, checkpoints, logs")
    add("--kept", type=Path, default=ROOT / "docs" / "study", help="results that are kept")
    add("--document", type=Path, default=ROOT / "docs" / "study.md")
    add("--base", default="", help="a model to begin from, in place of the warmed-up bundled one")
    add("--jobs", type=int, default=2, help="trainings at a time, one core each")
    add("--only", nargs="+", default=[], metavar="ARM", help="names of arms")
    for item in fields(Scale):
        option = f"--{item.name.replace('_', '-')}"
        add(
            option,
            type=type(item.default),
            default=item.default,
            help="see training/study/plan.py",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, or 2 with one line on standard error when a step failed.
    """
    args = _parser().parse_args(argv)
    scale = Scale(**{item.name: getattr(args, item.name) for item in fields(Scale)})
    try:
        if args.action == "run":
            kept, work = args.kept.resolve(), args.work.resolve()
            run(Study(work, kept, args.base, scale, args.jobs, tuple(args.only)))
        write_report(args.kept, args.document)
    except SegZeroError as error:
        print(f"study: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("study: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
