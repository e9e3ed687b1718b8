"""Goals and services that are waited for, though never forever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node

_GONE_S: Final = 2.0
"""A server that is not to be seen for so long has ended."""
_CANCEL_S: Final = 5.0
_LOOK_S: Final = 0.25
_SPIN_S: Final = 30.0


class NoAnswerError(Exception):
    """Nobody answered; the message says who and how."""


def wait(future: Any, timeout_s: float) -> bool:
    """Wait for a future while its node spins elsewhere; whether it is done."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    return future.done() or done.wait(timeout_s)


def in_spinner(node: Node, job: Callable[[], Any]) -> Any:
    """Do something in the thread that spins a node, and return what it returns.

    An action client that sends from another thread loses a response that comes at once.
    """
    assert node.executor is not None
    task = node.executor.create_task(job)
    if not wait(task, _SPIN_S):
        raise NoAnswerError("this process does not spin its node")
    return task.result()


def run_goal(
    node: Node,
    client: ActionClient,
    goal: Any,
    who: str,
    patience_s: float,
    on_feedback: Callable[[Any], object] = lambda _: None,
) -> Any:
    """Send a goal, wait for its end, and return its result.

    Args:
        node: Spins in another thread.
        client: Of the action.
        goal: The goal.
        who: The server, for messages.
        patience_s: For the server to be there, to take the goal, and without any feedback.
        on_feedback: Called with every feedback, in the thread that spins.

    Raises:
        NoAnswerError: It is not there, takes no goal, ended, or is silent; a goal that was sent
            is cancelled.
    """
    heard_s = time.monotonic()

    def hear(msg: Any) -> None:
        nonlocal heard_s
        heard_s = time.monotonic()
        on_feedback(msg.feedback)

    if not client.wait_for_server(timeout_sec=patience_s):
        raise NoAnswerError(f"{who} is not there; is it started, and in this ROS_DOMAIN_ID?")
    sent = in_spinner(node, lambda: client.send_goal_async(goal, feedback_callback=hear))
    if not wait(sent, patience_s):
        sent.add_done_callback(lambda future: future.result().cancel_goal_async())
        raise NoAnswerError(f"{who} did not take a goal within {patience_s:g} s")
    handle = sent.result()
    if not handle.accepted:
        raise NoAnswerError(f"{who} does not take the goal")
    result = in_spinner(node, handle.get_result_async)
    heard_s = seen_s = time.monotonic()
    try:
        while not wait(result, _LOOK_S):
            now_s = time.monotonic()
            seen_s = now_s if client.server_is_ready() else seen_s
            if now_s - seen_s > _GONE_S:
                raise NoAnswerError(f"{who} has ended before it was done")
            if now_s - heard_s > patience_s:
                raise NoAnswerError(f"{who} said nothing for {patience_s:g} s")
    except BaseException:  # also Ctrl-C: nobody waits for it any more
        wait(in_spinner(node, handle.cancel_goal_async), _CANCEL_S)
        raise
    if result.result().status == GoalStatus.STATUS_UNKNOWN:
        raise NoAnswerError(f"{who} does not know the goal any more; was it restarted?")
    return result.result().result


def call(client: Any, request: Any, who: str, patience_s: float, answer_s: float) -> Any:
    """Call a service and return its response.

    Args:
        client: Of the service; its node spins elsewhere.
        request: The request.
        who: The server, for messages.
        patience_s: For the server to be there.
        answer_s: For its answer.

    Raises:
        NoAnswerError: It is not there or does not answer.
    """
    if not client.wait_for_service(timeout_sec=patience_s):
        raise NoAnswerError(f"{who} is not there; is it started, and in this ROS_DOMAIN_ID?")
    future = client.call_async(request)
    if not wait(future, answer_s):
        raise NoAnswerError(f"{who} did not answer within {answer_s:g} s")
    return future.result()
