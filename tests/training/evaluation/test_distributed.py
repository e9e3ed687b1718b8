"""Work that is shared among launched processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
from training.evaluation.distributed import among_launched

class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")

def work(rank, count, device):
    if rank == 1 and sys.argv[1] == "KeyError":
        raise KeyError("box")
    if rank == 1 and sys.argv[1] == "Unpicklable":
        raise Unpicklable("of a", "library")
    return rank, count

try:
    found = among_launched(work, "cpu")
except Exception as error:
    found = f"{type(error).__name__}: {error}"
sys.stdout.write(f"got {found}\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "line"),
    [
        pytest.param("none", "got [(0, 2), (1, 2)]", id="results"),
        pytest.param("KeyError", "got KeyError: 'box'", id="error"),
        pytest.param(
            "Unpicklable",
            "got RuntimeError: process 1: Unpicklable: of a library",
            id="error that cannot be sent",
        ),
    ],
)
def test_every_process_gets_all_results_or_the_error_of_the_one_that_failed(
    failure: str, line: str, tmp_path: Path
) -> None:
    script = tmp_path / "share.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [sys.executable, *launch, str(script), failure],
        # sam2 brings a package called training too; ours must be found first.
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert ran.stdout.splitlines() == [line, line], ran.stderr
