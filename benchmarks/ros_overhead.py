"""What the ROS 2 node costs beside the model.

    scripts/in_env.sh python -m benchmarks.ros_overhead --check [--frames] [--json FILE]

Three processes: a camera of rgb8 at 30 Hz, the node with a scripted reasoner and the bundled
segmenter, and a client. Measured are

- how many images arrive with best effort at 640x480 and at 1280x720, with what docs/ros.md tells
  to set for the camera and (plain) without it, and the processor time of the node meanwhile;
- the overhead of a query: from its publication to the result, less the time inside the core;
- how long activation takes, and how long a cancelled goal takes to end with the bundled model.

With --frames only the first is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.figures import conclude, new_parser
from benchmarks.ros.processes import (
    CAMERA_ENVIRONMENT,
    SIZE_WH,
    TIMEOUT_S,
    Client,
    camera_main,
    node_main,
    processor_s,
)
from segzero_ros.ros_domain import isolated_environment

IDLE_S: Final = 10.0
HD_WH: Final = (1280, 720)
AT_MOST: Final = {
    "idle_percent": 8.0,
    "median_ms": 15.0,
    "p99_ms": 40.0,
    "activate_ms": 50.0,
    "cancel_max_ms": 200.0,
}
AT_LEAST: Final = {"received_of_30": 29.7, "hd_received_of_30": 29.0}


def measure_queries(client: Client, log: Path, count: int) -> dict[str, float]:
    """Ask again and again, and take the core's own time off."""
    for number in range(1000):
        if client.ask(f"warm up {number}")[1].error_code == 0 and number >= 5:
            break
    whole = {f"query {number}": client.ask(f"query {number}") for number in range(count)}
    failed = [result.error_msg for _, result in whole.values() if result.error_code]
    if failed:
        raise RuntimeError(f"{len(failed)} queries failed, such as: {failed[0]}")
    core = dict(line.rsplit("\t", 1) for line in log.read_text().splitlines())
    overhead = [ms - float(core[name]) for name, (ms, _) in whole.items()]
    return {
        "queries": count,
        "median_ms": float(np.median(overhead)),
        "p99_ms": float(np.percentile(overhead, 99)),
        "whole_median_ms": float(np.median([ms for ms, _ in whole.values()])),
    }


def measure_idle(client: Client, pid: int, sent: Path, prefix: str) -> dict[str, float]:
    """Let the node receive images and nothing else.

    On a busy machine the camera itself sends fewer than 30 a second, so both are counted.
    """
    time.sleep(2)  # the camera and the node have found each other
    began_s, used_s, (had, had_s) = time.monotonic(), processor_s(pid), client.images()
    time.sleep(IDLE_S)
    percent = 100.0 * (processor_s(pid) - used_s) / (time.monotonic() - began_s)
    has, has_s = client.images()
    count = sum(had_s <= float(sent_s) < has_s for sent_s in sent.read_text().split())
    return {
        f"{prefix}idle_percent": percent,
        f"{prefix}sent_hz": count / (has_s - had_s),
        f"{prefix}received_hz": (has - had) / (has_s - had_s),
        f"{prefix}received_of_30": 30.0 * (has - had) / count,
    }


def measure_activation(client: Client) -> dict[str, float]:
    """Deactivate and activate, as a lifecycle manager does."""
    took = []
    for _ in range(5):
        for number in (4, 3):  # deactivate, activate
            began_s = time.perf_counter()
            client.change(number)
        took.append((time.perf_counter() - began_s) * 1e3)
    return {"activate_ms": float(np.median(took))}


def measure_cancel(client: Client, count: int = 10) -> dict[str, float]:
    """Cancel goals of the bundled model in mid-generation."""
    from segzero_ros.action import Segment

    took, goal = [], Segment.Goal(query="the red mug")
    while client.ask("the red mug")[1].error_code:
        client.ask("once more")  # the first image has not come yet
    while len(took) < count:
        thinks = threading.Event()

        def on_feedback(msg: Any, own: threading.Event = thinks) -> None:
            if msg.feedback.thinking:
                own.set()

        sent = client.do(lambda: client.actions.send_goal_async(goal, on_feedback))
        handle = client.call(sent)
        thinks.wait(TIMEOUT_S)
        result = client.do(handle.get_result_async)
        began_s = time.perf_counter()
        handle.cancel_goal_async()
        if client.call(result).result.result.error_code == 8:
            took.append((time.perf_counter() - began_s) * 1e3)
    return {"cancel_median_ms": float(np.median(took)), "cancel_max_ms": max(took)}


def run(count: int) -> dict[str, float]:
    """Start everything and measure; without queries only what arrives."""
    own = [sys.executable, "-m", "benchmarks.ros_overhead"]
    figures: dict[str, float] = {}
    with isolated_environment() as isolation, tempfile.TemporaryDirectory() as folder:
        os.environ.update(isolation)
        log, sent = Path(folder) / "core.tsv", Path(folder) / "sent.txt"
        client = Client()
        scripted = [*own, "--node", str(log)]
        cases = {
            "": (scripted, SIZE_WH, CAMERA_ENVIRONMENT),
            "hd_": (scripted, HD_WH, CAMERA_ENVIRONMENT),
            "plain_": (scripted, SIZE_WH, {}),
            "plain_hd_": (scripted, HD_WH, {}),
        }
        if count:
            bundled = [sys.executable, "-m", "segzero_ros.main"]
            cases["bundled"] = (bundled, SIZE_WH, CAMERA_ENVIRONMENT)
        for prefix, (command, size_wh, environment) in cases.items():
            camera = subprocess.Popen(
                [*own, "--camera", *map(str, size_wh), str(sent)],
                env={**os.environ, **environment},
            )
            node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                client.wait_ready()
                if prefix == "bundled":
                    figures |= measure_cancel(client)
                    continue
                if count and not prefix:
                    figures |= measure_queries(client, log, count)
                    figures |= measure_activation(client)
                figures |= measure_idle(client, node.pid, sent, prefix)
            finally:
                camera.kill()
                node.terminate()
                for process in (node, camera):
                    process.wait(TIMEOUT_S)
                client.forget()
    return figures


def main() -> int:
    """Command line; returns 1 with --check when a target is missed."""
    parser = new_parser(__doc__)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--frames", action="store_true", help="measure only what arrives")
    parser.add_argument("--node", help=argparse.SUPPRESS)
    parser.add_argument("--camera", nargs=3, help=argparse.SUPPRESS)
    arguments, ros_arguments = parser.parse_known_args()
    if arguments.node:
        sys.argv = [*sys.argv[:1], *ros_arguments]
        node_main(arguments.node)
    if arguments.camera:
        width, height, sent = arguments.camera
        camera_main((int(width), int(height)), log=sent)
    figures = run(0 if arguments.frames else arguments.queries)
    missed = {name for name, limit in AT_MOST.items() if figures.get(name, 0) > limit}
    missed |= {name for name, limit in AT_LEAST.items() if figures[name] < limit}
    limits = {name: f"at most {limit:g}" for name, limit in AT_MOST.items()}
    limits |= {name: f"at least {limit:g}" for name, limit in AT_LEAST.items()}
    for name, value in figures.items():
        limit = f"  ({limits[name]})" if name in limits else ""
        print(f"{name:<22} {value:8.1f}{limit}{'  MISSED' if name in missed else ''}")
    return conclude(arguments, figures, missed=bool(missed))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
