"""Train the bundled segmenter, a small SAM 2, from scratch on rendered tabletop scenes.

    python -m worlds.tabletop.render --seed 0 --count 8000 --out data/train
    python -m worlds.tabletop.render --seed 800000 --count 200 --out data/val
    python -m training.bundle.segmenter.train train --data data/train --val data/val \
        --out models/tabletop/segmenter

The run is planned in minutes, not in steps: the learning rate follows the time spent, and the
pictures grow on the way (coarse ones teach what an object is, the last ones where its edge runs).
Interrupted, the same command goes on from the last checkpoint. Scenes that appear in the folders
meanwhile are picked up at the next pass. The memory modules are built and saved untouched: they
belong to tracking, which trains them later.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.bundle.segmenter.data import (
    MAX_ZOOM,
    Batch,
    SceneCache,
    find_scenes,
    make_batch,
    shuffled,
)
from training.bundle.segmenter.export import export
from training.bundle.segmenter.loss import compute_loss, decode, encode, set_resolution
from training.bundle.segmenter.model import SIZES, build_model, model_config
from training.bundle.segmenter.validation import validate

CHECKPOINT = "checkpoint.pt"
LOG_EVERY = 25


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run; saved beside its checkpoint.

    Attributes:
        size: Name of the architecture in `SIZES`.
        minutes: Training time after which the learning rate has come down to nothing.
        sides: Side of the pictures, from one share of the time on: ((0.0, 256), (0.3, 512)) [px].
        batch_sizes: Pictures a step, for each of `sides`.
        objects: Prompted objects a picture, at most.
        learning_rate: Its peak.
        warmup: Share of the time in which the learning rate rises.
        weight_decay: Of AdamW, on matrices only.
        ema: Decay of the averaged weights a step, which are what is validated and exported.
        seed: Of weights, order, augmentation and prompts.
        checkpoint_minutes: Time between checkpoints.
        validate_minutes: Time between validations; the best weights so far are exported.
        validate_scenes: Scenes of the validation folder to use.
        cache_scenes: Decoded scenes kept in memory (1.2 MB each).
        max_steps: Stop after so many steps all the same; 0 for none.
    """

    size: str = "tabletop"
    minutes: float = 90.0
    sides: tuple[tuple[float, int], ...] = ((0.0, 256), (0.5, 512))
    batch_sizes: tuple[int, ...] = (6, 4)
    objects: int = 6
    learning_rate: float = 1e-3
    warmup: float = 0.03
    weight_decay: float = 0.05
    ema: float = 0.99
    seed: int = 0
    checkpoint_minutes: float = 3.0
    validate_minutes: float = 10.0
    validate_scenes: int = 40
    cache_scenes: int = 3000
    max_steps: int = 0


@dataclass
class Run:
    """What a checkpoint holds: the model, its average, the optimiser, and how far they are."""

    model: Any
    average: Any
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    pictures: int = 0
    best_score: float = 0.0
    figures: dict[str, list[float]] = field(default_factory=dict)


def trained_parameters(model: Any) -> list[torch.nn.Parameter]:
    """Freeze what images never use (the memory modules) and list the rest."""
    used = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
    unused = ("sam_prompt_encoder.mask_downscaling", "image_encoder.neck.position_encoding")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(used) and not name.startswith(unused))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def new_run(settings: Settings) -> Run:
    """Build the model with fixed seeds, and its optimiser."""
    torch.manual_seed(settings.seed)
    model = build_model(model_config(SIZES[settings.size])).train()
    parameters = trained_parameters(model)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)
    return Run(model, copy.deepcopy(model).eval(), optimizer)


def save_run(run: Run, path: Path) -> None:
    """Write a checkpoint so that an interruption leaves the old one whole."""
    state = {
        "model": run.model.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "torch_rng": torch.get_rng_state(),
        **{name: getattr(run, name) for name in ("step", "seconds", "pictures", "best_score")},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_run(run: Run, path: Path) -> None:
    """Go on from a checkpoint."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    run.model.load_state_dict(state["model"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["torch_rng"])
    for name in ("step", "seconds", "pictures", "best_score"):
        setattr(run, name, state[name])


def learning_rate(settings: Settings, progress: float) -> float:
    """Rise in a straight line, then fall along a cosine to a hundredth."""
    if progress < settings.warmup:
        return settings.learning_rate * progress / settings.warmup
    fall = min(1.0, (progress - settings.warmup) / (1 - settings.warmup))
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


def phase(settings: Settings, progress: float) -> tuple[int, int]:
    """Side and batch size at a share of the time."""
    index = max(i for i, (start, _) in enumerate(settings.sides) if progress >= start)
    return settings.sides[index][1], settings.batch_sizes[index]


def max_zoom(settings: Settings, side: int) -> float:
    """How closely pictures are looked at: small ones closer, to show edges as the last ones do."""
    return MAX_ZOOM * math.sqrt(SIZES[settings.size].image_size / side)


def batches(folders: Sequence[Path], settings: Settings, run: Run) -> Iterator[Batch]:
    """Make batches for ever, in the size the run is at; looks for new scenes at every pass."""
    rng = np.random.default_rng((settings.seed, run.step))
    cache = SceneCache(settings.cache_scenes)
    while True:
        scenes = find_scenes(folders)
        if not scenes:
            raise FileNotFoundError(f"no rendered scenes in {', '.join(map(str, folders))}")
        waiting = []
        for folder in shuffled(scenes, rng):
            waiting.append(cache(folder))
            side, size = phase(settings, run.seconds / 60 / settings.minutes)
            if len(waiting) >= min(size, len(scenes)):
                batch = make_batch(waiting, side, settings.objects, rng, max_zoom(settings, side))
                waiting = []
                if batch is not None:
                    yield batch


def train_step(run: Run, batch: Batch, settings: Settings, progress: float) -> None:
    """Learn from one batch, and add what it showed to the run's figures."""
    side = batch.images.shape[-1]
    if run.model.image_size != side:
        set_resolution(run.model, side)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(settings, progress)
    features = encode(run.model, torch.from_numpy(batch.images))
    prediction = decode(
        run.model,
        features,
        torch.from_numpy(batch.picture),
        torch.from_numpy(batch.points),
        torch.from_numpy(batch.labels),
    )
    loss, figures = compute_loss(prediction, batch, torch.from_numpy(batch.instances))
    run.pictures += len(batch.images)
    descend(run, loss, figures, settings.ema)


def descend(run: Run, loss: torch.Tensor, figures: dict[str, float], ema: float) -> None:
    """Take one step down a loss, move the averaged weights, and note the step's figures.

    Args:
        run: Its model's gradients are those of the loss alone afterwards.
        loss: A number with gradients; a step whose gradients are not finite is left out.
        figures: What is noted beside loss and norm.
        ema: Decay of the averaged weights; less at the beginning.
    """
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(
        [p for p in run.model.parameters() if p.grad is not None], 1.0
    )
    run.step += 1
    if torch.isfinite(norm):
        run.optimizer.step()
        _update_average(run, min(ema, (1 + run.step) / (10 + run.step)))
    for name, value in {**figures, "loss": float(loss.detach()), "norm": float(norm)}.items():
        run.figures.setdefault(name, []).append(value)


@torch.no_grad()
def _update_average(run: Run, decay: float) -> None:
    for slow, fast in zip(run.average.parameters(), run.model.parameters(), strict=True):
        if fast.requires_grad:
            slow.lerp_(fast, 1 - decay)


class Journal:
    """Appends one JSON object a line to the log and to the terminal."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def __call__(self, kind: str, run: Run, **figures: Any) -> None:
        """Write one line about where the run is."""
        rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in figures.items()}
        row = {
            "kind": kind,
            "step": run.step,
            "minutes": round(run.seconds / 60, 2),
            "pictures": run.pictures,
        }
        line = json.dumps({**row, **rounded})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)


def train(
    folders: Sequence[Path], val: Path | None, out: Path, work: Path, settings: Settings
) -> Run:
    """Train to the end of the planned time; checkpoints go to `work`, good weights to `out`."""
    run, checkpoint, journal = new_run(settings), work / CHECKPOINT, Journal(work / "log.jsonl")
    if checkpoint.exists():
        load_run(run, checkpoint)
        journal("resumed", run)
    work.mkdir(parents=True, exist_ok=True)
    (work / "settings.json").write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")
    source = batches(folders, settings, run)
    saved = validated = run.seconds
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, source)
        while run.seconds < settings.minutes * 60 and not 0 < settings.max_steps <= run.step:
            started = time.monotonic()
            batch, waiting = waiting.result(), pool.submit(next, source)
            progress = run.seconds / 60 / settings.minutes
            train_step(run, batch, settings, progress)
            run.seconds += time.monotonic() - started
            if run.step % LOG_EVERY == 0:
                figures = {name: float(np.mean(values)) for name, values in run.figures.items()}
                run.figures.clear()
                journal(
                    "train",
                    run,
                    side=batch.images.shape[-1],
                    lr=learning_rate(settings, progress),
                    **figures,
                )
            if run.seconds - saved > settings.checkpoint_minutes * 60:
                save_run(run, checkpoint)
                saved = run.seconds
            if run.seconds - validated > settings.validate_minutes * 60:
                _validate_and_export(run, val, out, settings, journal)
                validated = run.seconds
    save_run(run, checkpoint)
    _validate_and_export(run, val, out, settings, journal)
    return run


def _validate_and_export(
    run: Run, val: Path | None, out: Path, settings: Settings, journal: Journal
) -> None:
    """Export the averaged weights if they are the best so far, or nothing can tell."""
    size = SIZES[settings.size]
    if val is None:
        export(run.average, size, out)
        return
    set_resolution(run.average, size.image_size)
    figures = validate(run.average, find_scenes([val])[: settings.validate_scenes])
    better = figures["score"] >= run.best_score
    journal("validation", run, exported=better, **figures)
    if better:
        run.best_score = figures["score"]
        export(run.average, size, out)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.bundle.segmenter.train", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    defaults = Settings()
    learn = commands.add_parser("train", help="train, or go on training")
    learn.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders of rendered scenes"
    )
    learn.add_argument("--val", type=Path, help="rendered scenes of the validation seeds")
    learn.add_argument("--out", type=Path, required=True, help="where the best weights go")
    learn.add_argument(
        "--work", type=Path, default=Path("runs/segmenter"), help="checkpoints and log"
    )
    learn.add_argument("--size", choices=sorted(SIZES), default=defaults.size)
    learn.add_argument("--minutes", type=float, default=defaults.minutes)
    learn.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    learn.add_argument("--sides", default="0:256:6,0.5:512:4", help="SHARE:SIDE:BATCH,…")
    learn.add_argument("--max-steps", type=int, default=0)
    learn.add_argument("--validate-minutes", type=float, default=defaults.validate_minutes)
    learn.add_argument("--validate-scenes", type=int, default=defaults.validate_scenes)
    learn.add_argument("--seed", type=int, default=defaults.seed)
    learn.add_argument("--threads", type=int, default=1)
    save = commands.add_parser("export", help="export the averaged weights of a checkpoint")
    save.add_argument("--work", type=Path, default=Path("runs/segmenter"))
    save.add_argument("--size", choices=sorted(SIZES), default=defaults.size)
    save.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parse(argv)
    if args.command == "export":
        run = new_run(Settings(size=args.size))
        load_run(run, args.work / CHECKPOINT)
        export(run.average, SIZES[args.size], args.out)
        return 0
    torch.set_num_threads(args.threads)
    phases = [entry.split(":") for entry in args.sides.split(",")]
    settings = Settings(
        size=args.size,
        minutes=args.minutes,
        learning_rate=args.learning_rate,
        sides=tuple((float(start), int(side)) for start, side, _ in phases),
        batch_sizes=tuple(int(size) for *_, size in phases),
        validate_minutes=args.validate_minutes,
        validate_scenes=args.validate_scenes,
        seed=args.seed,
        max_steps=args.max_steps,
    )
    train(args.data, args.val, args.out, args.work, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
