"""Distributes work among processes of `accelerate launch`, or among new processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

Result = TypeVar("Result")

# The first to be done waits for the last; a day is longer than any evaluation.
_WAIT = timedelta(days=1)


def is_launched() -> bool:
    """Whether this is one of several processes that were launched together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the one that prints."""
    return int(os.environ.get("RANK", "0")) == 0


def among_launched(work: Callable[[int, int, str], Result], device: str) -> list[Result]:
    """Do this process's share, and return those of all processes, in every process.

    Args:
        work: Called with the number of this process, how many there are, and its torch device.
        device: `cpu` keeps to the processors; else each process has a GPU, where there are any.

    Raises:
        Exception: The error of the first process that failed, raised in every process. The others
            would otherwise wait for a result that never comes.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=_WAIT)
    try:
        outcome = _outcome(work, state.process_index, state.num_processes, str(state.device))
        outcomes = gather_object([outcome])
    finally:
        state.destroy_process_group()
    for outcome in outcomes:
        if isinstance(outcome, _Failure):
            raise outcome.error
    return outcomes


@dataclass(frozen=True)
class _Failure:
    """An error in place of a result."""

    error: Exception


def _outcome(
    work: Callable[[int, int, str], Result], rank: int, count: int, device: str
) -> Result | _Failure:
    try:
        return work(rank, count, device)
    except Exception as error:
        error.add_note(f"in process {rank} of {count}:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error of a library may not survive the way to another process
            return _Failure(RuntimeError(f"process {rank}: {type(error).__name__}: {error}"))
        return _Failure(error)


def among_new(work: Callable[[Any, int, int], Result], argument: Any, count: int) -> list[Result]:
    """Do the work in new processes, each on one core, and return all results.

    `work` is of a module; it gets the argument, the number of the process, and the count.
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
