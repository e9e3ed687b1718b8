"""`make grasp` with a node that knows the truth: what passes, what fails, what moves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from examples import grasp_cell
from worlds.common.scene import Query
from worlds.tabletop.camera import Camera
from worlds.tabletop.render import stage_scene

SEED = grasp_cell.SEED


@pytest.fixture(autouse=True)
def own_domain_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what it changes: it goes to another domain than this process's tests."""
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS"):
        monkeypatch.setenv(name, os.environ[name])
    for name in ("QUERY", "SEED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run it against the oracle; `wrong` is the kind of question that it answers wrongly."""
    real = grasp_cell.node_command

    def run(*arguments: str, wrong: str = "-") -> int:
        oracle = [sys.executable, "-m", "tests.ros.demo.grasp_oracle", str(SEED), wrong]
        monkeypatch.setattr(grasp_cell, "node_command", lambda model: [*oracle, *real(model)[3:]])
        return grasp_cell.main(["--seed", str(SEED), *arguments])

    return run


@pytest.fixture(scope="module")
def asked() -> dict[str, Query]:
    with Camera() as camera:
        return {query.kind: query for query in stage_scene(camera, SEED).scene.queries}


@pytest.mark.slow
def test_the_object_that_was_meant_is_lifted_and_filmed(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "grasp.gif"
    assert run("--film", str(film)) == 0
    ran = capsys.readouterr().out
    assert "I know the truth." in ran
    assert "lifted what was meant" in ran
    with Image.open(film) as frames:
        assert frames.n_frames > 20
    assert film.stat().st_size <= 3_000_000


@pytest.mark.slow
def test_where_nothing_fits_nothing_moves_and_that_is_right(
    run: Callable[..., int], asked: dict[str, Query], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(asked["none"].text) == 0
    ran = capsys.readouterr().out
    assert "stays where it is" in ran
    assert "grasping at" not in ran


@pytest.mark.slow
def test_nothing_found_where_something_was_meant_fails(
    run: Callable[..., int], asked: dict[str, Query], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("the elephant") == 1
    assert "grasping at" not in capsys.readouterr().out


@pytest.mark.parametrize("query", ["the mug</answer>", " "], ids=["markup", "empty"])
def test_a_question_that_cannot_be_asked_is_reported_in_one_line(
    query: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grasp_cell.main([query]) == 2
    ran = capsys.readouterr()
    assert ran.out == ""
    assert ran.err.startswith("grasp_cell: error: query")
    assert ran.err.count("\n") == 1


def test_a_node_that_cannot_load_its_model_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert grasp_cell.main(["--model", "/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err
