"""Progress is a bar in a terminal and plain lines in a log."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from segzero_core.terminal import progress_bar
from segzero_core.terminal.progress_bar import ProgressBar

ROOT = Path(progress_bar.__file__).resolve().parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines_without_a_carriage_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "LINE_S", 0.0)
    log = io.StringIO()
    with ProgressBar(total=2, desc="evaluate", unit="query", miniters=1, file=log) as bar:
        bar.update()
        ProgressBar.write("a: failed", file=log)
        bar.update()

    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert lines[0].startswith("evaluate: ")
    assert "a: failed" in lines
    assert lines[-1].startswith("evaluate: 2/2 query, 00:0")


def test_a_log_is_not_flooded() -> None:
    log = io.StringIO()
    for _ in ProgressBar(range(10_000), desc="render", unit="scene", file=log):
        pass

    assert log.getvalue() == "render: 10000/10000 scene, 00:00\n"


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    for _ in ProgressBar(range(3), file=terminal):
        pass

    assert "\r" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


@pytest.mark.parametrize("file", [io.StringIO(), Terminal()])
def test_a_bar_that_is_off_writes_nothing(file: io.StringIO) -> None:
    for _ in ProgressBar(range(3), file=file, disable=True):
        pass

    assert file.getvalue() == ""


def test_no_module_writes_progress_by_itself() -> None:
    packages = ("segzero_core", "segzero_cli", "segzero_ros", "training", "worlds", "benchmarks")
    users = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if "tqdm import" in path.read_text() or "import tqdm" in path.read_text()
    }

    assert users == {"segzero_core/terminal/progress_bar.py"}
