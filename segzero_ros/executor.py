"""An executor in a thread of its own, which spins a node until it is stopped."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node

Done = TypeVar("Done")
_LOOK_S: Final = 0.5  # how often a waiting thread looks whether the spinning one is still there


def wake(executor: Executor | None) -> None:
    """Have an executor look at its coroutines again; one that has been shut down has none."""
    if executor is not None:
        # What rclpy's own guard condition raises once it is gone.
        with contextlib.suppress(AttributeError, RuntimeError):
            # `wake` would not do: `spin_once` goes back to waiting until it has done some work.
            executor.create_task(lambda: None)


class ExecutorThread:
    """Spins a node in a thread of its own from construction until `stop`.

    rclpy's own way, `Executor.shutdown()` from outside, takes the guard conditions away from a
    thread that may just be about to wait for them. Here the thread leaves first. `on_error` is
    called in the thread with what a callback raised, and says whether to go on. Without it, the
    exception ends the thread and goes to `threading.excepthook`.
    """

    def __init__(
        self, node: Node, on_error: Callable[[BaseException], object] | None = None
    ) -> None:
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._on_error = on_error
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._spin, name=f"spin-{node.get_name()}", daemon=True
        )
        self._thread.start()

    def do(self, job: Callable[[], Done]) -> Done:
        """Do something in the thread that spins the node, and return what it returns.

        rclpy's action clients need it: one that sends from another thread may lose a response
        that comes at once.

        Raises:
            RuntimeError: The thread has ended.
        """
        if threading.current_thread() is self._thread:
            return job()
        done: Future[Done] = Future()

        def run() -> None:
            try:
                done.set_result(job())
            except BaseException as error:  # it is the caller's, not the executor's
                done.set_exception(error)

        with contextlib.suppress(AttributeError, RuntimeError):  # as in `wake`
            self._executor.create_task(run)
        while self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                return done.result(_LOOK_S)
        raise RuntimeError(f"{self._thread.name} has ended; nothing can be done in it")

    def stop(self) -> None:
        """Wait until the callback that runs has returned, and run no further one."""
        self._stopping.set()
        wake(self._executor)
        self._thread.join()
        self._executor.shutdown()

    def _spin(self) -> None:
        while not self._stopping.is_set():
            try:
                self._executor.spin_once()
            except Exception as error:
                if self._on_error is None:
                    raise
                if not self._on_error(error):
                    return
