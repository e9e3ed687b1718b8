"""Feeds one target with damaged input for a given time."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.targets import TARGETS

_ROUND = 100


def fuzz(name: str, seconds: float) -> str:
    """Feed one target for so long; return what was done. What breaks it is raised."""
    target, begun, rounds = TARGETS[name], time.monotonic(), 0
    run = settings(
        max_examples=_ROUND,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    first = time.time_ns() % 2**32
    while time.monotonic() - begun < seconds:
        run(seed(first + rounds)(given(target.inputs)(target.run)))()
        rounds += 1
    return f"{name}: {rounds * _ROUND} inputs in {time.monotonic() - begun:.0f} s"
