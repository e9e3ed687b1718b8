"""Scenes and the benchmark's images by the real package: true to what they say, the same again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worlds.common.scene import load_scene
from worlds.libero.ask import main as ask
from worlds.libero.ask import queries_of
from worlds.libero.benchmark.grounding import KINDS_ASKED
from worlds.libero.benchmark.rendering import build_world, render_tasks
from worlds.libero.benchmark.suites import BenchmarkError, Task, open_suite, suite_names
from worlds.libero.composition.pools import sample_pool
from worlds.libero.package import benchmark_texts, normalized
from worlds.libero.queries.generate import says_any
from worlds.libero.render import MIN_AREA_PX, MIN_VISIBLE_FRACTION
from worlds.libero.render import main as render
from worlds.libero.scene import read_scene
from worlds.libero.simulation.arenas import ARENAS
from worlds.libero.simulation.stage import build_stage

pytestmark = [pytest.mark.libero, pytest.mark.slow]

SEED, COUNT = 1_000_003, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    assert render(["--seed", str(SEED), "--count", str(COUNT), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def task() -> Task:
    return open_suite("libero_goal", 1)[0][1]


def test_boxes_areas_and_masks_agree(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        scene, color, depth, instances = load_scene(path)
        assert color.shape == (480, 640, 3)
        assert depth.shape == instances.shape == (480, 640)
        assert set(np.unique(instances)) - {0} == {o.id for o in scene.objects}
        for obj in scene.objects:
            rows, columns = np.nonzero(instances == obj.id)
            assert len(rows) == obj.area_px >= MIN_AREA_PX
            assert (columns.min(), rows.min()) == obj.box_xyxy[:2]
            assert (columns.max() + 1, rows.max() + 1) == obj.box_xyxy[2:]
            assert MIN_VISIBLE_FRACTION <= obj.visible_fraction <= 1


def test_a_place_in_the_world_is_seen_where_the_camera_says(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        scene, _, depth, instances = load_scene(path)
        _, truth = read_scene(path / "scene.json")
        for obj in scene.objects:
            if obj.id in truth.fixtures or obj.visible_fraction < 0.95:
                continue
            x, y, z = _in_camera(scene, obj.position_m)
            u = scene.intrinsics["fx"] * x / z + scene.intrinsics["cx"]
            v = scene.intrinsics["fy"] * y / z + scene.intrinsics["cy"]
            x0, y0, x1, y1 = obj.box_xyxy
            slack = 0.25 * max(x1 - x0, y1 - y0) + 4
            on_border = x0 == 0 or y0 == 0 or x1 == 640 or y1 == 480
            assert on_border or (x0 - slack <= u <= x1 + slack and y0 - slack <= v <= y1 + slack)
            seen_m = np.median(depth[instances == obj.id]) / 1000
            assert abs(seen_m - z) < max(obj.size_m) + 0.02


def _in_camera(scene, position_m) -> np.ndarray:
    from worlds.libero.queries.facts import _matrix

    rotation = _matrix(scene.camera_quaternion_xyzw)
    return rotation.T @ (np.array(position_m) - scene.camera_position_m)


def test_nothing_floats_and_nothing_is_under_the_table(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        _, truth = read_scene(path / "scene.json")
        top = truth.surface_center_m[2]
        for number, (low, _) in truth.extents_m.items():
            if number not in truth.fixtures:
                assert low[2] > top - 0.01
                assert number in truth.rests or low[2] < top + 0.015


def test_a_scene_depends_on_its_seed_alone_and_what_is_missing_is_made_again(
    folder: Path, tmp_path: Path
) -> None:
    last = folder / f"{COUNT - 1:06d}"
    kept = {path.name: path.read_bytes() for path in last.iterdir()}
    (last / "scene.json").unlink()

    assert render(["--seed", str(SEED), "--count", str(COUNT), "--out", str(folder)]) == 0

    assert {path.name: path.read_bytes() for path in last.iterdir()} == kept


def test_no_question_says_an_instruction_of_the_benchmark(folder: Path) -> None:
    forbidden = benchmark_texts()

    assert ask([str(folder)]) == 0

    for path in sorted(folder.iterdir()):
        scene, truth = read_scene(path / "scene.json")
        assert scene.queries
        drawn = [q for draw in range(40) for q in queries_of(scene, truth, forbidden, draw)]
        for query in (*scene.queries, *drawn):
            assert not says_any(query.text, forbidden)


def test_a_task_becomes_an_image_with_questions(task: Task, tmp_path: Path) -> None:
    assert list(render_tasks([task], [], 1, tmp_path)) == [1]
    assert list(render_tasks([task], [], 1, tmp_path)) == [1]  # from what is there

    scene, truth = read_scene(tmp_path / "task01_state000" / "scene.json")
    _, _, _, instances = load_scene(tmp_path / "task01_state000")
    assert {q.kind for q in scene.queries} <= set(KINDS_ASKED)
    order = next(q for q in scene.queries if q.kind == "instruction")
    assert normalized(order.text) in benchmark_texts()
    assert truth.names[order.ids[0]] == task.of_interest[0]
    assert np.count_nonzero(instances == order.ids[0]) > 300
    assert (tmp_path / "omitted.json").read_text().strip() == "[]"


def test_an_unknown_suite_is_reported_with_the_list() -> None:
    with pytest.raises(BenchmarkError, match="unknown suite 'libero_moon'; there are: libero_10,"):
        open_suite("libero_moon", 1)
    assert len(suite_names()) > 80


def test_an_initial_state_out_of_range_is_reported() -> None:
    with pytest.raises(BenchmarkError, match="task 0 has 50 initial states, 51 are wanted"):
        open_suite("libero_goal", 51)
    with pytest.raises(BenchmarkError, match="--states is 0"):
        open_suite("libero_goal", 0)


def test_a_suite_without_files_is_reported() -> None:
    with pytest.raises(BenchmarkError, match=r"libero_goal_env: .*no task file"):
        open_suite("libero_goal_env", 1)


def test_a_task_file_that_names_a_missing_model_is_reported(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "moon.bddl"
    text = task.path.read_text()
    path.write_text(text.replace("wine_bottle_1 - wine_bottle", "wine_bottle_1 - moon_rock"))
    broken = Task(task.suite, 1, task.instruction, path, task.of_interest, task.states)

    with pytest.raises(BenchmarkError, match=r"moon\.bddl. names 'moon_rock', which the package"):
        build_world(broken)


def test_without_a_renderer_one_line_tells_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: int) -> None:
        raise OSError("no OSMesa")

    monkeypatch.setattr("worlds.common.renderer.mujoco.GLContext", fail)

    assert render(["--seed", str(SEED), "--count", "1", "--out", str(tmp_path)]) == 2
    assert "no off-screen renderer (no OSMesa)" in capsys.readouterr().err


def test_a_stage_has_every_object_of_its_pool() -> None:
    pool = sample_pool(next(b for b in range(99) if sample_pool(b).arena == "floor"))

    stage = build_stage(ARENAS[pool.arena], pool.movables, pool.fixtures, pool.style)

    kinds = [obj.kind for obj in stage.objects if not obj.fixed]
    assert sorted(kinds) == sorted(pool.movables)
    assert len({obj.name for obj in stage.objects}) == len(stage.objects)
    assert sorted(obj.kind for obj in stage.objects if obj.fixed) == sorted(pool.fixtures)
