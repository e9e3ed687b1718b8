"""Train the memory of the bundled segmenter, so that it tracks objects over frames.

    python -m worlds.tabletop.clips --seed 0 --count 240 --frames 10 --rate 5 --out data/clips
    python -m worlds.tabletop.clips --seed 800000 --count 4 --frames 30 --rate 5 --out data/val
    python -m training.bundle.tracker.train train --data data/clips --val data/val \
        --base models/tabletop/segmenter --out models/tracker/segmenter

All weights that the masks of single images depend on are frozen, and are copied into the new file
bit for bit; `TRAINED` names the others. The features of the frozen encoder are computed once. The
run is planned in minutes of processor time and begins with short sequences. Stopped, the same
command resumes from the last checkpoint. Tracking takes smaller images than answering does,
because it has to keep up with a camera.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segzero_core.checkpoints.sam2_checkpoint import find_sam2, load_sam2
from training.arguments import add_fields, new_parser, option, settings_from
from training.bundle.loop import CHECKPOINT, Loop, LoopSettings, Run, parse_phases, phase_at
from training.bundle.segmenter.data import shuffled
from training.bundle.segmenter.loss import set_resolution
from training.bundle.tracker.data import Sequences, draw_sequences, find_clips, prepare
from training.bundle.tracker.export import export
from training.bundle.tracker.initialization import (
    MARKER_STEPS,
    compare_looks,
    learn_mark,
    norm_to_usual,
)
from training.bundle.tracker.loss import compute_loss, track
from training.bundle.tracker.validation import validate

COMPUTED = ("memory_attention.", "memory_encoder.")
COMPUTED_RATE = 0.1
"""Modules whose first weights are computed learn at this share of the others' rate."""

START_CLIPS = 24
"""Clips that the first weights are computed from."""

TRAINED = (
    "memory_attention.",
    "memory_encoder.",
    "maskmem_tpos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    "mask_downsample.",
    # Used for tracking only: the score of whether an object is there at all, and the encoder of a
    # mask as a prompt, from which the first pointer to an object is made.
    "sam_mask_decoder.pred_obj_score_head.",
    "sam_prompt_encoder.mask_downscaling.",
)
"""Prefixes of the names of the trained weights. No mask of a single image depends on these."""


@dataclass(frozen=True)
class Phase:
    """A part of the run."""

    start: float  # share of the time from which on it applies
    side: int  # of the frames [px]
    length: int  # frames in a sequence
    clips: int  # sequences per step


@dataclass(frozen=True)
class Settings(LoopSettings):
    """Settings of a run, beside those of every loop; `minutes` are processor time.

    Tracking takes frames of the last phase's size. `training.bundle.tracker.initialization` says
    what the first mark is.
    """

    minutes: float = option(22.0, "processor time of the run")
    learning_rate: float = option(5e-4, "its peak")
    validate_minutes: float = option(6.0, "time between validations")
    phases: tuple[Phase, ...] = option(
        (Phase(0.0, 256, 3, 3), Phase(0.4, 256, 5, 2), Phase(0.63, 384, 5, 2)),
        "START:SIDE:LENGTH:CLIPS,… (default 0:256:3:3,0.4:256:5:2,0.63:384:5:2)",
        type=partial(parse_phases, kind=Phase),
    )
    memories: int = option(3, "frames that the model attends to: the first and the last ones")
    objects: int = option(2, "tracked objects per clip, at most")
    mark_steps: int = option(MARKER_STEPS, "steps in which the first mark is learned")


def new_run(base: Path, settings: Settings) -> Run:
    """Load the segmenter, make its memory trainable, and freeze the rest."""
    torch.manual_seed(settings.seed)
    model: Any = load_sam2(find_sam2(str(base)), torch.device("cpu"))
    model.num_maskmem = settings.memories
    # As sam2 sets it up; the segmenter may have attended to another number of frames.
    places = torch.empty(settings.memories, 1, 1, model.mem_dim)
    torch.nn.init.trunc_normal_(places, std=0.02)
    model.maskmem_tpos_enc = torch.nn.Parameter(places)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(TRAINED))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if n.startswith(COMPUTED)], "share": COMPUTED_RATE},
        {"params": [p for n, p in named if not n.startswith(COMPUTED)], "share": 1.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=0.0, betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True
    )
    return Run(model, copy.deepcopy(model), optimizer)


def begin(run: Run, clips: Sequence[Path], settings: Settings) -> dict[str, Any]:
    """Give the memory its first weights; return what the log says about it.

    See `training.bundle.tracker.initialization`.
    """
    side = settings.phases[0].side
    set_resolution(run.model, side)
    rng = np.random.default_rng(settings.seed)
    some = [clips[i] for i in rng.permutation(len(clips))[:START_CLIPS]]
    drawn = draw_sequences(some, side, length=2, objects=settings.objects, rng=rng)
    if drawn is None:
        raise ValueError("no object in the clips is large enough to begin with")
    norm_to_usual(run.model, drawn)
    source = _single_images(clips, side, rng)
    mark, everywhere, ious = learn_mark(run.model, source, settings.mark_steps)
    compare_looks(run.model, drawn, mark, everywhere)
    run.average.load_state_dict(run.model.state_dict())
    return {"mark_ious": [round(iou, 3) for iou in ious[::10]]}


def _single_images(
    clips: Sequence[Path], side: int, rng: np.random.Generator
) -> Iterator[Sequences]:
    while True:
        some = [clips[i] for i in rng.integers(len(clips), size=4)]
        drawn = draw_sequences(some, side, length=1, objects=3, rng=rng)
        if drawn is not None:
            yield drawn


def batches(clips: Sequence[Path], settings: Settings, run: Run) -> Iterator[Sequences]:
    """Yield sequences without end, in the phase of the run."""
    rng = np.random.default_rng((settings.seed, run.step))
    waiting: list[Path] = []
    while True:
        for folder in shuffled(clips, rng):
            waiting.append(folder)
            now = phase_at(settings.phases, run.seconds / 60 / settings.minutes)
            if len(waiting) >= min(now.clips, len(clips)):
                drawn = draw_sequences(
                    waiting, now.side, length=now.length, objects=settings.objects, rng=rng
                )
                waiting = []
                if drawn is not None:
                    yield drawn


def train_step(run: Run, sequences: Sequences, settings: Settings, progress: float) -> None:
    """Learn from some sequences, and add their metrics to the run's."""
    side = sequences.truth.shape[-1]
    if run.model.image_size != side:
        set_resolution(run.model, side)
    run.set_rate(settings.learning_rate_at(progress))
    loss, metrics = compute_loss(track(run.model, sequences), sequences)
    run.descend(loss, metrics, settings.ema, len(sequences.truth) * len(sequences.clip))


def train(
    clips: Sequence[Path],
    val: Sequence[Path],
    base: Path,
    out: Path,
    work: Path,
    settings: Settings,
) -> Run:
    """Train for the planned time; checkpoints go to `work`, the best weights to `out`."""
    run, side = new_run(base, settings), settings.phases[-1].side
    for each in sorted({phase.side for phase in settings.phases}):
        prepare(run.model, clips, each)
    prepare(run.model, val, side)
    source = batches(clips, settings, run)

    def step(progress: float) -> dict[str, Any]:
        train_step(run, next(source), settings, progress)
        return asdict(phase_at(settings.phases, progress))

    def validate_average() -> dict[str, float]:
        set_resolution(run.average, side)
        return validate(run.average, val)

    def export_average(metadata: dict[str, str]) -> None:
        set_resolution(run.average, side)
        export(run.average, TRAINED, base, out, metadata)

    parts = (step, validate_average if val else None, export_average)
    loop = Loop(run, settings, work, out, *parts, lambda: begin(run, clips, settings))
    return replace(loop, clock=time.process_time)()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser("python -m training.bundle.tracker.train", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("prepare", help="only make the features of clips")
    learn = commands.add_parser("train", help="train, or resume a training")
    save = commands.add_parser("export", help="export the averaged weights of a checkpoint")
    base = {"type": Path, "required": True, "help": "the segmenter whose memory is trained"}
    data = {"type": Path, "nargs": "+", "required": True, "help": "folders of clips"}
    for command in (make, learn, save):
        command.add_argument("--base", **base)
    for command in (make, learn):
        command.add_argument("--data", **data)
        command.add_argument("--threads", type=int, default=1)
    for command in (learn, save):
        command.add_argument("--work", type=Path, default=Path("runs/tracker"))
        command.add_argument("--out", type=Path, required=True, help="where the weights go")
    add_fields(learn, Settings)
    add_fields(save, Settings, only=("memories",))
    save.add_argument("--side", type=int, default=Settings().phases[-1].side)
    make.add_argument("--side", type=int, nargs="+", required=True, help="of the frames [px]")
    learn.add_argument("--val", type=Path, nargs="*", default=[], help="clips of other seeds")
    args = parser.parse_args(argv)
    if args.command != "export" and not find_clips(args.data):
        parser.error(
            f"no clips in {', '.join(map(str, args.data))}; see python -m worlds.tabletop.clips"
        )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parse(argv)
    settings = settings_from(args, Settings)
    if args.command == "export":
        run = new_run(args.base, settings)
        run.load(args.work / CHECKPOINT)
        set_resolution(run.average, args.side)
        export(run.average, TRAINED, args.base, args.out)
        return 0
    torch.set_num_threads(args.threads)
    if args.command == "prepare":
        model = load_sam2(find_sam2(str(args.base)), torch.device("cpu"))
        for side in args.side:
            prepare(model, find_clips(args.data), side)
        return 0
    train(find_clips(args.data), find_clips(args.val), args.base, args.out, args.work, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
