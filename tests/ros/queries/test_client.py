"""`ask` as a person uses it, against a node in this process: what it writes and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rclpy.action import ActionServer
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from segzero_core.testing.fakes import ScriptedReasoner, fake_segzero
from segzero_ros import qos
from segzero_ros.action import Segment
from segzero_ros.msg import SegmentationResult, Status
from tests.ros.scripted import NOTHING, SIZE_WH, THINKING, TWO_OBJECTS, pipeline_of

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 60.0


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "segzero_ros.client", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets its background jobs, and so these tests, ignore an interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ask(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    output, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output, errors


@pytest.mark.parametrize(
    ("reply", "query", "code", "said"),
    [
        pytest.param(TWO_OBJECTS, "all mugs", 0, "2: box [50, 60, 90, 95]", id="found"),
        pytest.param(TWO_OBJECTS, "the mug", 0, "ambiguous: ", id="ambiguous"),
        pytest.param(NOTHING, "all fruit", 1, "nothing matches", id="nothing"),
        pytest.param("prose", "all mugs", 2, "error 5: ", id="failed"),
    ],
)
def test_the_exit_code_tells_what_came(
    start_node: Callable[..., Any], client: Any, reply: str, query: str, code: int, said: str
) -> None:
    node = start_node(fake_segzero(reply), max_image_age_s=0.0)  # the command may start slowly
    client.send_image(node, SIZE_WH)
    ended, output, errors = ask(query)
    assert ended == code, errors
    assert said in output + errors
    assert "Traceback" not in errors
    if code == 0:
        assert output.startswith(THINKING)


def test_a_refused_query_is_reported_with_the_state_of_the_node(
    start_node: Callable[..., Any],
) -> None:
    start_node(fake_segzero(TWO_OBJECTS), autostart=False)
    code, _, errors = ask("the mug")
    assert (code, errors.count("\n")) == (2, 1)
    assert "not configured" in errors


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(("the mug", "--patience", "0.5"), "no node /segzero", id="no node"),
        pytest.param(("the mug</answer>",), "query: ", id="markup"),
        pytest.param(("the mug", "--patience", "nan"), "expected 0 to", id="patience"),
        pytest.param(("the mug", "--timeout", "1e10"), "expected 0 to", id="timeout"),
        pytest.param(("the mug", "--node", "bad name"), "no full name", id="name"),
        pytest.param(("the mug", "--ros-args", "-r", "x"), "ROS cannot start", id="ROS"),
    ],
)
def test_what_cannot_be_asked_is_reported_in_one_line(
    arguments: tuple[str, ...], complaint: str
) -> None:
    code, output, errors = ask(*arguments)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert complaint in errors


def test_it_ends_when_the_node_does(graph: Any, start_node: Callable[..., Any]) -> None:
    """As after a `kill -9`, when no word comes any more."""
    asked = threading.Event()
    server = Node("gone", context=graph.context)
    group = ReentrantCallbackGroup()

    async def never(handle: Any) -> None:
        asked.set()
        await Future(executor=server.executor)

    actions = ActionServer(server, Segment, "/gone/segment", never, callback_group=group)
    status = server.create_publisher(Status, "/gone/status", qos.LATCHED)
    status.publish(Status(state=Status.READY))
    graph.spin(server)
    process = start("the mug", "--node", "/gone")
    assert asked.wait(TIMEOUT_S)
    actions.destroy()
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (2, "ask: /gone has ended before it answered\n")


def test_control_characters_of_a_model_do_not_reach_the_terminal(
    start_node: Callable[..., Any], client: Any
) -> None:
    node = start_node(fake_segzero(TWO_OBJECTS.replace("a red", "a \x1b[2J\x9b red")))
    client.send_image(node, SIZE_WH)
    code, output, errors = ask("all mugs")
    assert code == 0, errors
    assert "a \ufffd[2J\ufffd red mug" in output


def test_an_interrupt_cancels_the_query(start_node: Callable[..., Any], client: Any) -> None:
    reasoner = ScriptedReasoner(TWO_OBJECTS, delay_s=5.0)
    node = start_node(pipeline_of(reasoner), max_image_age_s=0.0)
    client.send_image(node, SIZE_WH)
    process = start("the mug")
    client.heard.wait("status", lambda msg: msg.state == Status.BUSY)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, errors
    assert client.heard.wait("result").error_code == SegmentationResult.CANCELLED
