"""Fuzzes for a given time: `python -m tests.fuzz --seconds 60 [NAME ...]`; see `make fuzz`."""

from __future__ import annotations

import argparse
import time

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.targets import TARGETS

_ROUND = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    for name in arguments.names or TARGETS:
        target, begun, rounds = TARGETS[name], time.monotonic(), 0
        run = settings(
            max_examples=_ROUND,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        first = time.time_ns() % 2**32
        while time.monotonic() - begun < arguments.seconds:
            run(seed(first + rounds)(given(target.inputs)(target.run)))()
            rounds += 1
        print(f"{name}: {rounds * _ROUND} inputs in {time.monotonic() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
