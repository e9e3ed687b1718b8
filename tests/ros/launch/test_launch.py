"""The launch files, where `launch` is installed: start, namespace, two nodes, clean end."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segzero_ros.msg import Status

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 120.0
MISSING = [name for name in ("launch", "launch_ros") if importlib.util.find_spec(name) is None]
if not shutil.which("ros2"):
    MISSING.append("the command ros2")

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture
def launch() -> Iterator[Callable[..., subprocess.Popen]]:
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        command = ["ros2", "launch", str(ROOT / "launch" / "segzero.launch.py"), *arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHON": sys.executable},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=TIMEOUT_S)


def listen(client: Any, topic: str) -> None:
    from segzero_ros import qos

    client.node.create_subscription(
        Status, topic, lambda msg: client.heard.add(topic, msg), qos.LATCHED
    )


def test_two_nodes_start_under_their_names_and_end_with_exit_code_0(
    launch: Callable[..., subprocess.Popen], client: Any
) -> None:
    processes = {}
    for name in ("left", "right"):
        topic = f"/robot/{name}/status"
        listen(client, topic)
        processes[topic] = launch("namespace:=robot", f"name:={name}", f"image_topic:=/{name}")
    for topic, process in processes.items():
        client.heard.wait(topic, lambda msg: msg.state == Status.READY, TIMEOUT_S)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, output
        assert "process has finished cleanly" in output
    assert client.node.count_subscribers("/left") <= 1


def test_autostart_can_be_left_to_a_manager(
    launch: Callable[..., subprocess.Popen], client: Any
) -> None:
    listen(client, "/segzero/status")
    launch("autostart:=false")
    reported = client.heard.wait("/segzero/status", timeout_s=TIMEOUT_S)
    assert reported.state == Status.UNCONFIGURED
