"""The report over all suites: tables, targets and the plot of causes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.libero import Episode, summary
from benchmarks.libero_tasks.report import FAMILIES, KINDS, faults_of, main, suite_of, table

DONE = Episode("libero_spatial", 0, 0, succeeded=True, cause="", about="", steps=200, seconds=3.0)
FAILED = replace(DONE, succeeded=False, cause="no grasp")


def summaries(done: int, failed: int, seconds: float = 3.0) -> dict[str, dict[str, Any]]:
    episodes = [replace(DONE, seconds=seconds)] * done + [
        replace(FAILED, seconds=seconds)
    ] * failed
    return {
        suite_of(family, kind): summary(episodes, suite_of(family, kind))
        for family in FAMILIES
        for kind in KINDS
    }


def test_all_targets_are_reached_by_those_who_always_succeed() -> None:
    assert faults_of(summaries(10, 0), truth=True) == []
    assert faults_of(summaries(10, 0), truth=False) == []


def test_each_missed_target_is_named() -> None:
    faults = faults_of(summaries(5, 5), truth=False)
    assert "libero_object: 0.500 instead of 0.85" in faults
    assert "mean over the six perturbed suites: 0.500 instead of 0.6" in faults
    true = faults_of(summaries(5, 5), truth=True)
    assert "libero_goal_swap: 0.500 instead of 0.55" in true
    assert not any("six" in fault for fault in true)


def test_a_rewording_may_cost_little_and_an_episode_little_time() -> None:
    kept = summaries(10, 0, seconds=40.0)
    kept["libero_goal_lan"] = summaries(9, 1)["libero_goal_lan"]
    faults = faults_of(kept, truth=False)
    assert "libero_goal_lan: 0.900 instead of 0.92" in faults
    assert "libero_goal: over 30 s an episode" in faults
    assert "libero_goal_lan: over 30 s an episode" not in faults


def test_a_suite_without_episodes_is_missed() -> None:
    kept = summaries(10, 0)
    del kept["libero_object"]
    assert "libero_object: no episodes" in faults_of(kept, truth=True)
    assert table(kept).splitlines()[2].startswith("| object | - | 10 of 10 (0.72-1.00) |")


def test_episodes_become_a_table_and_a_plot(tmp_path: Path, capsys: Any) -> None:
    lines = [json.dumps(asdict(episode)) for episode in (DONE, replace(FAILED, state=1))]
    (tmp_path / "libero_spatial-truth.jsonl").write_text("\n".join(lines) + "\n")
    plot = tmp_path / "causes.png"
    options = ["--truth", "--work", str(tmp_path), "--plot", str(plot), "--check"]
    assert main(options) == 1
    assert plot.stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "| spatial | 1 of 2 (0.09-0.91) | - | - | - |" in printed
    assert "1 no grasp" in printed
    assert main(["--truth", "--work", str(tmp_path / "empty")]) == 2
    with pytest.raises(SystemExit):
        main(["--states", "many"])
