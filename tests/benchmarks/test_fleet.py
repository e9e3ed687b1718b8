"""The simulated fleet obeys what can be computed by hand; the measured one ends and counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import fleet
from benchmarks.fleet import Gpu, Service, gpus_needed, simulate

SERVICE = Service(
    prefill_ms=100.0, prefix_ms=10.0, step_ms=10.0, step_more_ms=1.0, tokens=50.0, max_batch=2
)


def latencies(*asked: tuple[float, float, float]) -> list[float]:
    gpu = Gpu(SERVICE)
    for question in asked:
        gpu.ask(*question)
    gpu.run_until(float("inf"))
    return [round(each, 6) for each in sorted(gpu.latencies_s)]


def test_a_reply_alone_takes_its_prompt_and_its_tokens() -> None:
    assert latencies((0.0, 0.1, 50.0)) == [0.6]


def test_two_replies_share_the_steps() -> None:
    # Both prompts, then 11 ms a step for both.
    assert latencies((0.0, 0.1, 50.0), (0.0, 0.1, 50.0)) == [0.75, 0.75]


def test_a_third_waits_for_a_place_in_the_batch() -> None:
    found = latencies((0.0, 0.0, 10.0), (0.0, 0.0, 10.0), (0.0, 0.0, 10.0))

    assert found == [0.11, 0.11, 0.21]


def test_a_prompt_stops_the_replies_that_run() -> None:
    # 20 steps until the second one comes, its prompt, 10 steps of 11 ms, 20 of 10 ms.
    assert latencies((0.0, 0.0, 30.0), (0.2, 0.1, 30.0)) == [0.41, 0.41]


def test_every_question_is_answered_and_more_gpus_are_no_slower() -> None:
    few, many = (simulate(SERVICE, 40, gpus, seconds=100.0) for gpus in (1, 4))

    assert few["asked"] == many["asked"] > 100
    assert many["p95_s"] <= few["p95_s"]
    assert 0.5 < many["p50_s"] < 1.0


def test_the_fewest_gpus_are_found() -> None:
    needed = gpus_needed(SERVICE, 200, 1.5, seconds=60.0)

    assert simulate(SERVICE, 200, needed, seconds=60.0)["p95_s"] <= 1.5
    assert simulate(SERVICE, 200, needed - 1, seconds=60.0)["p95_s"] > 1.5


def test_what_no_number_of_gpus_reaches_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MOST_GPUS", 4)

    assert gpus_needed(SERVICE, 10, 0.05, seconds=30.0) == 0


def test_robots_ask_a_server_and_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from benchmarks.serving import Server

    with Server(scripted=True) as server:
        row: Any = fleet._fleet(server, 3, 2.0, 0.5)

    assert row["answers"] > 0
    assert row["failures"] == 0
    figures = {
        "measure": {"runs": [{"robots": 3, **row}]},
        "plan": fleet.plan(
            SimpleNamespace(robots=[5], p95=3.0, every=20.0, **SERVICE.__dict__)  # type: ignore[arg-type]
        ),
    }
    assert figures["plan"]["fleets"][0]["gpus"] == 1
    pytest.importorskip("matplotlib")
    fleet.plot(figures, tmp_path / "fleet.png")
    assert (tmp_path / "fleet.png").stat().st_size > 10_000
