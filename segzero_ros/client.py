"""Asks the running node a question: `ros2 run segzero_ros ask "the red mug"`.

The thinking is written as it streams. Exit codes: 0 something was found, 1 nothing, 2 it failed,
130 interrupted (the query is cancelled).
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.utilities import remove_ros_args
from rclpy.validate_full_topic_name import validate_full_topic_name

from segzero_core.errors import InputError, printable
from segzero_core.limits import MAX_TIMEOUT_S
from segzero_core.prompt import clean_query
from segzero_ros import qos
from segzero_ros.action import Segment
from segzero_ros.msg import SegmentationResult, Status

FOUND: Final = 0
NOTHING: Final = 1
FAILED: Final = 2
INTERRUPTED: Final = 130
CANCEL_TIMEOUT_S: Final = 5.0
GONE_S: Final = 2.0
"""A server that is not to be seen for this long has ended, without a word where it was killed."""


class AskError(Exception):
    """Why there is no answer, in one line."""


class QueryClient(Node):
    """A client of the action ~/segment of one node; it writes the thinking to the terminal.

    A signal's number in `interrupts` makes `ask` raise KeyboardInterrupt as soon as it is safe.
    """

    def __init__(self, target: str) -> None:
        super().__init__("segzero_ask")
        self._target = target.rstrip("/")
        self._written = 0
        self.interrupts: list[int] = []
        self._status: Status | None = None
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self)
        self._actions = ActionClient(self, Segment, f"{self._target}/segment")
        # After the action client: a node discovers our endpoints in the order in which they were
        # made. A node whose state is received thus knows the action client; a request that is
        # sent earlier would be lost.
        self.create_subscription(Status, f"{self._target}/status", self._on_status, qos.LATCHED)

    def ask(self, query: str, timeout_s: float, patience_s: float) -> SegmentationResult:
        """Ask and wait for the result; the query is cancelled if this is interrupted.

        Raises:
            AskError: The node is not there, or does not take the query.
        """
        if not self._spin_until(
            lambda: self._status is not None and self._actions.server_is_ready(), patience_s
        ):
            raise AskError(
                f"no node {self._target} within {patience_s:g} s; is it started, and in this "
                "ROS_DOMAIN_ID?"
            )
        goal = Segment.Goal(query=query, timeout_s=timeout_s)
        sent = self._actions.send_goal_async(goal, feedback_callback=self._on_feedback)
        try:
            result = self._result_of(sent, patience_s)
            self._wait_for_result(result)
        except KeyboardInterrupt:
            self._cancel(sent)
            raise
        if result.result().status == GoalStatus.STATUS_UNKNOWN:
            raise AskError("the node forgot the query; was it restarted?")
        return result.result().result.result

    def _result_of(self, sent: Future, patience_s: float) -> Future:
        """Wait until the goal is accepted; return the future of its result."""
        if not self._spin_until(sent.done, patience_s):
            raise AskError(f"{self._target} did not answer the goal within {patience_s:g} s")
        handle = sent.result()
        if not handle.accepted:
            assert self._status is not None
            raise AskError(
                f"{self._target} does not take the query; it says: {self._status.detail}"
            )
        return handle.get_result_async()

    def _wait_for_result(self, result: Future) -> None:
        """Wait until there is a result; an AskError when nobody is left who could give it."""
        seen_s = time.monotonic()
        while not self._spin_until(result.done, GONE_S / 4):
            if self._actions.server_is_ready():
                seen_s = time.monotonic()
            elif time.monotonic() - seen_s > GONE_S:
                raise AskError(f"{self._target} has ended before it answered")

    def _cancel(self, sent: Future) -> None:
        """Cancel a goal, also one that is not answered yet: the node may work on it already."""
        if self._spin_until(sent.done, CANCEL_TIMEOUT_S) and sent.result().accepted:
            cancelled = sent.result().cancel_goal_async()
            self._spin_until(cancelled.done, CANCEL_TIMEOUT_S)

    def _on_status(self, msg: Status) -> None:
        self._status = msg

    def _on_feedback(self, msg: Any) -> None:
        thinking = msg.feedback.thinking
        print(printable(thinking[self._written :]), end="", flush=True)
        self._written = len(thinking)

    def _spin_until(self, condition: Callable[[], object], timeout_s: float | None = None) -> bool:
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition():
            if self.interrupts:
                self.interrupts.clear()
                raise KeyboardInterrupt
            if end_s is not None and time.monotonic() > end_s:
                return False
            self._executor.spin_once(timeout_sec=0.1)
        return True


def report(result: SegmentationResult) -> int:
    """Write what was found and return the exit code; an AskError where the query failed."""
    print()
    if result.error_code != SegmentationResult.OK:
        raise AskError(f"error {result.error_code}: {printable(result.error_msg)}")
    for instance in result.instances:
        box = ", ".join(str(int(edge)) for edge in instance.box_xyxy)
        print(f"{instance.id}: box [{box}], {instance.area_px} px, score {instance.score:.2f}")
    if not result.instances:
        print("nothing matches")
    if result.ambiguous:
        print("ambiguous: one object was asked for, and these are near-equal")
    print(f"{result.total_ms / 1000:.1f} s, {result.tokens} tokens, {result.model}")
    return FOUND if result.instances else NOTHING


@contextmanager
def _ros_errors() -> Iterator[None]:
    """Turn the errors of rclpy about its arguments into an `AskError`."""
    try:
        yield
    except RuntimeError as error:  # the root of rclpy's own errors
        raise AskError(f"ROS cannot start: {' '.join(str(error).split())}") from error


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise AskError(f"{message}; see ask --help")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"expected 0 to {MAX_TIMEOUT_S:g} s, got {text}")
    return value


def _node_name(text: str) -> str:
    try:
        validate_full_topic_name(text)
    except Exception as error:  # rclpy's, with a drawing of several lines
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} is no full name of a node: {reason}") from None
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    argv = list(sys.argv if argv is None else ["ask", *argv])
    parser = _Parser(
        prog="ask", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("query", help="what to find")
    parser.add_argument("--node", type=_node_name, default="/segzero", help="the node's full name")
    parser.add_argument(
        "--timeout", type=_seconds, default=0.0, help="for the answer [s]; 0: its own"
    )
    parser.add_argument("--patience", type=_seconds, default=10.0, help="to find the node [s]")
    try:
        with _ros_errors():
            own = remove_ros_args(argv)[1:]
        arguments = parser.parse_args(own)
        clean_query(arguments.query)
        with _ros_errors():
            rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        client = QueryClient(arguments.node)
        # An interrupt that is raised inside of rclpy's compiled code turns into another error.
        signal.signal(signal.SIGINT, lambda number, _: client.interrupts.append(number))
        return report(client.ask(arguments.query, arguments.timeout, arguments.patience))
    except (AskError, InputError) as error:
        print(f"ask: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nask: cancelled", file=sys.stderr)
        return INTERRUPTED
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
