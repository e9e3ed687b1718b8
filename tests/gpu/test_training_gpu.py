"""Training on a GPU, in small; elsewhere everything here is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from segzero_core import SegZero
from tests.training.conftest import write_prepared
from training import cli
from training.finetune.checkpoints import METRICS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sft", []),
        ("grpo", []),
        ("grpo", ["grpo.shared_pictures=true"]),
        ("grpo", ["bf16_mixed=true", "gradient_checkpointing=true"]),
    ],
)
def test_a_run_goes_on_where_it_was_cut_off(
    method: str, settings: list[str], prepared: Path, tmp_path: Path
) -> None:
    def run(*more: str) -> int:
        sets = [f"data={prepared}", f"output={tmp_path}", *settings, *more]
        arguments = [word for setting in sets for word in ("--set", setting)]
        return cli.main([method, "--config", "debug", *arguments])

    assert run("max_steps=1") == 0
    assert run() == 0
    rows = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == [1, 2]
    assert SegZero.load(str(tmp_path / "model"), device="cuda")
