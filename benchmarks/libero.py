"""From an instruction to a finished task: the client of `examples/pick_and_place` on LIBERO.

    python -m benchmarks.libero --suite libero_spatial_swap --states 10 --check
    python -m benchmarks.libero --suite libero_object --states 10 --truth --json object.json

Without `--truth` a model answers from the image of the camera before the robot; with it, its masks
are replaced by the simulator's, so that the rest is measured alone. Nothing else of the
simulator's state reaches the client, and its own success check only counts.

Every task of a suite counts, also one that needs a skill that the client has not. An episode that
fails has one cause: the client's own (no skill, refused, no grasp, ...), or what the judge sees
beside it: a wrong object or a bad mask (IoU under 0.5 with what the instruction means), or a
client that believed to be done.

Episodes are kept in `--work` as they end; killed and started again, it goes on.

    python -m benchmarks.libero --suite libero_object_swap --states 4 --over-ros --check

    python -m benchmarks.libero --suite libero_spatial --film spatial.gif

With `--over-ros` the same client drives the robot node and asks the segzero node, and its episodes
are compared with those in one process: at most one in twenty may end otherwise.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.figures import conclude, new_parser
from examples.pick_and_place.client import Client
from examples.pick_and_place.film import Film, FilmedEyes
from examples.pick_and_place.interfaces import Eyes, Fault, Image, Outcome, RobotError, Sight
from examples.pick_and_place.libero_robot import LiberoRobot
from examples.pick_and_place.orders import parse_order
from segzero_core.checkpoints.cache import cache_folder
from segzero_core.geometry import mask_iou
from segzero_core.terminal.progress_bar import ProgressBar
from worlds.libero.benchmark.suites import BenchmarkError, Task, open_suite
from worlds.libero.package import LiberoMissingError
from worlds.libero.robot.cell import Cell

HORIZON: Final = 600
POLICY_HORIZONS: Final = {"spatial": 220, "object": 280, "goal": 300}
"""Steps that the published policies are allowed; a success within them is counted apart."""
SWAP_DROP: Final = 0.05
"""Other positions of the same objects may cost so much."""
TARGETS: Final[dict[bool, dict[str, float]]] = {
    True: {"libero_object": 0.95, "libero_spatial": 0.90, "libero_goal": 0.60},
    False: {"libero_object": 0.85, "libero_spatial": 0.70},
}
"""With true masks, and with a model."""
TARGETS[True] |= {f"{suite}_swap": share - SWAP_DROP for suite, share in TARGETS[True].items()}
RIGHT_IOU: Final = 0.5
TRUTH: Final = "truth"
MIN_COMPARED: Final = 40
"""Episodes that a comparison with ROS takes."""


@dataclass(frozen=True)
class Episode:
    """One try of a task."""

    suite: str  # the suite
    task: int  # number of the task
    state: int  # number of the initial state
    succeeded: bool  # the benchmark's own check, at the end
    cause: str  # why it failed; empty where it succeeded
    about: str  # the noun phrase that it failed on, as far as the client knows
    steps: int  # controller's steps, twenty a second
    seconds: float  # of wall clock


def taken_by(instruction: str) -> set[str]:
    """The noun phrases of what an instruction has taken into the hand."""
    steps = parse_order(instruction)
    return {step.item for step in steps if step.skill in ("move", "pick")}


class TrueEyes:
    """Answers with the simulator's masks of what the task's file means.

    Where the file names no object as the place, it is the one that the noun phrase names.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._items = taken_by(cell.instruction)

    def find(self, text: str, image: Image) -> Sight:
        """See `Eyes`."""
        interest = self._cell.task.of_interest
        kinds = {name: name.split("_")[-2:-1] for name in self._cell.object_names}
        named = [name for name, kind in kinds.items() if kind and kind[0] in text.split()]
        places = [*interest[1:2], *named, *interest[:1]]
        meant = interest[:1] if text in self._items else places
        masks = (self._cell.true_mask(name, "agentview") for name in meant)
        seen = [mask for mask in masks if mask.any()][:1]
        return Sight(np.array(seen) if seen else np.zeros((0, *image.depth_m.shape), bool))


class ModelEyes:
    """Asks a model in this process."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def find(self, text: str, image: Image) -> Sight:
        """See `Eyes`."""
        from segzero_core.ambiguity import is_ambiguous
        from segzero_core.errors import SegZeroError

        try:
            result = self._model.segment(image.color, text)
        except SegZeroError as error:
            return Sight(np.zeros((0, *image.depth_m.shape), bool), error=str(error))
        masks, thinking = result.segmentation.masks, result.reasoning.thinking
        return Sight(masks, ambiguous=is_ambiguous(result), thinking=thinking)


class Judge:
    """Passes questions on, and compares each first answer about the object with the truth."""

    def __init__(self, eyes: Eyes, cell: Cell) -> None:
        self._eyes, self._cell = eyes, cell
        self._items = taken_by(cell.instruction)
        self.cause = ""

    def find(self, text: str, image: Image) -> Sight:
        """See `Eyes`."""
        sight = self._eyes.find(text, image)
        if text in self._items and len(sight.masks) and not self.cause:
            self.cause = self._fault_of(sight.masks[0])
        return sight

    def _fault_of(self, mask: NDArray[np.bool_]) -> str:
        meant = self._cell.true_mask(self._cell.task.of_interest[0], "agentview")
        if mask_iou(mask, meant) >= RIGHT_IOU:
            return ""
        return "bad mask" if (mask & meant).sum() > 0.5 * mask.sum() else "wrong object"


def run_episode(cell: Cell, state: int, eyes: Eyes) -> Episode:
    """Try a task once."""
    started = time.monotonic()
    cell.begin(state)
    judge = Judge(eyes, cell)
    outcome = Client(LiberoRobot(cell, HORIZON), judge).carry_out(cell.instruction)
    succeeded = cell.succeeded()
    cause = ""
    if not succeeded:
        cause = cause_of(outcome)
        cause = cause if outcome.fault in _OWN else judge.cause or cause
    seconds = round(time.monotonic() - started, 2)
    task = cell.task
    about = "" if succeeded else outcome.about
    return Episode(task.suite, task.index, state, succeeded, cause, about, cell.steps, seconds)


def cause_of(outcome: Outcome) -> str:
    """Why a task failed, as far as the client knows."""
    return "believed done" if outcome.done else outcome.fault.value


def _append(log: Path, episode: Episode) -> None:
    with log.open("a", encoding="utf-8") as file:
        print(json.dumps(asdict(episode)), file=file, flush=True)


_OWN: Final = (Fault.NO_SKILL, Fault.FAILED, Fault.REFUSED, Fault.AMBIGUOUS)
"""Faults before anything was touched, whatever the masks are like."""


def _run_task(job: tuple[Task, list[int], str, Path]) -> int:
    """Run the missing episodes of a task in this process; returns how many."""
    task, states, model, log = job
    loaded = _model(model)
    with Cell(task) as cell:
        eyes = ModelEyes(loaded) if loaded else TrueEyes(cell)
        for state in states:
            _append(log, run_episode(cell, state, eyes))
    return len(states)


_LOADED: dict[str, Any] = {}


def _model(name: str) -> Any:
    """The model of this process, loaded once; None for the truth."""
    if name == TRUTH:
        return None
    if name not in _LOADED:
        from segzero_core import SegZero

        _LOADED[name] = SegZero.load(name)
    return _LOADED[name]


def read_log(log: Path) -> list[Episode]:
    """The episodes that ended so far; a line that was cut off by a kill does not count."""
    episodes = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            episodes.append(Episode(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return episodes


def run(tasks: Sequence[Task], states: int, model: str, log: Path, processes: int) -> None:
    """Run all episodes that the log lacks."""
    done = {(e.task, e.state) for e in read_log(log)}
    jobs = [
        (task, missing, model, log)
        for task in tasks
        if (missing := [s for s in range(states) if (task.index, s) not in done])
    ]
    if not jobs:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    total = sum(len(job[1]) for job in jobs)
    with context.Pool(processes) as pool, ProgressBar(total=total, unit="episode") as progress:
        for count in pool.imap_unordered(_run_task, jobs):
            progress.update(count)


def film_success(tasks: Sequence[Task], states: int, model: str, path: Path) -> bool:
    """Film episodes until one succeeds, and keep that one; whether any did."""
    loaded = _model(model)
    for task in tasks:
        with Cell(task) as cell:
            for state in range(states):
                cell.begin(state)
                film = Film(cell, cell.instruction)
                eyes = FilmedEyes(ModelEyes(loaded) if loaded else TrueEyes(cell), film)
                outcome = Client(LiberoRobot(cell, HORIZON), eyes).carry_out(cell.instruction)
                if cell.succeeded():
                    print(f"{path}: task {task.index}, state {state}, {film.save(path)} bytes")
                    return True
                print(f"task {task.index}, state {state}: {cause_of(outcome)}", file=sys.stderr)
    return False


def over_ros(tasks: Sequence[Task], states: int, model: str, log: Path) -> None:
    """Run all episodes over ROS that the log lacks."""
    from benchmarks.ros.episodes import run_over_ros

    done = {(e.task, e.state) for e in read_log(log)}
    wanted = [(task.index, state) for task in tasks for state in range(states)]
    missing = [each for each in wanted if each not in done]
    if not missing:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    suite = tasks[0].suite
    episodes = run_over_ros(suite, missing, model, HORIZON)
    for task, state, ended in ProgressBar(episodes, total=len(missing), unit="episode"):
        cause = "" if ended.succeeded else cause_of(ended.outcome)
        about = "" if ended.succeeded else ended.outcome.about
        numbers = ended.steps, ended.seconds
        _append(log, Episode(suite, task, state, ended.succeeded, cause, about, *numbers))


def compare(here: Sequence[Episode], there: Sequence[Episode]) -> dict[str, Any]:
    """How many of the same episodes ended alike in one process and over ROS."""
    known = {(e.task, e.state): e.succeeded for e in here}
    pairs = [(e, known[e.task, e.state]) for e in there if (e.task, e.state) in known]
    differ = [(e.task, e.state) for e, succeeded in pairs if e.succeeded != succeeded]
    return {"compared": len(pairs), "succeeded_here": sum(b for _, b in pairs), "differ": differ}


def summary(episodes: Sequence[Episode], suite: str) -> dict[str, Any]:
    """Success with its interval, per task and in all, causes, steps and seconds."""
    right = [e for e in episodes if e.succeeded]
    interval = binomtest(len(right), len(episodes)).proportion_ci(method="wilson")
    family = next((name for name in POLICY_HORIZONS if f"_{name}" in suite), "")
    horizon = POLICY_HORIZONS.get(family, HORIZON)
    tasks = sorted({e.task for e in episodes})
    return {
        "suite": suite,
        "episodes": len(episodes),
        "succeeded": len(right),
        "share": len(right) / len(episodes),
        "interval": (interval.low, interval.high),
        "within_policy_horizon": sum(e.steps <= horizon for e in right) / len(episodes),
        "tasks": {
            str(task): sum(e.succeeded for e in episodes if e.task == task)
            / sum(e.task == task for e in episodes)
            for task in tasks
        },
        "causes": dict(Counter(e.cause for e in episodes if e.cause).most_common()),
        "median_steps": float(np.median([e.steps for e in episodes])),
        "median_seconds": float(np.median([e.seconds for e in episodes])),
        "longest_seconds": max(e.seconds for e in episodes),
    }


def report(figures: dict[str, Any]) -> str:
    """For people."""
    low, high = figures["interval"]
    lines = [
        f"{figures['suite']}: {figures['succeeded']} of {figures['episodes']} succeeded, "
        f"{figures['share']:.3f} (95 % {low:.2f}-{high:.2f})",
        "by task: " + ", ".join(f"{k} {v:.2f}" for k, v in figures["tasks"].items()),
        *(f"{count:5}  {cause}" for cause, count in figures["causes"].items()),
        f"median {figures['median_steps']:.0f} steps, {figures['median_seconds']:.1f} s",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("--suite", required=True, help="one of the package's suites")
    parser.add_argument("--states", type=int, default=10, help="first initial states of each task")
    parser.add_argument("--model", default="libero", help="who answers")
    parser.add_argument("--truth", action="store_true", help="the simulator's masks instead")
    parser.add_argument("--over-ros", action="store_true", help="as processes, and compared")
    parser.add_argument("--film", type=Path, metavar="GIF", help="only film the first success")
    parser.add_argument("--task", type=int, help="with --film: only this one")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, help="where episodes are kept (default: the cache)")
    args = parser.parse_args(argv)
    if args.truth and args.over_ros:
        parser.error("the simulator's masks do not go over ROS: --over-ros is for a model")
    try:
        tasks, omitted = open_suite(args.suite, args.states)
        for omission in omitted:
            print(f"left out: task {omission.task}: {omission.reason}", file=sys.stderr)
        if args.film:
            tasks = [task for task in tasks if args.task in (None, task.index)]
            model = TRUTH if args.truth else args.model
            return int(not film_success(tasks, args.states, model, args.film))
        return _run_and_report(args, tasks)
    except (LiberoMissingError, BenchmarkError, RobotError) as error:
        print(f"benchmarks.libero: error: {error}", file=sys.stderr)
        return 2


def _run_and_report(args: argparse.Namespace, tasks: Sequence[Task]) -> int:
    folder = args.work or cache_folder("libero") / "episodes"
    # Other weights begin anew; episodes of an older client are kept until `--work` is another.
    who = TRUTH if args.truth else _model(args.model).identity.weights_hash
    log = folder / f"{args.suite}-{who}.jsonl"
    run(tasks, args.states, TRUTH if args.truth else args.model, log, args.processes)
    episodes = [e for e in read_log(log) if e.state < args.states]
    if args.over_ros:
        return _report_over_ros(args, tasks, episodes, log.with_suffix(".ros.jsonl"))
    figures = summary(episodes, args.suite)
    print(report(figures))
    target = TARGETS[args.truth].get(args.suite, 0.0)
    print(f"target {target:.2f}" if target else "no target is set for this suite")
    return conclude(args, figures, missed=figures["share"] < target)


def _report_over_ros(
    args: argparse.Namespace, tasks: Sequence[Task], here: Sequence[Episode], log: Path
) -> int:
    over_ros(tasks, args.states, args.model, log)
    there = [e for e in read_log(log) if e.state < args.states]
    figures = summary(there, args.suite) | compare(here, there)
    print(report(figures))
    count, differ = figures["compared"], figures["differ"]
    print(
        f"of {count} episodes {figures['succeeded_here']} succeed in one process; "
        f"{len(differ)} end otherwise over ROS (at most 1 in 20, of at least {MIN_COMPARED})"
    )
    return conclude(args, figures, missed=count < MIN_COMPARED or len(differ) > count / 20)


if __name__ == "__main__":
    sys.exit(main())
