"""The node as a process: how it starts, how it is told to end, and with which exit code."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Final, NoReturn

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions

from segzero_core.errors import ConfigError
from segzero_ros.executor import Spinner
from segzero_ros.node import SegZeroNode, load_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segzero_core.config import NodeConfig
    from segzero_ros.queries.answer import Pipeline

MAX_FAULTS: Final = 20
FAULT_WINDOW_S: Final = 10.0


class FaultFilter:
    """Decides whether the node goes on after an exception that came through the executor.

    Our own callbacks catch theirs. What is left comes from rclpy, such as a response to a client
    that went away, and is no reason to stop; unless there is no end of it.

    Args:
        log: Called with what happened.
        ends: Told the exception that ends the node.
    """

    def __init__(
        self, log: Callable[[str], object], ends: queue.SimpleQueue[BaseException | None]
    ) -> None:
        self._log = log
        self._ends = ends
        self._times_s: deque[float] = deque(maxlen=MAX_FAULTS)

    def __call__(self, error: BaseException) -> bool:
        """Take note of an exception and say whether to go on."""
        now_s = time.monotonic()
        self._times_s.append(now_s)
        often = len(self._times_s) == MAX_FAULTS and now_s - self._times_s[0] < FAULT_WINDOW_S
        if often or isinstance(error, ExternalShutdownException):
            self._ends.put(error)
            return False
        self._log(f"in the executor: {''.join(traceback.format_exception(error))}")
        return True


def main(
    args: Sequence[str] | None = None, load: Callable[[NodeConfig], Pipeline] = load_pipeline
) -> int:
    """Run the node until it is interrupted.

    Args:
        args: The command line; None takes the process's own.
        load: Makes the pipeline, in place of the model that the parameters name.

    Returns:
        0 after an interrupt, 2 when an argument or a parameter is not allowed.
    """
    logging.captureWarnings(capture=True)
    ends = _notice_signals()
    try:
        _init(args)
        node = SegZeroNode(load)
    except (ConfigError, rclpy.exceptions.ParameterException) as error:
        print(f"segzero: {' '.join(str(error).split())}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    spinner = Spinner(node, on_error=FaultFilter(node.get_logger().error, ends))
    end = ends.get()
    node.close()
    spinner.stop()
    node.destroy_node()
    rclpy.try_shutdown()
    if end is not None:
        raise end
    return 0


def _init(args: Sequence[str] | None) -> None:
    """Let ROS read the command line.

    Raises:
        ConfigError: It cannot, or the middleware does not start.
    """
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # the root of rclpy's own errors
        raise ConfigError(f"ROS cannot start with these arguments: {error}") from error


def _notice_signals() -> queue.SimpleQueue[BaseException | None]:
    """Put None into the queue that is returned whenever the process is told to end.

    In place of rclpy's handlers. Those raise KeyboardInterrupt at any line, also before there is
    somebody to catch it and while the node is being closed (a terminal and `ros2 launch` both
    send the interrupt); they lose a SIGTERM that comes while the executor is about to wait; and
    they end the context first, so that a query that waits could not be answered any more.
    """
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ends.put(None))
    return ends


def run_process(load: Callable[[NodeConfig], Pipeline] = load_pipeline) -> NoReturn:
    """Run `main` with the process's own arguments, and end the process at once.

    The interpreter's own end takes torch down object by object: many seconds on a busy machine,
    while `ros2 launch` kills a node five seconds after the interrupt. It must not happen at all
    while a thread is inside a load that cannot be interrupted.
    """
    code = main(load=load)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run_process()
