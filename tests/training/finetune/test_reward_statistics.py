"""Rewards of replies that are drawn to held-out questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.conftest import write_prepared
from training.finetune.reward_statistics import main

SETTINGS = ("--set", "template=single_object", "--set", "grpo.protocol=paper")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions about three images."""
    return write_prepared(tmp_path_factory.mktemp("held_out"))


def draw(data: Path, samples: Path, *options: str, replies: int = 2) -> list[dict]:
    arguments = ["--model", "tabletop", "--data", str(data), "--samples", str(samples)]
    assert main([*arguments, "--replies", str(replies), *SETTINGS, *options]) == 0
    return [json.loads(line) for line in samples.read_text().splitlines()]


def test_every_question_has_the_mean_of_its_replies_and_terms(
    held_out: Path, tmp_path: Path
) -> None:
    rows = draw(held_out, tmp_path / "new" / "rewards.jsonl", "--set", "kinds=name")
    assert [row["kind"] for row in rows] == ["name"] * 3
    assert len({row["id"] for row in rows}) == 3
    for row in rows:
        assert row["reward"] == pytest.approx(sum(row["terms"].values()))
        assert row["terms"]["thinking_format"] in (0, 0.5, 1)
    # The bundled model writes in the format of its template, drawn or not.
    assert sum(row["terms"]["thinking_format"] for row in rows) > 2


def test_the_draws_are_those_of_the_seed(held_out: Path, tmp_path: Path) -> None:
    limit = ("--questions", "2", "--set", "kinds=name")
    first, again, other = (
        draw(held_out, tmp_path / f"{n}.jsonl", *limit, "--set", f"seed={seed}", replies=6)
        for n, seed in enumerate((1, 1, 2))
    )
    assert first == again
    assert [row["id"] for row in other] == [row["id"] for row in first]
    assert len(first) == 2


def test_data_that_is_not_there_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--model", "tabletop", "--data", str(tmp_path / "no"), "--samples", "x.jsonl"]
    assert main(arguments) == 2
    assert "sampled_rewards: error: " in capsys.readouterr().err
    assert not Path("x.jsonl").exists()
