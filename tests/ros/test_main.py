"""The node as a process: how it starts, is stopped, and says what is wrong with its parameters."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segzero_ros.msg import SegmentationResult, Status

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0


@pytest.fixture
def start_process() -> Iterator[Callable[..., subprocess.Popen]]:
    started = []

    def start(
        *arguments: str, how: tuple[str, str] = ("-m", "segzero_ros.main")
    ) -> subprocess.Popen:
        command = [sys.executable, *how, "--ros-args", *arguments]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            process.terminate()  # a killed one leaves its shared memory behind
            process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_node_ends_with_exit_code_0(
    start_process: Callable[..., subprocess.Popen], client: Any, sent: signal.Signals
) -> None:
    process = start_process("-p", "model:=/nowhere")
    client.heard.wait("status", lambda msg: msg.state == Status.ERROR, timeout_s=TIMEOUT_S)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_a_node_interrupted_while_it_loads_ends_with_exit_code_0(
    start_process: Callable[..., subprocess.Popen], client: Any
) -> None:
    never = "import threading; from segzero_ros.main import run_process; "
    never += "run_process(lambda config: threading.Event().wait())"
    process = start_process(how=("-c", never))
    client.heard.wait("status", lambda msg: msg.state == Status.LOADING, timeout_s=TIMEOUT_S)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_an_interrupt_that_comes_before_ros_is_ready_is_not_lost(
    start_process: Callable[..., subprocess.Popen],
) -> None:
    early = "import os, signal, rclpy; from segzero_ros import main; init = rclpy.init\n"
    early += "def interrupted(**options):\n"
    early += "    os.kill(os.getpid(), signal.SIGINT); init(**options)\n"
    early += "rclpy.init = interrupted; main.run_process()"
    process = start_process("-p", "model:=/nowhere", how=("-c", early))
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_a_node_interrupted_twice_ends_with_exit_code_0(
    start_process: Callable[..., subprocess.Popen], client: Any
) -> None:
    twice = "import os, signal; from segzero_ros import main, node\n"
    twice += "close = node.SegZeroNode.close\n"
    twice += "def interrupted(self):\n"
    twice += "    os.kill(os.getpid(), signal.SIGINT); return close(self)\n"
    twice += "node.SegZeroNode.close = interrupted; main.run_process()"
    process = start_process("-p", "model:=/nowhere", how=("-c", twice))
    client.heard.wait("status", timeout_s=TIMEOUT_S)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output


SLOW_MODEL = """
from segzero_core.testing.fakes import fake_segzero
from segzero_ros.main import run_process
run_process(lambda config: fake_segzero("<think>It is the first.</think>", delay_s=0.5))
"""


def begun(client: Any, number: int) -> str:
    """Publish a image and ask; return the query's id if it did not come before the image."""
    client.publish_image()
    client.ask("the first")
    reported = client.heard.wait(
        "reasoning", lambda msg: msg.query_id == str(number) and msg.stage != msg.WAITING
    )
    return "" if reported.done else reported.query_id


def test_queries_that_run_and_wait_when_the_node_is_interrupted_are_answered(
    start_process: Callable[..., subprocess.Popen], client: Any
) -> None:
    process = start_process(how=("-c", SLOW_MODEL))
    client.heard.wait("status", lambda msg: msg.state == Status.READY, timeout_s=TIMEOUT_S)
    client.connect()
    first = next(filter(None, (begun(client, number) for number in itertools.count(1))))
    second = str(int(first) + 1)
    client.ask("the second")
    client.heard.wait("reasoning", lambda msg: msg.query_id == second)
    process.send_signal(signal.SIGINT)
    results = {
        query_id: client.heard.wait("result", lambda msg, own=query_id: msg.query_id == own)
        for query_id in (first, second)
    }
    assert results[first].error_code == SegmentationResult.CANCELLED
    assert results[second].error_code == SegmentationResult.INACTIVE


HANGING_MODEL = """
import threading
from segzero_ros.main import run_process
from tests.ros.scripted import GatedReasoner, pipeline_of
run_process(lambda config: pipeline_of(GatedReasoner()))
"""


def test_a_node_whose_model_hangs_can_end_for_a_supervisor_to_start_it_anew(
    start_process: Callable[..., subprocess.Popen], client: Any
) -> None:
    parameters = ("-p", "exit_on_hang:=true", "-p", "stop_grace_s:=0.1", "-p", "timeout_s:=0.5")
    process = start_process(*parameters, how=("-c", HANGING_MODEL))
    client.heard.wait("status", lambda msg: msg.state == Status.READY, timeout_s=TIMEOUT_S)
    client.connect()
    next(filter(None, (begun(client, number) for number in itertools.count(1))))
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 3, output
    assert "did not stop within 0.1 s" in output
    assert client.heard.all("result")[-1].error_code == SegmentationResult.TIMEOUT


@pytest.mark.parametrize(
    ("parameter", "complaint"),
    [
        pytest.param("max_new_tokens:=-1", "max_new_tokens", id="out of range"),
        pytest.param("max_new_tokens:=many", "max_new_tokens", id="another type"),
        pytest.param(
            "image_transport:=theora", "'theora' is none of 'raw', 'compressed'", id="choice"
        ),
        pytest.param("model:=''", "model: it is empty", id="empty"),
        pytest.param(
            "qos_overrides./segzero/result.publisher.depth:=-1", "look at its qos", id="depth"
        ),
        pytest.param("qos_overrides./image.subscription.reliability:=x", "`x`", id="reliability"),
    ],
)
def test_a_wrong_parameter_ends_the_node_at_once_with_one_line(
    start_process: Callable[..., subprocess.Popen], parameter: str, complaint: str
) -> None:
    process = start_process("-p", parameter)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2, output
    assert complaint in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--params-file", "/nowhere.yaml"), id="missing parameter file"),
        pytest.param(("--no-such-option",), id="unknown argument"),
        pytest.param(("-p", "model"), id="parameter without a value"),
    ],
)
def test_arguments_that_ros_cannot_read_are_reported_in_one_line(
    start_process: Callable[..., subprocess.Popen], arguments: tuple[str, ...]
) -> None:
    process = start_process(*arguments)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2, output
    assert "segzero: ROS cannot start with these arguments: " in output
    assert "Traceback" not in output


def test_the_shipped_parameter_file_is_read(
    start_process: Callable[..., subprocess.Popen], client: Any, tmp_path: Path
) -> None:
    changed = tmp_path / "own.yaml"
    text = (ROOT / "config" / "segzero.yaml").read_text()
    changed.write_text(text + '    model: "/a/model/of/ones/own"\n')
    start_process("--params-file", str(changed))
    status = client.heard.wait("status", timeout_s=TIMEOUT_S)
    assert status.model == "/a/model/of/ones/own"
