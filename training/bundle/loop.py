"""The training loop that the bundled segmenter and its tracker share.

A run is planned in minutes: the learning rate rises, then falls along a cosine until the time is
over. A stopped run goes on from its last checkpoint. The averaged weights are validated now and
then, and exported when no exported weights of the same run had a higher score. The score stands
in the exported weights file itself, so that a crash between an export and the next checkpoint
cannot make the run forget it.
"""

from __future__ import annotations

import json
import math
import secrets
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import torch
from safetensors import safe_open

from segzero_core.files import write_atomically
from training.arguments import option

CHECKPOINT: Final = "checkpoint.pt"
LOG: Final = "log.jsonl"
LOG_EVERY: Final = 25
WEIGHTS_FILE: Final = "model.safetensors"

Metadata = dict[str, str]
"""What an export writes into the header of its weights file: the run, and its score."""


@dataclass(frozen=True)
class LoopSettings:
    """Settings of any run; a subclass adds those of the model. Saved beside the checkpoint.

    The fields are options of the commands. The learning rate falls to nothing in `minutes`.
    """

    minutes: float = option(60.0, "length of the run")
    learning_rate: float = option(1e-3, "its peak")
    warmup: float = option(0.03, "share of the time in which the learning rate rises")
    weight_decay: float = option(0.0, "of AdamW")
    ema: float = option(0.99, "decay of the averaged weights per step; these are exported")
    seed: int = option(0, "of weights, order, augmentation and prompts")
    checkpoint_minutes: float = option(3.0, "time between checkpoints")
    validate_minutes: float = option(10.0, "time between validations")
    max_steps: int = option(0, "stop after this many steps; 0 for no limit")

    def learning_rate_at(self, progress: float) -> float:
        """Rise linearly, then fall along a cosine to a hundredth of the peak.

        `progress` is the share of the planned time that is over.
        """
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        fall = min(1.0, (progress - self.warmup) / (1 - self.warmup))
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


@dataclass
class Run:
    """State of a training: the model, its average, the optimizer, and how far they are."""

    model: Any
    average: Any
    optimizer: torch.optim.Optimizer
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    step: int = 0
    seconds: float = 0.0
    images: int = 0
    best_score: float = 0.0
    metrics: dict[str, list[float]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "counters": (self.id, self.step, self.seconds, self.images),
        }
        write_atomically(path, lambda file: torch.save(state, file))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
        self.id, self.step, self.seconds, self.images = state["counters"]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate; a group of parameters with a `share` gets that share of it."""
        for group in self.optimizer.param_groups:
            group["lr"] = group.get("share", 1.0) * rate

    def descend(
        self, loss: torch.Tensor, metrics: dict[str, float], ema: float, images: int = 0
    ) -> None:
        """Take one optimizer step, move the averaged weights, and note the step's metrics.

        A loss whose gradients have no finite norm is left out. `ema` is the decay of the averaged
        weights, less in the first steps; `images` is how many the step learned from.
        """
        self.images += images
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            [p for p in self.model.parameters() if p.grad is not None], 1.0
        )
        self.step += 1
        if torch.isfinite(norm):
            self.optimizer.step()
            decay = min(ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
                for slow, fast in pairs:
                    if fast.requires_grad:
                        slow.lerp_(fast, 1 - decay)
        for name, value in {**metrics, "loss": float(loss.detach()), "norm": float(norm)}.items():
            self.metrics.setdefault(name, []).append(value)


class HasStart(Protocol):
    """A part of a run; `start` is the share of the time from which on it applies."""

    @property
    def start(self) -> float: ...  # noqa: D102 - see the class


Phase = TypeVar("Phase", bound=HasStart)
Item = TypeVar("Item")


def phase_at(phases: tuple[Phase, ...], progress: float) -> Phase:
    """Return the last phase that has begun at a share of the time."""
    return [phase for phase in phases if progress >= phase.start][-1]


def parse_phases(text: str, kind: Callable[..., Phase]) -> tuple[Phase, ...]:
    """Read phases from the command line, such as `0:256:6,0.5:512:4`."""
    entries = (entry.split(":") for entry in text.split(","))
    return tuple(kind(float(start), *map(int, rest)) for start, *rest in entries)


def prefetched(source: Iterator[Item]) -> Generator[Item, None, None]:
    """Make the next item of an endless source in a thread while the last one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, source)
        while True:
            ready, waiting = waiting.result(), pool.submit(next, source)
            yield ready


def exported_score(out: Path, run_id: str) -> float:
    """Return the score of the weights that a run has exported; 0 where there are none of it."""
    path = out / WEIGHTS_FILE
    if not path.is_file():
        return 0.0
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    return float(metadata["score"]) if metadata.get("run") == run_id else 0.0


@dataclass(frozen=True)
class Loop:
    """A training from its first step, or its last checkpoint, to the end of the planned time."""

    run: Run  # the model with its optimizer, as it begins
    settings: LoopSettings  # how long, and how fast
    work: Path  # folder of checkpoint and log
    out: Path  # folder of the exported weights
    # Takes one step at a share of the time; returns what the log says beside the metrics.
    step: Callable[[float], dict[str, Any]]
    # Measures the averaged weights; `score` is what is to be maximized. None: every export
    # replaces the one before.
    validate: Callable[[], dict[str, float]] | None
    # Writes the averaged weights to `out`, with metadata in the weights file.
    export: Callable[[Metadata], None]
    # Prepares a fresh run, whose weights are then exported at once; returns what the log says.
    begin: Callable[[], dict[str, Any]] | None = None
    clock: Callable[[], float] = time.monotonic  # measures the time [s]

    def __call__(self) -> Run:
        """Train; see the class."""
        run, settings = self.run, self.settings
        checkpoint = self.work / CHECKPOINT
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "settings.json").write_text(json.dumps(asdict(settings), indent=1))
        if checkpoint.exists():
            run.load(checkpoint)
            run.best_score = exported_score(self.out, run.id)
            self._log("resumed")
        else:
            begun = self.begin() if self.begin else None
            run.save(checkpoint)  # from here on, a crash resumes this run
            if begun is not None:
                self._log("begun", **begun)
                self._validate_and_export()
        saved = validated = run.seconds
        while run.seconds < settings.minutes * 60 and not 0 < settings.max_steps <= run.step:
            started = self.clock()
            progress = run.seconds / 60 / settings.minutes
            noted = self.step(progress)
            run.seconds += self.clock() - started
            if run.step % LOG_EVERY == 0:
                means = {name: float(np.mean(values)) for name, values in run.metrics.items()}
                run.metrics.clear()
                self._log("train", **noted, lr=settings.learning_rate_at(progress), **means)
            if run.seconds - saved > settings.checkpoint_minutes * 60:
                run.save(checkpoint)
                saved = run.seconds
            if run.seconds - validated > settings.validate_minutes * 60:
                self._validate_and_export()
                validated = run.seconds
        run.save(checkpoint)
        self._validate_and_export()
        return run

    def _validate_and_export(self) -> None:
        """Export the averaged weights unless exported ones of this run had a higher score."""
        metrics = self.validate() if self.validate else {}
        score = metrics.get("score", 0.0)
        better = self.validate is None or score >= self.run.best_score
        if metrics:
            self._log("validation", exported=better, **metrics)
        if better:
            self.export({"run": self.run.id, "score": repr(score)})
            self.run.best_score = score

    def _log(self, kind: str, **values: Any) -> None:
        """Append one JSON object to the log, and print it."""
        rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
        row = {
            "kind": kind,
            "step": self.run.step,
            "minutes": round(self.run.seconds / 60, 2),
            "pictures": self.run.images,  # the key of the committed logs
        }
        line = json.dumps({**row, **rounded})
        with (self.work / LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)
