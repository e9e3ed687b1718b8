"""Limits the wall-clock or processor time of a run, summed over its interruptions.

The wall clock is what most runs are limited by. Processor time does not depend on what else the
machine does, so that runs on a shared CPU can be given equal shares; it adds up all threads of
this process and knows nothing of a GPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WALL: Final = "wall_s"
PROCESSOR: Final = "processor_s"
"""Keys of a row of the metrics: what the run has spent until then [s]."""


class TimeBudget(TrainerCallback):
    """Ends a run, with a checkpoint, at the first step after one of its limits.

    The limits are by `WALL` and `PROCESSOR` [s]; 0 is none. The last row of `metrics` holds what
    was spent before this process.
    """

    def __init__(self, metrics: Path, limits_s: Mapping[str, float]) -> None:
        self._limits_s = limits_s
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
        rows = [json.loads(line) for line in lines]
        self._begin_s = {
            key: now_s - max((row.get(key, 0.0) for row in rows), default=0.0)
            for key, now_s in self._now_s().items()
        }

    @staticmethod
    def _now_s() -> dict[str, float]:
        return {WALL: time.monotonic(), PROCESSOR: time.process_time()}

    def spent_s(self) -> dict[str, float]:
        """What the whole run has spent so far, by `WALL` and `PROCESSOR` [s]."""
        return {key: now - self._begin_s[key] for key, now in self._now_s().items()}

    def is_spent(self) -> bool:
        """Whether one of the limits is reached."""
        spent_s = self.spent_s()
        return any(0 < limit_s <= spent_s[key] for key, limit_s in self._limits_s.items())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop where the time is over."""
        if self.is_spent():
            control.should_training_stop = True
            control.should_save = True
