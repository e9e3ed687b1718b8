"""Mistakes of the surroundings end a command with one line, never with a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segzero_core import ConfigError
from segzero_core.checkpoints.cache import cache_folder


def test_a_full_disk_for_the_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "segzero_cli", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "cannot be written" in ended.stderr


@pytest.mark.parametrize("variable", ["SEGZERO_CACHE", "XDG_CACHE_HOME"])
def test_a_cache_in_the_home_of_nobody_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("SEGZERO_CACHE")
    monkeypatch.setenv(variable, "~nosuchuser/x")
    with pytest.raises(ConfigError, match="nosuchuser"):
        cache_folder("engines")
