"""The suites of the package: their tasks, instructions and initial states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worlds.libero.benchmark.grounding import Omission
from worlds.libero.package import language_of, quiet, require

STATES_MAX = 1000


class BenchmarkError(ValueError):
    """What was asked of the benchmark does not exist; the message is one line."""


@dataclass(frozen=True)
class Task:
    """One task of a suite."""

    suite: str  # the suite's name
    index: int  # its number in the suite's order
    instruction: str  # as its file states it
    path: Path  # its file
    # What the instruction means: first what is moved, then where it goes.
    of_interest: tuple[str, ...]
    states: Any  # its initial states, [N, D]


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
