"""The thread that spins a node: how it ends."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.node import Node

from segzero_ros.executor import ExecutorThread

TIMEOUT_S = 30.0


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("spun", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_node_that_has_nothing_to_do_stops(node: Node) -> None:
    spinner = ExecutorThread(node)
    stopping = threading.Thread(target=spinner.stop, daemon=True)
    stopping.start()
    stopping.join(TIMEOUT_S)
    assert not stopping.is_alive()


def test_a_busy_node_stops_and_its_thread_is_gone(node: Node) -> None:
    ticks: queue.SimpleQueue[int] = queue.SimpleQueue()
    node.create_timer(0.001, lambda: ticks.put(1))
    spinner = ExecutorThread(node)
    ticks.get(timeout=TIMEOUT_S)
    spinner.stop()
    assert not any(thread.name == "spin-spun" for thread in threading.enumerate())


def test_what_a_callback_raises_is_handed_on(node: Node) -> None:
    def broken() -> None:
        raise ValueError("a defect")

    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    node.create_timer(0.001, broken)
    spinner = ExecutorThread(node, on_error=errors.put)
    assert str(errors.get(timeout=TIMEOUT_S)) == "a defect"
    spinner.stop()


def test_a_job_is_done_in_the_spinning_thread(node: Node) -> None:
    spinner = ExecutorThread(node)
    assert spinner.do(lambda: threading.current_thread().name) == "spin-spun"
    assert spinner.do(lambda: spinner.do(lambda: "inside")) == "inside"

    def broken() -> None:
        raise ValueError("a defect of the job")

    with pytest.raises(ValueError, match="a defect of the job"):
        spinner.do(broken)
    assert spinner.do(lambda: 1) == 1  # the thread has outlived it
    spinner.stop()
    with pytest.raises(RuntimeError, match="has ended"):
        spinner.do(lambda: 1)
