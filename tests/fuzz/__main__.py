"""Fuzzes for a given time: `python -m tests.fuzz --seconds 60 [NAME ...]`; see `make fuzz`.

As many targets at the same time as there are cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from tests.fuzz.rounds import fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    names = arguments.names or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(fuzz, names, repeat(arguments.seconds)):
            print(done, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
