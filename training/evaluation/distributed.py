"""Work shared among processes that `accelerate launch` started, or among new ones."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from segzero_core.errors import SegZeroError

Result = TypeVar("Result")

# The first to be done waits for the last; a day is longer than any evaluation.
_WAIT = timedelta(days=1)


def is_launched() -> bool:
    """Say whether this is one of several processes that were launched together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Say whether this process is the one that speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def among_launched(work: Callable[[int, int, str], Result], device: str) -> list[Result]:
    """Do this process's share, and bring the shares of all processes together.

    Args:
        work: Called with the number of this process, how many there are, and its torch device.
        device: `cpu` keeps to the processors; else each process has a GPU, where there are any.

    Returns:
        The results of all processes, in every process.

    Raises:
        SegZeroError: A process failed; the same error in all of them, so that none waits.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=_WAIT)
    try:
        place = state.process_index, state.num_processes, str(state.device)
        outcomes: list[Result | SegZeroError] = gather_object([_result_or_error(work, *place)])
    finally:
        state.destroy_process_group()
    results = []
    for outcome in outcomes:
        if isinstance(outcome, SegZeroError):
            raise outcome
        results.append(outcome)
    return results


def _result_or_error(
    work: Callable[[int, int, str], Result], rank: int, count: int, device: str
) -> Result | SegZeroError:
    try:
        return work(rank, count, device)
    except SegZeroError as error:
        return error


def among_new(work: Callable[[Any, int, int], Result], argument: Any, count: int) -> list[Result]:
    """Do the work in new processes, each on one core.

    Args:
        work: Of a module; called with the argument, the number of the process, and the count.
        argument: Can be pickled.
        count: How many processes.

    Returns:
        The results of all processes.
    """
    shares = [(work, argument, rank, count) for rank in range(count)]
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        return pool.starmap(_on_one_core, shares)


def _on_one_core(
    work: Callable[[Any, int, int], Result], argument: Any, rank: int, count: int
) -> Result:
    import torch

    torch.set_num_threads(1)
    return work(argument, rank, count)
