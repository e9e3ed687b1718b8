"""Endurance of the node: queries with everything that can happen to a node, for an hour.

    scripts/in_env.sh python -m benchmarks.soak --check [--queries 100000] [--minutes 60]

Three processes: a camera of 640x480 at 30 Hz with depth, the node with a scripted reasoner and the
bundled segmenter, and a client that asks by topic and by action, up to three queries at a time. By
chance it cancels goals and all queries, changes parameters, sends lifecycle transitions (also the
reload of the model), and stops the camera for a while; the transform to the target frame comes
and goes. It ends at whichever limit comes first. Looked at are the results of every query, the
node's memory after the first minute (or a third of a shorter run), its threads and file handles.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

from benchmarks.figures import conclude, new_parser
from benchmarks.ros.processes import CAMERA_ENVIRONMENT, TIMEOUT_S, Client, camera_main, node_main
from segzero_core.terminal.progress_bar import ProgressBar
from segzero_ros.diagnostics.health import CODES
from segzero_ros.ros_domain import isolated_environment

MAX_GROWTH_MB: Final = 20.0
JUDGED_MINUTES: Final = 5.0
"""A shorter run has not seen every state of the node, so its memory is shown and not judged."""
PATIENCE_S: Final = 600.0
"""For a result: a machine that runs out of memory stands still for minutes, its node too."""
HELD: Final = ("RssAnon", "RssShmem", "VmSwap")
"""Parts of a process's memory that are judged, as /proc calls them."""
SAMPLES: Final = 30
"""Measurements of memory, a second apart, whose medians are compared."""
PARAMETERS: Final[dict[str, tuple[Any, ...]]] = {
    "when_busy": ("replace", "queue", "reject"),
    "target_frame": ("", "base"),
    "timeout_s": (0.03, 120.0, 120.0, 120.0),
    "publish_overlay": (True, False),
    "max_image_age_s": (0.5, 10.0),
}
SHARES: Final = {
    "cancel": 0.01,
    "parameter": 0.01,
    "reactivate": 0.002,
    "camera": 0.002,
    "reload": 0.0005,
}
"""How often each event comes with a query."""
CYCLES: Final = {"reactivate": (4, 3), "reload": (4, 2, 1, 3)}
"""Numbers of lifecycle transitions."""
Process: TypeAlias = "subprocess.Popen[bytes]"


class ScriptedTransforms:
    """In place of tf2_ros, which is not among the wheels: a transform that comes and goes."""

    def __init__(self, **_: Any) -> None:
        pass

    def lookup_transform(self, *_: Any, **__: Any) -> Any:
        """Return a camera that looks straight down, in two of three seconds."""
        if time.monotonic() % 3 > 2:
            raise LookupError("the transform is gone")
        turn = SimpleNamespace(x=1.0, y=0.0, z=0.0, w=0.0)
        shift = SimpleNamespace(x=0.0, y=0.0, z=0.8)
        return SimpleNamespace(transform=SimpleNamespace(rotation=turn, translation=shift))


class Soak:
    """Asks, disturbs, and counts the results of every query.

    Args:
        node: The node's process.
        camera: The camera's.
        seed: Of the chance.
    """

    def __init__(
        self, node: subprocess.Popen[bytes], camera: subprocess.Popen[bytes], seed: int
    ) -> None:
        from rcl_interfaces.srv import SetParameters
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image
        from std_srvs.srv import Trigger

        from segzero_ros.msg import SegmentationResult

        self.client, self._camera, self._node = Client(), camera, node.pid
        self._chance = random.Random(seed)
        self._changed = threading.Condition()
        self.results: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.asked, self.goals_unanswered, self.goals_open, self.longest_wait_s = 0, 0, 0, 0.0
        ros, deep = self.client.node, QoSProfile(depth=1000)
        ros.create_subscription(SegmentationResult, "/segzero/result", self._on_result, deep)
        ros.create_subscription(Image, "/segzero/overlay", lambda _: None, QoSProfile(depth=1))
        self._cancel = ros.create_client(Trigger, "/segzero/cancel")
        self._set = ros.create_client(SetParameters, "/segzero/set_parameters")

    def _on_result(self, msg: Any) -> None:
        with self._changed:
            self.results[msg.query] += 1
            self.codes[CODES[msg.error_code]] += 1
            self._changed.notify_all()

    def wait_for(self, open_queries: int) -> None:
        """Wait until at most so many queries have no result yet."""
        with self._changed:
            done = lambda: self.asked - len(self.results) <= open_queries  # noqa: E731
            began_s = time.monotonic()
            if not self._changed.wait_for(done, PATIENCE_S):
                lost = {f"query {i}" for i in range(self.asked)} - set(self.results)
                raise RuntimeError(f"no result within {PATIENCE_S:g} s for {sorted(lost)[:5]}")
            self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - began_s)

    def step(self) -> None:
        """Ask once, perhaps disturb, and wait until few queries are open."""
        query, dice = f"query {self.asked}", self._chance.random
        self.asked += 1
        if dice() < 0.5:
            self.client.publish(query)
        else:
            self._send_goal(query, cancelled=dice() < 0.3)
        for name, share in SHARES.items():
            if dice() < share:
                self.disturb(name)
        self.wait_for(self._chance.randrange(3))

    def disturb(self, name: str) -> None:
        """Let one of the events happen."""
        self.events[name] += 1
        if name == "camera":
            self._camera.send_signal(signal.SIGUSR1)
        elif name == "cancel":
            self.client.call(self._cancel.call_async(self._cancel.srv_type.Request()))
        elif name == "parameter":
            from rclpy.parameter import Parameter

            parameter = self._chance.choice(list(PARAMETERS))
            value = Parameter(parameter, value=self._chance.choice(PARAMETERS[parameter]))
            request = self._set.srv_type.Request(parameters=[value.to_parameter_msg()])
            self.client.call(self._set.call_async(request))
        else:
            for number in CYCLES[name]:
                self.client.change(number)

    def _send_goal(self, query: str, *, cancelled: bool) -> None:
        from segzero_ros.action import Segment

        def ended(_: Any) -> None:
            with self._changed:
                self.goals_open -= 1
                self._changed.notify_all()

        def answered(future: Any) -> None:
            with self._changed:
                self.goals_unanswered -= 1
                self.goals_open += 1
            if (handle := future.result()).accepted:
                handle.get_result_async().add_done_callback(ended)
                if cancelled:
                    handle.cancel_goal_async()
            else:
                ended(handle)

        with self._changed:
            self.goals_unanswered += 1
        goal, send = Segment.Goal(query=query), self.client.actions.send_goal_async
        self.client.do(lambda: send(goal).add_done_callback(answered))

    def calm(self) -> dict[str, int]:
        """Wait for everything that is open; return the node's threads and file handles.

        The least of ten seconds, because a thread may outlive the query that it worked for.
        """
        self.wait_for(0)
        with self._changed:
            ended = lambda: not self.goals_open and not self.goals_unanswered  # noqa: E731
            self._changed.wait_for(ended, TIMEOUT_S)
        found: dict[str, list[int]] = {"task": [], "fd": []}
        for _ in range(10):
            time.sleep(1)
            for part, counts in found.items():
                counts.append(len(list(Path(f"/proc/{self._node}/{part}").iterdir())))
        return {part: min(counts) for part, counts in found.items()}

    def memory_mb(self) -> float:
        """Return what the node holds of its own and shares [MB].

        Not the pages of files, such as libraries, which the kernel reads and drops as it likes.
        """
        lines = Path(f"/proc/{self._node}/status").read_text().splitlines()
        kilobytes = dict(line.split(":", 1) for line in lines)
        return sum(int(kilobytes[part].split()[0]) for part in HELD) * 1024 / 1e6


def soak(run: Soak, queries: int, seconds: float) -> dict[str, Any]:
    """Ask until a limit is reached, and return what was counted."""
    for name in SHARES:
        run.disturb(name)
        for _ in range(20):
            run.step()
    began_s = next_s = time.monotonic()
    memory: list[float] = []
    before = None
    with ProgressBar(total=queries, initial=run.asked, unit="query") as bar:
        while run.asked < queries and time.monotonic() - began_s < seconds:
            run.step()
            bar.update()
            if time.monotonic() > next_s:
                next_s += 1.0
                memory.append(run.memory_mb())
            if before is None and time.monotonic() - began_s > min(60.0, seconds / 3):
                before, settled = run.calm(), len(memory)
    lasted_s, after = time.monotonic() - began_s, run.calm()
    before, settled = (before, settled) if before else (after, 0)
    late = memory[settled:] or [run.memory_mb()]
    share = min(SAMPLES, max(1, len(late) // 3))
    return {
        "queries": run.asked,
        "minutes": round(lasted_s / 60, 1),
        "without_result": run.asked - len(run.results),
        "with_several": sum(count > 1 for count in run.results.values()),
        "goals_without_end": run.goals_open,
        "goals_unanswered": run.goals_unanswered,
        "longest_wait_s": round(run.longest_wait_s, 1),
        "memory_mb": round(median(late[:share]), 1),
        "growth_mb": round(median(late[-share:]) - median(late[:share]), 1),
        "threads": [before["task"], after["task"]],
        "file_handles": [before["fd"], after["fd"]],
        "results": dict(run.codes.most_common()),
        "events": dict(run.events),
    }


def misses(figures: dict[str, Any]) -> list[str]:
    """Return what is not as it must be, in words."""
    wrong = [
        name
        for name in ("without_result", "with_several", "goals_without_end", "goals_unanswered")
        if figures[name]
    ]
    wrong += [name for name in ("threads", "file_handles") if figures[name][1] > figures[name][0]]
    grown = figures["growth_mb"] >= MAX_GROWTH_MB and figures["minutes"] >= JUDGED_MINUTES
    return wrong + ["growth_mb"] * grown


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=120.0, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--process", choices=["node", "camera"], help=argparse.SUPPRESS)
    arguments, ros_arguments = parser.parse_known_args()
    if arguments.process == "camera":
        camera_main(depth=True)
    if arguments.process == "node":
        sys.argv = [*sys.argv[:1], *ros_arguments]
        listener = SimpleNamespace(
            Buffer=lambda **_: ScriptedTransforms(), TransformListener=lambda *_: None
        )
        sys.modules.setdefault("tf2_ros", listener)  # type: ignore[arg-type]
        node_main("", delay_s=0.0005)
    own = [sys.executable, "-m", "benchmarks.soak", "--process"]
    with isolated_environment() as isolation:
        os.environ.update(isolation | CAMERA_ENVIRONMENT | {"OMP_NUM_THREADS": "1"})
        camera = subprocess.Popen([*own, "camera"])
        node = subprocess.Popen([*own, "node"], stderr=subprocess.DEVNULL)
        try:
            run = Soak(node, camera, arguments.seed)
            run.client.wait_ready()
            figures = soak(run, arguments.queries, 60 * arguments.minutes)
            assert node.poll() is None
        finally:
            for process in (node, camera):
                process.kill()
                process.wait()
    for name, value in figures.items():
        print(f"{name:<18} {value}")
    missed = misses(figures)
    print(f"not as it must be: {', '.join(missed)}" if missed else "everything is as it must be")
    return conclude(arguments, figures, missed=bool(missed))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
