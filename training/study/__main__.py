"""Command line of the study: `python -m training.study run`, or `make study`.

python -m training.study run                      everything; continues where it was stopped
python -m training.study run --only rl sft        some arms
python -m training.study report                   the tables and plots of docs/study.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.arguments import add_fields, new_parser, run_command, settings_from
from training.study.jobs import ROOT, Study, run
from training.study.plan import Scale
from training.study.report import write_report


def _run(args: argparse.Namespace) -> None:
    if args.action == "run":
        kept, work, scale = args.kept.resolve(), args.work.resolve(), settings_from(args, Scale)
        run(Study(work, kept, args.base, scale, args.jobs, tuple(args.only)))
    write_report(args.kept, args.document)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `run_command`."""
    parser = new_parser("python -m training.study", __doc__)
    add = parser.add_argument
    add("action", choices=("run", "report"))
    add("--work", type=Path, default=ROOT / "runs" / "study", help="scenes, checkpoints, logs")
    add("--kept", type=Path, default=ROOT / "docs" / "study", help="results that are kept")
    add("--document", type=Path, default=ROOT / "docs" / "study.md")
    add("--base", default="", help="a model to begin from, in place of the warmed-up bundled one")
    add("--jobs", type=int, default=2, help="trainings at a time, one core each")
    add("--only", nargs="+", default=[], metavar="ARM", help="names of arms")
    add_fields(parser, Scale)
    args = parser.parse_args(argv)
    stopped = "stopped; the same command goes on from here"
    return run_command("study: error", lambda: _run(args), stopped)


if __name__ == "__main__":
    sys.exit(main())
