"""Episodes of LIBERO over ROS: segzero and the robot are processes, and this one is the client."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import rclpy
from rclpy.node import Node

from benchmarks.ros.processes import CAMERA_ENVIRONMENT
from examples.pick_and_place.client import Client
from examples.pick_and_place.interfaces import Outcome, RobotError
from examples.pick_and_place.ros.eyes import RosEyes
from examples.pick_and_place.ros.robot import SimulatedRobot
from segzero_cli.demo.ros_graph import NodeProcess
from segzero_ros import qos
from segzero_ros.executor import ExecutorThread
from segzero_ros.msg import Status
from segzero_ros.ros_domain import isolated_environment
from segzero_ros.srv import BeginEpisode

LOAD_TIMEOUT_S: Final = 600.0
PATIENCE_S: Final = 300.0
"""For the robot; it draws on a processor that others may use too."""


@dataclass(frozen=True)
class Ended:
    """An episode that ended over ROS.

    Attributes:
        outcome: What the client says.
        succeeded: What the judge says.
        steps: Of the controller.
        seconds: Of wall clock.
    """

    outcome: Outcome
    succeeded: bool
    steps: int
    seconds: float


def run_over_ros(
    suite: str, episodes: Iterable[tuple[int, int]], model: str, max_steps: int
) -> Iterator[tuple[int, int, Ended]]:
    """Run episodes one after the other; yields task, state and how each ended.

    Args:
        suite: One of the package's.
        episodes: Task and initial state of each.
        model: What the segzero node loads.
        max_steps: Of the controller.

    Raises:
        RobotError: A process did not start, or ended.
    """
    with _processes(model) as (node, robot):
        eyes = RosEyes(node, patience_s=LOAD_TIMEOUT_S)
        for task, state in episodes:
            started = time.monotonic()
            request = BeginEpisode.Request(
                suite=suite, task=task, state=state, max_steps=max_steps
            )
            instruction = robot.begin(request)
            outcome = Client(robot, eyes).carry_out(instruction)
            end = robot.end()
            seconds = round(time.monotonic() - started, 2)
            yield task, state, Ended(outcome, end.succeeded, end.steps, seconds)


@contextmanager
def _processes(model: str) -> Iterator[tuple[Node, SimulatedRobot]]:
    """The two processes in a ROS domain of their own, and the client's node."""
    with isolated_environment() as isolation, tempfile.TemporaryDirectory() as folder:
        os.environ.update(isolation)  # before rclpy starts in this process
        logs = Path(folder)
        env = {**os.environ, **CAMERA_ENVIRONMENT}
        segzero = [sys.executable, "-m", "segzero_ros.main", "--ros-args", "-p", f"model:={model}"]
        arm = [sys.executable, "-m", "examples.pick_and_place.ros.panda_node"]
        processes = [
            NodeProcess(segzero, env, logs / "segzero.log"),
            NodeProcess(arm, env, logs / "robot.log"),
        ]
        context = rclpy.Context()
        rclpy.init(context=context)
        node = Node("pick_and_place", context=context)
        ready = threading.Event()

        def hear(status: Status) -> None:
            if status.state == Status.READY:
                ready.set()

        node.create_subscription(Status, "/segzero/status", hear, qos.LATCHED)
        robot = SimulatedRobot(node, patience_s=PATIENCE_S)
        spinner = ExecutorThread(node)
        try:
            _wait_for(ready, processes[0])
            yield node, robot
        finally:
            spinner.stop()
            for process in processes:
                process.end()
            node.destroy_node()
            rclpy.try_shutdown(context=context)


def _wait_for(ready: threading.Event, segzero: NodeProcess) -> None:
    end_s = time.monotonic() + LOAD_TIMEOUT_S
    while not ready.wait(1.0):
        if segzero.has_ended or time.monotonic() > end_s:
            raise RobotError(f"the segzero node is not ready; it said:\n{segzero.last_lines()}")
