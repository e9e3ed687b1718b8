"""Renders the initial states of a suite, and writes what is asked beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from worlds.libero.benchmark.grounding import Omission, ask_task
from worlds.libero.benchmark.suites import STATES_MAX, BenchmarkError, Task, open_suite
from worlds.libero.composition.workbench import Layout
from worlds.libero.package import quiet
from worlds.libero.record import is_done, look, record, save_rendered
from worlds.libero.scene import read_scene, write_scene
from worlds.libero.simulation.arenas import ARENAS, Arena
from worlds.libero.simulation.drawing import Drawing, model_camera
from worlds.libero.simulation.stage import stage_of_world
from worlds.libero.simulation.views import View
from worlds.libero.truth import find_supports

FIRST_SEED = 2_000_000  # far from every scene of our own; counted by task and state
SETTLE_STEPS = 10
STAY = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)  # an action that moves nothing, fingers open
OMITTED = "omitted.json"


def build_world(task: Task) -> Any:
    """The package's environment of a task, reset and without a renderer of its own.

    Raises:
        BenchmarkError: The task's file names something that the package lacks.
    """
    from libero.libero.envs.env_wrapper import ControlEnv

    try:
        with quiet():
            world = ControlEnv(
                bddl_file_name=str(task.path),
                has_renderer=False,
                has_offscreen_renderer=False,
                use_camera_obs=False,
            )
            world.reset()
    except (KeyError, FileNotFoundError) as error:
        raise BenchmarkError(
            f"{task.suite}: task {task.index} ({task.path.name}) names {error}, "
            "which the package lacks"
        ) from error
    return world


def render_suite(name: str, states: int, out: Path) -> Iterator[int]:
    """Render what `out` lacks of a suite; yields 1 for each image that is there then.

    Args:
        name: The suite.
        states: How many initial states of each task.
        out: A folder for this suite alone.

    Raises:
        LiberoMissingError: The extra is not installed.
        BenchmarkError: See `open_suite` and `build_world`.
        RuntimeError: There is no renderer.
    """
    tasks, omitted = open_suite(name, states)
    yield from render_tasks(tasks, omitted, states, out)


def render_tasks(
    tasks: Sequence[Task], omitted: Sequence[Omission], states: int, out: Path
) -> Iterator[int]:
    """Render what `out` lacks of some tasks, and write all that is asked.

    Args:
        tasks: Of one suite.
        omitted: What is left out already.
        states: How many initial states of each.
        out: A folder for this suite alone.
    """
    left_out = list(omitted)
    for task in tasks:
        folders = [_folder(out, task, state) for state in range(states)]
        seeds = [_seed(task, state) for state in range(states)]
        missing = [i for i in range(states) if not is_done(folders[i], seeds[i])]
        yield from [1] * (states - len(missing))
        if missing:
            yield from _render_task(task, missing, out)
        for state, folder in enumerate(folders):
            left_out += _ask(task, state, folder)
    kept = [asdict(omission) for omission in left_out]
    (out / OMITTED).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _folder(out: Path, task: Task, state: int) -> Path:
    return out / f"task{task.index:02d}_state{state:03d}"


def _seed(task: Task, state: int) -> int:
    return FIRST_SEED + task.index * STATES_MAX + state


def _render_task(task: Task, states: list[int], out: Path) -> Iterator[int]:
    world = build_world(task)
    try:
        data = world.sim.data._data
        stage = stage_of_world(world.env, arena_of(world), data)
        with Drawing(stage) as drawing:
            for state in states:
                world.set_init_state(task.states[state])
                for _ in range(SETTLE_STEPS):
                    world.step(list(STAY))
                layout = Layout(list(stage.objects))
                for obj in layout.objects:
                    layout.note_states(stage, obj)
                view = View("agentview", model_camera(stage.model, data, "agentview"))
                seen = look(drawing, view, layout.objects)
                supports = find_supports(stage, layout)
                made = record(stage, drawing, layout, view, seen, supports, _seed(task, state))
                save_rendered(_folder(out, task, state), made)
                yield 1
    finally:
        world.close()


def arena_of(world: Any) -> Arena:
    """Where a task of the package plays."""
    problem = type(world.env).__name__.lower()
    for arena in ARENAS.values():
        if arena.problem.lower() == problem:
            return arena
    x, y, z = world.env.workspace_offset
    return Arena(problem, world.env.workspace_name, (x, y, z), (0.25, 0.35))


def _ask(task: Task, state: int, folder: Path) -> list[Omission]:
    """Write the questions anew, so that they follow the code and not what was cached."""
    scene, truth = read_scene(folder / "scene.json")
    queries, omitted = ask_task(task, state, scene, truth)
    if queries != scene.queries:
        write_scene(folder / "scene.json", replace(scene, queries=queries), truth)
    return omitted
