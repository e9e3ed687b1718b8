"""Train the bundled segmenter, a small SAM 2, from scratch on rendered tabletop scenes.

    python -m worlds.tabletop.render --seed 0 --count 8000 --out data/train
    python -m worlds.tabletop.render --seed 800000 --count 200 --out data/val
    python -m training.bundle.segmenter.train train --data data/train --val data/val \
        --out models/tabletop/segmenter

The images grow during the run: coarse ones teach what an object is, the last ones where its edge
runs. Stopped, the same command resumes from the last checkpoint. Scenes that are rendered into the
folders meanwhile are picked up at the next pass. The memory modules are built and saved untrained:
`training.bundle.tracker.train` trains them later.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segzero_core.checkpoints.sam2_checkpoint import read_state
from training.arguments import add_fields, new_parser, option, settings_from
from training.bundle.loop import (
    CHECKPOINT,
    WEIGHTS_FILE,
    Loop,
    LoopSettings,
    Run,
    parse_phases,
    phase_at,
    prefetched,
)
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

_SINGLE_IMAGE = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
"""What the names of the weights begin with that single images use."""


@dataclass(frozen=True)
class Phase:
    """A part of the run."""

    start: float  # share of the time from which on it applies
    side: int  # of the images [px]
    batch: int  # images per step


@dataclass(frozen=True)
class Settings(LoopSettings):
    """Settings of a run, beside those of every loop."""

    minutes: float = option(90.0, "length of the run")
    weight_decay: float = option(0.05, "of AdamW, on matrices only")
    size: str = option("tabletop", "architecture", choices=sorted(SIZES))
    phases: tuple[Phase, ...] = option(
        (Phase(0.0, 256, 6), Phase(0.5, 512, 4)),
        "START:SIDE:BATCH,… over the time (default 0:256:6,0.5:512:4)",
        flag="--sides",
        type=partial(parse_phases, kind=Phase),
    )
    objects: int = option(6, "prompted objects per image, at most")
    validate_scenes: int = option(40, "scenes to validate on")
    close_ups: float = option(0.0, "share of the images that are cut out around one object")
    init: str = option("", "folder of a segmenter of this size, whose weights it begins from")
    bf16: bool = option(default=False, help="compute in bfloat16")
    cache_scenes: int = option(3000, "decoded scenes kept in memory (1.2 MB each)")


def trained_parameters(model: Any) -> list[torch.nn.Parameter]:
    """Freeze what single images do not use (the memory modules), and list the rest."""
    unused = ("sam_prompt_encoder.mask_downscaling", "image_encoder.neck.position_encoding")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(_SINGLE_IMAGE) and not name.startswith(unused))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def new_run(settings: Settings) -> Run:
    """Build the model with fixed seeds or from weights, and its optimizer."""
    torch.manual_seed(settings.seed)
    model = build_model(model_config(SIZES[settings.size])).train()
    if settings.init:
        # The memory, where there is one, may be of another length, and is not trained here.
        state = read_state(Path(settings.init) / WEIGHTS_FILE)
        kept = {name: value for name, value in state.items() if name.startswith(_SINGLE_IMAGE)}
        model.load_state_dict(kept, strict=False)
    parameters = trained_parameters(model)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)
    return Run(model, copy.deepcopy(model).eval(), optimizer)


def batches(folders: Sequence[Path], settings: Settings, run: Run) -> Iterator[Batch]:
    """Yield batches without end, in the phase of the run; looks for new scenes at every pass."""
    rng = np.random.default_rng((settings.seed, run.step))
    cache = SceneCache(settings.cache_scenes)
    while True:
        scenes = find_scenes(folders)
        if not scenes:
            raise FileNotFoundError(f"no rendered scenes in {', '.join(map(str, folders))}")
        waiting = []
        for folder in shuffled(scenes, rng):
            waiting.append(cache(folder))
            now = phase_at(settings.phases, run.seconds / 60 / settings.minutes)
            if len(waiting) >= min(now.batch, len(scenes)):
                # Small images are zoomed in more, so that they show edges as the last ones do.
                zoom = MAX_ZOOM * math.sqrt(SIZES[settings.size].image_size / now.side)
                batch = make_batch(
                    waiting, now.side, settings.objects, rng, zoom, settings.close_ups
                )
                waiting = []
                if batch is not None:
                    yield batch


def train_step(run: Run, batch: Batch, settings: Settings, progress: float) -> None:
    """Learn from one batch, and add its metrics to the run's."""
    side = batch.images.shape[-1]
    if run.model.image_size != side:
        set_resolution(run.model, side)
    run.set_rate(settings.learning_rate_at(progress))
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        prediction = decode(
            run.model,
            encode(run.model, torch.from_numpy(batch.images)),
            torch.from_numpy(batch.image_index),
            torch.from_numpy(batch.points),
            torch.from_numpy(batch.labels),
        )
    loss, metrics = compute_loss(prediction, batch, torch.from_numpy(batch.instances))
    run.descend(loss, metrics, settings.ema, len(batch.images))


def train(
    folders: Sequence[Path], val: Path | None, out: Path, work: Path, settings: Settings
) -> Run:
    """Train for the planned time; checkpoints go to `work`, the best weights to `out`."""
    run, size = new_run(settings), SIZES[settings.size]
    source = prefetched(batches(folders, settings, run))

    def step(progress: float) -> dict[str, Any]:
        batch = next(source)
        train_step(run, batch, settings, progress)
        return {"side": batch.images.shape[-1]}

    def validate_average() -> dict[str, float]:
        assert val is not None
        set_resolution(run.average, size.image_size)
        return validate(run.average, find_scenes([val])[: settings.validate_scenes])

    def export_average(metadata: dict[str, str]) -> None:
        export(run.average, size, out, metadata)

    validation = validate_average if val else None
    with contextlib.closing(source):
        return Loop(run, settings, work, out, step, validation, export_average)()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = new_parser("python -m training.bundle.segmenter.train", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train, or resume a training")
    data = {"type": Path, "nargs": "+", "required": True}
    learn.add_argument("--data", **data, help="folders of rendered scenes")
    learn.add_argument("--val", type=Path, help="rendered scenes of the validation seeds")
    learn.add_argument("--threads", type=int, default=1)
    add_fields(learn, Settings)
    save = commands.add_parser("export", help="export the averaged weights of a checkpoint")
    add_fields(save, Settings, only=("size",))
    for command in (learn, save):
        command.add_argument("--work", type=Path, default=Path("runs/segmenter"))
        command.add_argument("--out", type=Path, required=True, help="where the weights go")
    args = parser.parse_args(argv)
    settings = settings_from(args, Settings)
    if args.command == "export":
        run = new_run(settings)
        run.load(args.work / CHECKPOINT)
        export(run.average, SIZES[args.size], args.out)
        return 0
    torch.set_num_threads(args.threads)
    train(args.data, args.val, args.out, args.work, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
