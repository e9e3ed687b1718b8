"""The demo with the real clip and a node that knows the truth: what passes and what fails."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from segzero_cli import demo
from segzero_cli.clip import TOPICS, read_clip

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "demo" / "clip.mcap"
KINDS = ["name", "attribute", "relation", "function", "many", "none"]
MAX_BYTES = 6_000_000


@pytest.fixture
def run_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Run the demo against the oracle, in another domain than this process's tests."""

    def run(query: str | None = None, *arguments: str) -> bool:
        oracle = [sys.executable, str(Path(__file__).parent / "oracle_node.py"), str(CLIP)]
        remap = ["--ros-args", "-r", f"image:={TOPICS['color']}"]
        return demo.run(CLIP, query, tmp_path, lambda: [*oracle, *arguments, *remap])

    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, os.environ[name])  # put back what the demo changes
    return run


def result_in(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def picture_in(path: Path) -> np.ndarray:
    with PilImage.open(path) as picture:
        return np.asarray(picture)


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
    np.testing.assert_array_equal(picture_in(tmp_path / "mask.png") > 0, truth)
    assert picture_in(tmp_path / "overlay.png").shape == (480, 640, 3)
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


def test_a_node_that_cannot_load_its_model_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", os.environ["ROS_DOMAIN_ID"])
    with pytest.raises(demo.DemoError, match="/nowhere"):
        demo.run(CLIP, None, tmp_path, lambda: demo.node_command("/nowhere"))


def test_a_missing_clip_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match="cannot play the clip"):
        demo.run(tmp_path / "none.mcap", None, tmp_path, lambda: [])


def test_a_damaged_clip_is_told_in_one_line(tmp_path: Path) -> None:
    damaged = tmp_path / "clip.mcap"
    damaged.write_bytes(CLIP.read_bytes()[:1000])
    with pytest.raises(demo.DemoError, match="cannot play the clip"):
        demo.run(damaged, None, tmp_path, lambda: [])
