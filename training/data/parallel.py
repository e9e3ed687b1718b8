"""Applies a function in several processes; results come in the order of the items."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from segzero_core.errors import OutOfMemoryError

Item = TypeVar("Item")
Result = TypeVar("Result")

# So many items per process are under way at once: nobody waits, and little memory is taken.
_AHEAD_PER_PROCESS = 8


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    processes: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Apply a function of a module to items in fresh processes; items are read only as needed.

    `start` is called with `arguments` once in each process, before anything else.

    Raises:
        OutOfMemoryError: A process died, which is what happens when memory runs out.
    """
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _start, (start, arguments))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= processes * _AHEAD_PER_PROCESS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OutOfMemoryError(
            "a worker process died, most likely for want of memory; use fewer (--processes)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches every process of the terminal; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if start is not None:
        start(*arguments)
