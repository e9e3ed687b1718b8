"""The recipe of the bundled model: steps in order, each done once; and all of it in small."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from segzero_core.checkpoints.registry import find_model
from segzero_core.segmenter.sam2 import load_segmenter
from tests.training import in_process
from tests.training.bundle.drawn_scene import write_drawn_scene
from training.bundle.recipe import Step, main, run
from worlds.libero.package import missing_modules


def step(name: str, source: Path, out: Path) -> Step:
    return Step(name, ("json.tool", str(source), str(out)))


def test_what_is_done_is_not_done_again_but_another_command_is(tmp_path: Path) -> None:
    source, out, other = (tmp_path / name for name in ("in.json", "out.json", "other.json"))
    source.write_text("[1]")
    assert run(tmp_path, (step("one", source, out),)) == 0
    out.unlink()
    assert run(tmp_path, (step("one", source, out),)) == 0
    assert not out.exists()
    assert run(tmp_path, (step("one", source, other),)) == 0
    assert other.exists()


def test_a_step_that_fails_ends_the_recipe_which_then_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.json"
    todo = (step("one", source, out), step("two", source, tmp_path / "last.json"))
    assert run(tmp_path, todo) != 0
    assert "the same command goes on" in capfd.readouterr().out
    source.write_text("[1]")
    assert run(tmp_path, todo) == 0
    assert (tmp_path / "last.json").exists()


@pytest.mark.parametrize("scale", ["0", "-1", "1.5", "nan"])
def test_a_share_that_is_none_is_refused(scale: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--work", str(tmp_path), "--out", str(tmp_path / "m"), f"--scale={scale}"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_steps_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", in_process.run)
    place = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "bundle")]
    assert main([*place, "--scale", "0.0003", "--plain"]) == 0
    assert find_model(str(tmp_path / "bundle" / "reasoner")).segmenter


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.libero
@pytest.mark.skipif(bool(missing_modules()), reason="needs the extra libero")
def test_the_steps_of_libero_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw_or_run(command: Sequence[str], **how: Any) -> CompletedProcess[Any]:
        if command[2] != "worlds.libero.render":  # its own tests render; that takes a while
            return in_process.run(command, **how)
        write_drawn_scene(Path(command[command.index("--out") + 1]) / "000007")
        return CompletedProcess(command, 0)

    monkeypatch.setattr("subprocess.run", draw_or_run)
    place = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "bundle")]
    assert main(["--world", "libero", *place, "--scale", "0.0003", "--plain"]) == 0
    made = find_model(str(tmp_path / "bundle" / "reasoner"))
    assert made.description.close_up_share > 0
    assert load_segmenter(made.segmenter)
