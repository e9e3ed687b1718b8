"""Limits of a run, by the wall clock and in processor time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.finetune.time_budget import PROCESSOR, WALL, TimeBudget


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What both clocks show; a test moves their hands."""
    shown = {WALL: 1000.0, PROCESSOR: 50.0}
    monkeypatch.setattr("time.monotonic", lambda: shown[WALL])
    monkeypatch.setattr("time.process_time", lambda: shown[PROCESSOR])
    return shown


@pytest.mark.parametrize("clock", [WALL, PROCESSOR])
def test_only_the_clock_that_has_a_limit_ends_a_run(
    clock: str, clocks: dict[str, float], tmp_path: Path
) -> None:
    other = {WALL: PROCESSOR, PROCESSOR: WALL}[clock]
    budget = TimeBudget(tmp_path / "none.jsonl", {clock: 10.0, other: 0.0})
    clocks[other] += 1e6
    clocks[clock] += 9
    assert not budget.is_spent()
    clocks[clock] += 1
    assert budget.is_spent()


def test_what_was_spent_before_an_interruption_counts(
    clocks: dict[str, float], tmp_path: Path
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    rows = [{"step": 1, PROCESSOR: 4.0}, {"step": 2, PROCESSOR: 8.0, WALL: 9.0}]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    budget = TimeBudget(metrics, {WALL: 0.0, PROCESSOR: 0.0})
    clocks[WALL] += 2
    assert budget.spent_s() == {WALL: 11.0, PROCESSOR: 8.0}
