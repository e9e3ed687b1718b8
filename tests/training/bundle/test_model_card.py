"""The card of the bundled model says what the committed logs and evaluations say."""

from __future__ import annotations

from pathlib import Path

from training.bundle.model_card import read_logs, write_card

ROOT = Path(__file__).parents[3]
RUNS = sorted((ROOT / "docs" / "runs").glob("tabletop-*"))[-1]


def test_the_committed_card_is_what_the_committed_files_make() -> None:
    bundle = ROOT / "models" / "tabletop"
    card = write_card(RUNS, bundle, Path("docs/training.png"))
    assert card == (bundle / "README.md").read_text(encoding="utf-8")


def test_a_run_that_went_on_after_a_stop_counts_every_step_once() -> None:
    logs = read_logs(RUNS)
    assert [row["step"] for row in logs.grpo] == list(range(1, len(logs.grpo) + 1))
    assert set(logs.stages) == {row["stage"] for row in logs.warmup}
