"""The benchmark's own tasks as grounding data: an image, what is asked, and the true masks.

    python -m worlds.libero.benchmark --suite libero_spatial_swap --states 10 --out DIR

For every task of a suite and its first initial states, the scene settles as an evaluation of
policies lets it, and `agentview` is rendered into a folder that reads as any world's. What was
rendered is not rendered again. What cannot be asked is listed with its reason in `omitted.json`.

Needs the extra `libero` (`make libero-setup`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from worlds.libero.drawing import Drawing, model_camera
from worlds.libero.grounding import Omission, ask_task
from worlds.libero.package import language_of, quiet, require
from worlds.libero.record import is_done, look, record, save_rendered
from worlds.libero.scene import read_scene, with_queries, write_scene
from worlds.libero.stage import ARENAS, Arena, stage_of_world
from worlds.libero.truth import find_supports
from worlds.libero.views import View
from worlds.libero.workbench import Layout

FIRST_SEED = 2_000_000  # far from every scene of our own; counted by task and state
STATES_MAX = 1000
SETTLE_STEPS = 10
_STAY = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)  # an action that moves nothing, fingers open
OMITTED = "omitted.json"


class BenchmarkError(ValueError):
    """What was asked of the benchmark does not exist; the message is one line."""


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Attributes:
        suite: The suite's name.
        index: Its number in the suite's order.
        instruction: As its file states it.
        path: Its file.
        of_interest: What the instruction means: first what is moved, then where it goes.
        states: Its initial states, [N, D].
    """

    suite: str
    index: int
    instruction: str
    path: Path
    of_interest: tuple[str, ...]
    states: Any


def suite_names() -> tuple[str, ...]:
    """Every suite that the package names.

    Raises:
        LiberoMissingError: The extra is not installed.
    """
    require()
    from libero.libero import benchmark

    return tuple(sorted(benchmark.get_benchmark_dict()))


def open_suite(name: str, states: int) -> tuple[list[Task], list[Omission]]:
    """The tasks of a suite with their initial states.

    Args:
        name: One of `suite_names`.
        states: How many initial states of each task are wanted.

    Raises:
        LiberoMissingError: The extra is not installed.
        BenchmarkError: No such suite, none of its tasks has a file and states, or fewer states
            than are wanted.
    """
    require()
    from libero.libero import benchmark, get_libero_path

    names = suite_names()
    if name not in names:
        raise BenchmarkError(f"unknown suite {name!r}; there are: {', '.join(names)}")
    if not 1 <= states <= STATES_MAX:
        raise BenchmarkError(f"--states is {states}; 1 to {STATES_MAX} are possible")
    with quiet():
        suite = benchmark.get_benchmark_dict()[name]()
    tasks, omitted = [], []
    for index in range(getattr(suite, "n_tasks", 0)):
        entry = suite.get_task(index)
        path = Path(get_libero_path("bddl_files"), entry.problem_folder, entry.bddl_file).resolve()
        fault, loaded = _initial_states(suite, index, path)
        if fault:
            omitted.append(Omission(name, index, -1, "task", fault))
            continue
        if len(loaded) < states:
            raise BenchmarkError(
                f"{name}: task {index} has {len(loaded)} initial states, {states} are wanted"
            )
        tasks.append(
            Task(name, index, language_of(path), path, _of_interest(path), loaded[:states])
        )
    if not tasks:
        detail = f"; the first: {omitted[0].reason}" if omitted else ""
        raise BenchmarkError(f"{name}: the package has no task of it with initial states{detail}")
    return tasks, omitted


def _initial_states(suite: Any, index: int, path: Path) -> tuple[str, Any]:
    """What is wrong, or the states."""
    if not path.is_file():
        return f"no task file {path.name}", None
    try:
        states = suite.get_task_init_states(index)
    except (OSError, ValueError) as error:
        return f"no initial states: {str(error).splitlines()[0]}", None
    if len(states) == 0:
        return "no initial states: the file is empty", None
    return "", states


def _of_interest(path: Path) -> tuple[str, ...]:
    from libero.libero.envs.bddl_utils import robosuite_parse_problem

    return tuple(robosuite_parse_problem(str(path))["obj_of_interest"])


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
    for task in tasks:
        folders = [_folder(out, task, state) for state in range(states)]
        seeds = [_seed(task, state) for state in range(states)]
        missing = [i for i in range(states) if not is_done(folders[i], seeds[i])]
        yield from [1] * (states - len(missing))
        if missing:
            yield from _render_task(task, missing, out)
        for state, folder in enumerate(folders):
            omitted += _ask(task, state, folder)
    kept = [asdict(omission) for omission in omitted]
    (out / OMITTED).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _folder(out: Path, task: Task, state: int) -> Path:
    return out / f"task{task.index:02d}_state{state:03d}"


def _seed(task: Task, state: int) -> int:
    return FIRST_SEED + task.index * STATES_MAX + state


def _render_task(task: Task, states: list[int], out: Path) -> Iterator[int]:
    world = build_world(task)
    try:
        data = world.sim.data._data
        stage = stage_of_world(world.env, _arena(world), data)
        with Drawing(stage) as drawing:
            for state in states:
                world.set_init_state(task.states[state])
                for _ in range(SETTLE_STEPS):
                    world.step(list(_STAY))
                layout = Layout(list(stage.pieces))
                for piece in layout.pieces:
                    layout.note_states(stage, piece)
                view = View("agentview", model_camera(stage.model, data, "agentview"))
                seen = look(drawing, view, layout.pieces)
                supports = find_supports(stage, layout)
                made = record(stage, drawing, layout, view, seen, supports, _seed(task, state))
                save_rendered(_folder(out, task, state), made)
                yield 1
    finally:
        world.close()


def _arena(world: Any) -> Arena:
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
    write_scene(folder / "scene.json", with_queries(scene, queries), truth)
    return omitted


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worlds.libero.benchmark", description=__doc__)
    parser.add_argument("--suite", required=True, help="for instance libero_spatial_swap")
    parser.add_argument("--states", type=int, default=10, help="initial states of each task (10)")
    parser.add_argument("--out", type=Path, required=True, help="folder for this suite")
    args = parser.parse_args(argv)
    try:
        tasks, _ = open_suite(args.suite, args.states)
        args.out.mkdir(parents=True, exist_ok=True)
        total = len(tasks) * args.states
        with tqdm(total=total, desc=args.suite, unit="image") as bar:
            for count in render_suite(args.suite, args.states, args.out):
                bar.update(count)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"worlds.libero.benchmark: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
