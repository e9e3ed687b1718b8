"""Train the memory of the bundled segmenter, so that it follows objects from picture to picture.

    python -m worlds.tabletop.clips --seed 0 --count 240 --frames 10 --rate 5 --out data/clips
    python -m worlds.tabletop.clips --seed 800000 --count 4 --frames 30 --rate 5 --out data/val
    python -m training.bundle.tracker.train train --data data/clips --val data/val \
        --base models/tabletop/segmenter --out models/tracker/segmenter

Everything that the masks of single pictures depend on is frozen, and is copied into the new file
bit for bit; `TRAINED` names what is learnt. The features of the frozen encoder are made once. The
run is planned in minutes of processor time, begins with short sequences, and goes on from its
checkpoint when the same command is given again. Tracking takes smaller pictures than answering
does: it has to keep up with a camera.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segzero_core.checkpoints.sam2_checkpoint import find_sam2, load_sam2
from training.bundle.segmenter.data import shuffled
from training.bundle.segmenter.loss import set_resolution
from training.bundle.segmenter.train import (
    CHECKPOINT,
    LOG_EVERY,
    Journal,
    Run,
    descend,
    load_run,
    save_run,
)
from training.bundle.segmenter.train import learning_rate as rate_at
from training.bundle.tracker.data import Sequences, draw_sequences, find_clips, prepare
from training.bundle.tracker.export import export
from training.bundle.tracker.initialization import (
    MARKER_STEPS,
    compare_looks,
    learn_mark,
    norm_to_usual,
)
from training.bundle.tracker.loss import compute_loss, follow
from training.bundle.tracker.validation import validate

WRITTEN = ("memory_attention.", "memory_encoder.")
WRITTEN_RATE = 0.1
"""What is written down to begin with knows its work, and learns at a share of the others' rate."""

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
    # The decoder and the prompt encoder read these two for tracking alone: whether an object is
    # there at all, and a mask as a prompt, from which the first pointer to an object is made.
    "sam_mask_decoder.pred_obj_score_head.",
    "sam_prompt_encoder.mask_downscaling.",
)
"""Beginnings of the names of what is learnt. No mask of a single picture depends on these."""


@dataclass(frozen=True)
class Phase:
    """A part of the run: from which share of the time on, and with what.

    Attributes:
        start: Share of the time.
        side: Of the pictures [px].
        length: Pictures in a sequence.
        clips: Sequences a step.
    """

    start: float
    side: int
    length: int
    clips: int


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run; saved beside its checkpoint.

    Attributes:
        minutes: Processor time after which the learning rate has come down to nothing.
        phases: See `Phase`; tracking takes pictures of the last one's size.
        memories: Pictures that the model attends to: the first one and the last ones.
        objects: Followed objects a clip, at most.
        learning_rate: Its peak.
        warmup: Share of the time in which the learning rate rises.
        weight_decay: Of AdamW.
        ema: Decay of the averaged weights a step, which are what is validated and exported.
        seed: Of new weights, order and sequences.
        checkpoint_minutes: Time between checkpoints.
        validate_minutes: Time between validations; the best weights so far are exported.
        mark_steps: Steps in which the first mark is learnt; see
            `training.bundle.tracker.initialization`.
        max_steps: Stop after so many steps all the same; 0 for none.
    """

    minutes: float = 22.0
    phases: tuple[Phase, ...] = (
        Phase(0.0, 256, 3, 3),
        Phase(0.4, 256, 5, 2),
        Phase(0.63, 384, 5, 2),
    )
    memories: int = 3
    objects: int = 2
    learning_rate: float = 5e-4
    warmup: float = 0.03
    weight_decay: float = 0.0
    ema: float = 0.99
    seed: int = 0
    checkpoint_minutes: float = 3.0
    validate_minutes: float = 6.0
    mark_steps: int = MARKER_STEPS
    max_steps: int = 0


def new_run(base: Path, settings: Settings) -> Run:
    """Load the segmenter, give it the memory that is to be learnt, and freeze the rest."""
    torch.manual_seed(settings.seed)
    model: Any = load_sam2(find_sam2(str(base)), torch.device("cpu"))
    model.num_maskmem = settings.memories
    # As sam2 sets it up; also where the segmenter attends to another number of pictures.
    places = torch.empty(settings.memories, 1, 1, model.mem_dim)
    torch.nn.init.trunc_normal_(places, std=0.02)
    model.maskmem_tpos_enc = torch.nn.Parameter(places)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(TRAINED))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if n.startswith(WRITTEN)], "share": WRITTEN_RATE},
        {"params": [p for n, p in named if not n.startswith(WRITTEN)], "share": 1.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=0.0, betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True
    )
    return Run(model, copy.deepcopy(model), optimizer)


def begin(run: Run, clips: Sequence[Path], settings: Settings, journal: Journal) -> None:
    """Give the memory its first weights; see `training.bundle.tracker.initialization`."""
    side = settings.phases[0].side
    set_resolution(run.model, side)
    rng = np.random.default_rng(settings.seed)
    some = [clips[i] for i in rng.permutation(len(clips))[:START_CLIPS]]
    drawn = draw_sequences(some, side, length=2, objects=settings.objects, rng=rng)
    if drawn is None:
        raise ValueError("no object in the clips is large enough to begin with")
    norm_to_usual(run.model, drawn)
    source = _single_pictures(clips, side, rng)
    mark, everywhere, ious = learn_mark(run.model, source, settings.mark_steps)
    compare_looks(run.model, drawn, mark, everywhere)
    run.average.load_state_dict(run.model.state_dict())
    journal("begun", run, mark_ious=[round(iou, 3) for iou in ious[::10]])


def _single_pictures(
    clips: Sequence[Path], side: int, rng: np.random.Generator
) -> Iterator[Sequences]:
    while True:
        some = [clips[i] for i in rng.integers(len(clips), size=4)]
        drawn = draw_sequences(some, side, length=1, objects=3, rng=rng)
        if drawn is not None:
            yield drawn


def phase(settings: Settings, progress: float) -> Phase:
    """Return the part of the run at a share of the time."""
    return [each for each in settings.phases if progress >= each.start][-1]


def batches(clips: Sequence[Path], settings: Settings, run: Run) -> Iterator[Sequences]:
    """Draw sequences for ever, as long as the run is far."""
    rng = np.random.default_rng((settings.seed, run.step))
    waiting: list[Path] = []
    while True:
        for folder in shuffled(clips, rng):
            waiting.append(folder)
            now = phase(settings, run.seconds / 60 / settings.minutes)
            if len(waiting) >= min(now.clips, len(clips)):
                drawn = draw_sequences(
                    waiting, now.side, length=now.length, objects=settings.objects, rng=rng
                )
                waiting = []
                if drawn is not None:
                    yield drawn


def train_step(run: Run, sequences: Sequences, settings: Settings, progress: float) -> None:
    """Learn from some sequences, and add what they showed to the run's figures."""
    side = sequences.truth.shape[-1]
    if run.model.image_size != side:
        set_resolution(run.model, side)
    for group in run.optimizer.param_groups:
        group["lr"] = group["share"] * rate_at(settings, progress)
    loss, figures = compute_loss(follow(run.model, sequences), sequences)
    run.pictures += len(sequences.truth) * len(sequences.clip)
    descend(run, loss, figures, settings.ema)


def train(
    clips: Sequence[Path],
    val: Sequence[Path],
    base: Path,
    out: Path,
    work: Path,
    settings: Settings,
) -> Run:
    """Train to the end of the planned time; checkpoints go to `work`, good weights to `out`."""
    run, checkpoint, journal = (
        new_run(base, settings),
        work / CHECKPOINT,
        Journal(work / "log.jsonl"),
    )
    side = settings.phases[-1].side
    for each in sorted({each.side for each in settings.phases}):
        prepare(run.model, clips, each)
    prepare(run.model, val, side)
    source = batches(clips, settings, run)
    if checkpoint.exists():
        load_run(run, checkpoint)
        journal("resumed", run)
    else:
        begin(run, clips, settings, journal)
        save_run(run, checkpoint)
        _validate_and_export(run, val, base, out, side, journal)
    (work / "settings.json").write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")
    saved = validated = run.seconds
    while run.seconds < settings.minutes * 60 and not 0 < settings.max_steps <= run.step:
        started = time.process_time()
        progress = run.seconds / 60 / settings.minutes
        train_step(run, next(source), settings, progress)
        run.seconds += time.process_time() - started
        if run.step % LOG_EVERY == 0:
            figures = {name: float(np.mean(values)) for name, values in run.figures.items()}
            run.figures.clear()
            now = asdict(phase(settings, progress))
            journal("train", run, **now, lr=rate_at(settings, progress), **figures)
        if run.seconds - saved > settings.checkpoint_minutes * 60:
            save_run(run, checkpoint)
            saved = run.seconds
        if run.seconds - validated > settings.validate_minutes * 60:
            _validate_and_export(run, val, base, out, side, journal)
            validated = run.seconds
    save_run(run, checkpoint)
    _validate_and_export(run, val, base, out, side, journal)
    return run


def _validate_and_export(
    run: Run, val: Sequence[Path], base: Path, out: Path, side: int, journal: Journal
) -> None:
    """Export the averaged weights if they are the best so far, or nothing can tell."""
    set_resolution(run.average, side)
    figures = validate(run.average, val) if val else {"score": run.best_score}
    better = figures["score"] >= run.best_score
    journal("validation", run, exported=better, **figures)
    if better:
        run.best_score = figures["score"]
        export(run.average, TRAINED, base, out)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.bundle.tracker.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    defaults = Settings()
    make = commands.add_parser("prepare", help="make the features of clips and nothing else")
    learn = commands.add_parser("train", help="train, or go on training")
    save = commands.add_parser("export", help="export the averaged weights of a checkpoint")
    save.add_argument("--base", type=Path, required=True)
    save.add_argument("--work", type=Path, default=Path("runs/tracker"))
    save.add_argument("--out", type=Path, required=True)
    save.add_argument("--side", type=int, default=defaults.phases[-1].side)
    save.add_argument("--memories", type=int, default=defaults.memories)
    for each in (make, learn):
        each.add_argument("--data", type=Path, nargs="+", required=True, help="folders of clips")
        each.add_argument(
            "--base", type=Path, required=True, help="the segmenter whose memory is to be trained"
        )
        each.add_argument("--threads", type=int, default=1)
    make.add_argument("--side", type=int, nargs="+", required=True, help="of the pictures [px]")
    learn.add_argument("--val", type=Path, nargs="*", default=[], help="clips of other seeds")
    learn.add_argument("--out", type=Path, required=True, help="where the best weights go")
    learn.add_argument("--work", type=Path, default=Path("runs/tracker"), help="checkpoints, log")
    learn.add_argument("--minutes", type=float, default=defaults.minutes)
    learn.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    learn.add_argument(
        "--phases",
        default=",".join(f"{p.start}:{p.side}:{p.length}:{p.clips}" for p in defaults.phases),
        help="START:SIDE:LENGTH:CLIPS,… (default %(default)s)",
    )
    learn.add_argument("--memories", type=int, default=defaults.memories)
    learn.add_argument("--objects", type=int, default=defaults.objects)
    learn.add_argument("--validate-minutes", type=float, default=defaults.validate_minutes)
    learn.add_argument("--seed", type=int, default=defaults.seed)
    learn.add_argument("--mark-steps", type=int, default=defaults.mark_steps)
    learn.add_argument("--max-steps", type=int, default=0)
    args = parser.parse_args(argv)
    if args.command != "export" and not find_clips(args.data):
        parser.error(
            f"no clips in {', '.join(map(str, args.data))}; see python -m worlds.tabletop.clips"
        )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parse(argv)
    if args.command == "export":
        run = new_run(args.base, Settings(memories=args.memories))
        load_run(run, args.work / CHECKPOINT)
        set_resolution(run.average, args.side)
        export(run.average, TRAINED, args.base, args.out)
        return 0
    torch.set_num_threads(args.threads)
    if args.command == "prepare":
        model = load_sam2(find_sam2(str(args.base)), torch.device("cpu"))
        for side in args.side:
            prepare(model, find_clips(args.data), side)
        return 0
    parts = [entry.split(":") for entry in args.phases.split(",")]
    settings = Settings(
        minutes=args.minutes,
        phases=tuple(Phase(float(a), int(b), int(c), int(d)) for a, b, c, d in parts),
        memories=args.memories,
        objects=args.objects,
        learning_rate=args.learning_rate,
        validate_minutes=args.validate_minutes,
        seed=args.seed,
        mark_steps=args.mark_steps,
        max_steps=args.max_steps,
    )
    args.work.mkdir(parents=True, exist_ok=True)
    train(find_clips(args.data), find_clips(args.val), args.base, args.out, args.work, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
