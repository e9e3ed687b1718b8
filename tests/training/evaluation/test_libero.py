"""`segzero evaluate --benchmark libero`: cases from folders, per task, omissions counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.evaluation import evaluate
from training.evaluation.libero import open_libero, suite_table
from worlds.common.scene import Query, Scene, SceneObject
from worlds.libero.benchmark.suites import BenchmarkError
from worlds.libero.package import LiberoMissingError
from worlds.libero.scene import Truth, write_scene

SUITE = "libero_tiny"
SMALL, LARGE = (10, 10, 20, 20), (30, 10, 60, 40)


def write_image(folder: Path, queries: tuple[Query, ...]) -> None:
    folder.mkdir(parents=True)
    instances = np.zeros((48, 64), np.uint16)
    objects = []
    for number, (x0, y0, x1, y1) in enumerate((SMALL, LARGE), start=1):
        instances[y0:y1, x0:x1] = number
        pose = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (0.1, 0.1, 0.1))
        area = (x1 - x0) * (y1 - y0)
        objects.append(SceneObject(number, "milk", "", (x0, y0, x1, y1), area, 1.0, *pose))
    intrinsics = {"fx": 50.0, "fy": 50.0, "cx": 32.0, "cy": 24.0}
    camera = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 0.0))
    scene = Scene(2_000_000, (64, 48), intrinsics, *camera, tuple(objects), queries)
    truth = Truth("table", "agentview", (0.0, 0.0, 0.0), (), {}, {}, {}, (), ())
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "color.png")
    Image.fromarray(np.full((48, 64), 900, np.uint16)).save(folder / "depth.png")
    Image.fromarray(instances).save(folder / "instances.png")
    write_scene(folder / "scene.json", scene, truth)


@pytest.fixture
def suite(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tasks with two states each, rendered already; the large object is the right one once."""
    folder = cache / "libero" / SUITE
    for task, meant in ((0, 2), (1, 1)):
        for state in (0, 1):
            queries = (
                Query("instruction", f"order {task}", (meant,), "test"),
                Query("object", f"object {task}", (meant,), "test"),
                Query("none", "the moon", (), "test"),
            )
            write_image(folder / f"task{task:02d}_state{state:03d}", queries)
    left_out = {"suite": SUITE, "task": 1, "state": 0, "kind": "place", "reason": "hidden"}
    (folder / "omitted.json").write_text(json.dumps([left_out]))
    monkeypatch.setattr("worlds.libero.benchmark.suites.open_suite", lambda *_: ([], []))
    monkeypatch.setattr("worlds.libero.benchmark.rendering.render_tasks", lambda *_: iter(()))
    return folder


def run(capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    arguments = ["--benchmark", "libero", "--suite", SUITE, "--baseline", "largest", "--json"]
    assert evaluate.main([*arguments, *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_is_right_is_counted_per_kind_and_task(suite: Path, capsys) -> None:
    summary = run(capsys, "--states", "2")

    section = summary["libero"]
    assert section["iou_50"]["instruction"] == {
        "share": 0.5,
        "n": 4,
        "interval": pytest.approx((0.150, 0.850), abs=0.001),  # Wilson's
    }
    assert section["tasks"]["0"]["iou_50"]["object"]["share"] == 1.0
    assert section["tasks"]["1"]["iou_50"]["object"]["share"] == 0.0
    assert section["tasks"]["1"]["text"] == "order 1"
    assert summary["refusals_correct"] == 0.0
    assert summary["data"]["name"] == f"LIBERO {SUITE}"


def test_what_is_left_out_is_counted_with_its_reason(suite: Path, capsys) -> None:
    summary = run(capsys, "--states", "2")

    assert summary["data"]["rejected"] == 1
    assert summary["libero"]["omitted"] == {"place": 1}
    assert "1 x hidden" in suite_table(summary["libero"])


def test_only_the_first_states_are_asked_though_more_are_rendered(suite: Path, capsys) -> None:
    assert run(capsys, "--states", "1")["n"] == 6
    assert run(capsys, "--states", "2", "--kind", "object")["n"] == 4


@pytest.mark.parametrize(
    "error", [LiberoMissingError("run make libero-setup"), BenchmarkError("no")]
)
def test_what_the_world_refuses_is_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("worlds.libero.benchmark.suites.open_suite", fail)

    assert evaluate.main(["--benchmark", "libero", "--suite", SUITE]) == 2
    assert capsys.readouterr().err == f"segzero evaluate: {error}\n"


def test_without_a_suite_one_line_says_so(capsys) -> None:
    assert evaluate.main(["--benchmark", "libero", "--baseline", "random"]) == 2
    assert "--suite" in capsys.readouterr().err


def test_a_limit_keeps_whole_images(suite: Path) -> None:
    assert len(open_libero(SUITE, 2, None, 4).cases) == 6
