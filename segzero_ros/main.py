"""Runs the node as a process: start, signals and exit code."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeAlias

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions

from segzero_core.errors import ConfigError
from segzero_ros.diagnostics.memory import limit_heaps
from segzero_ros.executor import ExecutorThread
from segzero_ros.node import SegZeroNode
from segzero_ros.parameters import NodeConfig
from segzero_ros.queries.answer import Pipeline, load_pipeline

EXIT_WRONG_ARGUMENT: Final = 2
EXIT_HANG: Final = 3
MAX_FAULTS: Final = 20
FAULT_WINDOW_S: Final = 10.0

End: TypeAlias = "queue.SimpleQueue[BaseException | int]"
"""What ends the process: an exit code, or an exception to raise."""


def main(
    args: Sequence[str] | None = None, load: Callable[[NodeConfig], Pipeline] = load_pipeline
) -> int:
    """Run the node until it is interrupted, with the process's own or other arguments.

    `load` makes the pipeline, in place of the model that the parameters name. Returns 0 after an
    interrupt, 2 when an argument or a parameter is not allowed, 3 when the model hangs and
    `exit_on_hang` is set.
    """
    limit_heaps()
    logging.captureWarnings(capture=True)
    ends: End = queue.SimpleQueue()
    # In place of rclpy's handlers. Those raise KeyboardInterrupt at any line, also before there is
    # somebody to catch it and while the node is being closed (a terminal and `ros2 launch` both
    # send the interrupt); they lose a SIGTERM that comes while the executor is about to wait; and
    # they end the context first, so that a query that waits could not be answered any more.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ends.put(0))
    try:
        try:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:  # the root of rclpy's own errors
            raise ConfigError(f"ROS cannot start with these arguments: {error}") from error
        node = SegZeroNode(load, lambda _: ends.put(EXIT_HANG))
    except (ConfigError, rclpy.exceptions.ParameterException) as error:
        print(f"segzero: {' '.join(str(error).split())}", file=sys.stderr)
        rclpy.try_shutdown()
        return EXIT_WRONG_ARGUMENT
    executor = ExecutorThread(node, on_error=_fault_filter(node.get_logger().error, ends))
    end = ends.get()
    node.close()
    executor.stop()
    node.destroy_node()
    rclpy.try_shutdown()
    if isinstance(end, BaseException):
        raise end
    return end


def _fault_filter(log: Callable[[str], object], ends: End) -> Callable[[BaseException], bool]:
    """Return what decides whether the node goes on after an exception in the executor.

    Our own callbacks catch theirs. What is left comes from rclpy, such as a response to a client
    that went away, and is no reason to stop, unless it happens again and again.
    """
    times_s: deque[float] = deque(maxlen=MAX_FAULTS)

    def goes_on(error: BaseException) -> bool:
        times_s.append(time.monotonic())
        is_often = len(times_s) == MAX_FAULTS and times_s[-1] - times_s[0] < FAULT_WINDOW_S
        if is_often or isinstance(error, ExternalShutdownException):
            ends.put(error)
            return False
        log(f"in the executor: {''.join(traceback.format_exception(error))}")
        return True

    return goes_on


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
