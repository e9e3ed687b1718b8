"""How much processor time a run has had, so that runs can be given equal shares.

Time on the clock depends on what else the machine does; the processor time of the process does
not. It is counted over interruptions: each row of the metrics holds what was spent until then.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SPENT = "processor_s"
"""Key of a row of the metrics."""


class ProcessorClock:
    """Counts the processor time of this process from now on [s].

    Args:
        before_s: What the run had spent before it was cut off.
    """

    def __init__(self, before_s: float = 0.0) -> None:
        self._begin_s = time.process_time() - before_s

    def spent_s(self) -> float:
        """Processor time of the whole run so far [s]; threads add up."""
        return time.process_time() - self._begin_s


def spent_before_s(metrics: Path) -> float:
    """Read what a run had spent at the last row of its metrics [s]; 0 where there is none."""
    if not metrics.is_file():
        return 0.0
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return max((float(row.get(SPENT, 0.0)) for row in rows), default=0.0)


class StopInTime(TrainerCallback):
    """Ends a run, with a checkpoint, at the first step after its time is spent."""

    def __init__(self, clock: ProcessorClock, limit_s: float) -> None:
        self._clock, self._limit_s = clock, limit_s

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at the clock."""
        if self._clock.spent_s() >= self._limit_s:
            control.should_training_stop = True
            control.should_save = True
