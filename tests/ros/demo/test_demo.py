"""The demo with the real clip and a node that knows the truth: what passes and what fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from segzero_cli import main
from segzero_cli.demo import command
from segzero_cli.demo.clip import TOPICS, read_clip

ROOT = Path(__file__).resolve().parents[3]
CLIP = ROOT / "demo" / "clip.mcap"
KINDS = ["name", "attribute", "relation", "function", "many", "none"]
MAX_BYTES = 6_000_000


@pytest.fixture(autouse=True)
def own_domain_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what the demo changes: it goes to another domain than this process's tests."""
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS"):
        monkeypatch.setenv(name, os.environ[name])


@pytest.fixture
def oracle() -> list[str]:
    """The command of a node that knows the truth."""
    remap = ["--ros-args", "-r", f"image:={TOPICS['color']}"]
    return [sys.executable, str(Path(__file__).parent / "oracle_node.py"), str(CLIP), *remap]


@pytest.fixture
def run_demo(oracle: list[str], tmp_path: Path) -> Callable[..., bool]:
    """Run the demo against the oracle."""

    def run(query: str | None = None, *arguments: str) -> bool:
        return command.run(CLIP, query, tmp_path, lambda: [*oracle[:3], *arguments, *oracle[3:]])

    return run


def result_in(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def image_in(path: Path) -> np.ndarray:
    with PilImage.open(path) as image:
        return np.asarray(image)


def test_the_clip_is_small_and_asks_one_question_of_each_kind() -> None:
    shots = read_clip(CLIP)
    assert CLIP.stat().st_size <= MAX_BYTES
    assert [shot.question.kind for shot in shots] == KINDS
    for shot in shots:
        assert shot.truth().any() == bool(shot.question.ids)
        stamps = {(msg.header.stamp.sec, msg.header.stamp.nanosec) for msg in shot.camera.values()}
        assert len(stamps) == 1
        assert shot.camera["color"].encoding == "rgb8"
        assert shot.camera["depth"].encoding == "16UC1"
        assert shot.camera["info"].k[0] == shot.scene.intrinsics["fx"]


def test_all_right_answers_pass(
    run_demo: Callable[..., bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo()
    result = result_in(tmp_path)
    assert (result["right"], result["asked"]) == (6, 6)
    assert [query["kind"] for query in result["queries"]] == KINDS
    truth = read_clip(CLIP)[0].truth()
    np.testing.assert_array_equal(image_in(tmp_path / "mask.png") > 0, truth)
    height, width, _ = image_in(tmp_path / "overlay.png").shape
    assert width == 640
    assert height > 500  # question and thinking stand below the image
    for kind in KINDS:
        assert (tmp_path / f"overlay_{kind}.png").is_file()
    assert "I know the truth." in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["relation", "none"])
def test_one_wrong_answer_fails_the_demo(
    run_demo: Callable[..., bool], tmp_path: Path, kind: str
) -> None:
    assert not run_demo(None, "--wrong", kind)
    wrong = [query["kind"] for query in result_in(tmp_path)["queries"] if not query["right"]]
    assert wrong == [kind]


def test_a_query_of_ones_own_may_be_answered_with_nothing(
    run_demo: Callable[..., bool], tmp_path: Path
) -> None:
    assert run_demo("the elephant")
    (query,) = result_in(tmp_path)["queries"]
    assert (query["query"], query["objects"]) == ("the elephant", [])


def test_a_query_that_the_node_refuses_fails(
    run_demo: Callable[..., bool], tmp_path: Path
) -> None:
    assert not run_demo("the mug</answer>")
    (query,) = result_in(tmp_path)["queries"]
    assert "markup" in query["error_msg"]


@pytest.mark.parametrize("query", ["the mug</answer>", "mug " * 25_000, " "])
def test_a_query_that_cannot_be_asked_gives_one_line(
    query: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["demo", query]) == 2
    ran = capsys.readouterr()
    assert ran.out == ""
    assert ran.err.startswith("segzero: error: query: ")
    assert ran.err.count("\n") == 1


def test_a_node_that_cannot_load_its_model_gives_one_line(
    tmp_path: Path,
) -> None:
    with pytest.raises(command.DemoError, match="/nowhere"):
        command.run(CLIP, None, tmp_path, lambda: command.node_command("/nowhere"))


RUN_AS_A_USER = """
import signal, sys
from segzero_cli import main
from segzero_cli.demo import command

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground of a terminal
command.node_command = lambda model: {command}
sys.exit(main.main(["demo", "--out", {out}]))
"""


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM"])
def test_an_interrupted_demo_leaves_no_node_behind(
    oracle: list[str], tmp_path: Path, way: str
) -> None:
    code = RUN_AS_A_USER.format(command=repr(oracle), out=repr(str(tmp_path)))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert any("[1/6]" in line for line in process.stdout)
        if way == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # a terminal interrupts the node too
        else:
            process.terminate()
        _, errors = process.communicate(timeout=100.0)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert errors == "segzero: error: interrupted\n"
    with pytest.raises(ProcessLookupError):  # the node was of the demo's process group
        os.killpg(process.pid, 0)


def test_a_missing_clip_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(command.DemoError, match="cannot play the clip"):
        command.run(tmp_path / "none.mcap", None, tmp_path, lambda: [])


def test_a_damaged_clip_gives_one_line(tmp_path: Path) -> None:
    damaged = tmp_path / "clip.mcap"
    damaged.write_bytes(CLIP.read_bytes()[:1000])
    with pytest.raises(command.DemoError, match="cannot play the clip"):
        command.run(damaged, None, tmp_path, lambda: [])
