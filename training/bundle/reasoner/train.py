"""Trains the small reasoner from nothing, on two cores.

See `python -m training.bundle.reasoner.train --help`.

Three stages. `dense`: the vision encoder and the lower language layers learn to predict, at every
image token, which object is there, its color and its box (the read-out layers are thrown away).
`text`: the whole model learns to think and answer; attention heads of the upper layers learn which
image tokens to look at while the text is about an object, so that a coordinate is a copy from the
token that already knows it. `choices`: the language layers alone learn the choices (is the object
of the color that was asked for? is there any?), from ten times as many questions per second;
`text` follows once more, to combine all of it.

The loop is not that of `training.bundle.loop`: stages are counted in steps, there is no averaged
model and no validation.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from training.arguments import new_parser, share
from training.bundle.reasoner.checkpoints import (
    average,
    export,
    load_tokenizer,
    repack,
    restore,
    save,
)
from training.bundle.reasoner.data import Packer, Scenes
from training.bundle.reasoner.forward import forward
from training.bundle.reasoner.libero.thoughts import DISTANCES
from training.bundle.reasoner.libero.thoughts import STYLES as LIBERO_STYLES
from training.bundle.reasoner.libero.world import WORLD as LIBERO
from training.bundle.reasoner.loss import Losses, total
from training.bundle.reasoner.model import LAYERS, DenseHeads, build_model, number_ids
from training.bundle.reasoner.muon import Float32Muon
from training.bundle.reasoner.tabletop.world import WORLD as TABLETOP
from training.bundle.reasoner.world import World

WORLDS = {world.name: world for world in (TABLETOP, LIBERO)}
DENSE, TEXT, CHOICES = "dense", "text", "choices"


def optimizers(
    model: torch.nn.Module, heads: DenseHeads, lr: float, *, muon: bool, bf16: bool
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    matrices, others = [], []
    for name, weight in model.named_parameters():
        inside = ("blocks." in name or "layers." in name or "merger" in name) and weight.ndim == 2
        (matrices if inside and muon else others).append(weight)
    adamw = torch.optim.AdamW(
        [*others, *heads.parameters()], lr=lr, betas=(0.9, 0.98), weight_decay=0.0
    )
    if not muon:
        return [adamw]
    how = {"weight_decay": 0.05, "adjust_lr_fn": "match_rms_adamw"}
    kind = torch.optim.Muon if bf16 else Float32Muon
    return [kind(matrices, lr=lr, **how), adamw]


def rate(step: int, steps: int, warm: int, cool: int) -> float:
    """Warm up, stay, and go down linearly at the end."""
    return min(1.0, (step + 1) / warm, max(0.02, (steps - step) / cool))


def train(args: argparse.Namespace, world: World) -> None:
    """Run one stage; goes on from the last checkpoint of the same stage in `--run`."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(args, world)
    model = build_model(tokenizer, args.seed, args.layers)
    heads = DenseHeads(256, len(world.kinds), len(world.colors))
    opts = optimizers(model, heads, args.lr, muon=args.muon, bf16=args.bf16)
    step = restore(args, tokenizer, model, heads, opts)
    embeddings = model.get_input_embeddings().weight
    losses = Losses(number_ids(tokenizer), embeddings, args.deciding_weight)
    questions = 0 if args.stage == DENSE else args.questions
    loader = DataLoader(
        Scenes(
            world,
            args.data,
            tokenizer,
            questions=questions,
            seed=args.seed + 1000 * step,
            shares=args.shares,
            choices_only=args.stage == CHOICES,
        ),
        batch_size=args.batch,
        num_workers=args.workers,
        collate_fn=Packer(tokenizer),
        prefetch_factor=4 if args.workers else None,
    )
    started, sums = time.time(), {}
    for batch in loader:
        if step >= args.steps:
            break
        terms = _step(model, heads, opts, losses, batch, args, step)
        step += 1
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % args.log_every == 0:
            row = {k: round(v / args.log_every, 4) for k, v in sums.items()}
            row |= {"stage": args.stage, "step": step, "s": round(time.time() - started, 1)}
            with (args.run / "log.jsonl").open("a") as log:
                print(json.dumps(row), file=log)
            sums = {}
        if step % args.save_every == 0 or step == args.steps:
            save(args, model, heads, opts, step)


def _step(model, heads, opts, losses, batch, args, step) -> dict[str, Tensor]:
    factor = rate(step, args.steps, args.warm, args.cool)
    for opt in opts:
        for group in opt.param_groups:
            group["lr"] = args.lr * factor
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
        hidden = forward(
            model,
            batch.packed,
            dense_only=args.stage == DENSE,
            freeze_vision=args.stage == CHOICES,
        )
        terms: dict[str, Tensor] = {}
        if args.stage != CHOICES:
            fresh_heads = step < args.heads_first
            cells = hidden.dense.detach() if fresh_heads else hidden.dense
            terms |= losses.dense(heads, cells, batch)
        if args.stage != DENSE:
            terms |= losses.words(hidden.last, batch)
        if args.stage == TEXT:
            terms |= losses.numbers(hidden.last, batch)
            terms |= losses.pointer(hidden.pointer_losses, batch)
    loss = total(terms, args.words_weight)
    loss.backward()
    trained = [p for o in opts for g in o.param_groups for p in g["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
    if math.isfinite(float(norm)):
        for opt in opts:
            opt.step()
    for opt in opts:
        opt.zero_grad(set_to_none=True)
    return {"loss": loss.detach(), **terms, "norm": norm, "lr": torch.tensor(args.lr * factor)}


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m training.bundle.reasoner.train", __doc__)
    add = parser.add_argument
    add("action", choices=("train", "export", "average", "repack"))
    add("--world", choices=WORLDS, default=TABLETOP.name)
    add("--run", type=Path, help="folder of checkpoints and log")
    add("--checkpoints", type=Path, nargs="+", help="average, repack: of which the mean")
    add("--data", type=Path, nargs="+", default=[], help="rendered folders")
    add("--stage", choices=(DENSE, TEXT, CHOICES), default=TEXT)
    how = "checkpoint or model folder to begin from, such as RUN/dense.safetensors"
    add("--init", type=Path, help=how)
    add("--out", type=Path, help="export, repack: the model folder; average: the checkpoint")
    how = "language layers; with fewer than --init has, its upper ones are left out"
    add("--layers", type=int, default=LAYERS, help=how)
    how = "libero: how thoughts state a place (default: places)"
    add("--thoughts", choices=LIBERO_STYLES, help=how)
    how = "libero, --thoughts distances: share of the questions that are about invented layouts"
    add("--invented", type=share, default=0.0, help=how)
    how = "learn the tokens from the scenes, though --init has a tokenizer"
    add("--new-words", action="store_true", help=how)
    add("--steps", type=int, default=3000)
    add("--batch", type=int, default=12, help="images per step")
    add("--questions", type=int, default=5, help="questions per image")
    how = "how often each kind of question is asked, in the order of the world's kinds"
    add("--shares", type=float, nargs="+", help=how)
    add("--lr", type=float, default=1.5e-3)
    add("--warm", type=int, default=50)
    add("--cool", type=int, default=800, help="steps at the end in which the rate falls")
    how = "steps in which fresh read-out layers learn without moving the model"
    add("--heads-first", type=int, default=0, help=how)
    how = "weight of the words against the numbers; few words decide, so they need it"
    add("--words-weight", type=float, default=2.0, help=how)
    how = "weight of the words of a choice, against the other words"
    add("--deciding-weight", type=float, default=10.0, help=how)
    add("--threads", type=int, default=1)
    add("--workers", type=int, default=1)
    add("--seed", type=int, default=0)
    add("--log-every", type=int, default=20)
    add("--save-every", type=int, default=100)
    add("--muon", action=argparse.BooleanOptionalAction, default=True)
    add("--bf16", action=argparse.BooleanOptionalAction, default=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    world = WORLDS[args.world]
    if args.thoughts:
        if world is not LIBERO:
            parser.error("--thoughts is for --world libero; leave it out")
        sampler = partial(world.sampler, style=args.thoughts, invented=args.invented)
        world = replace(world, sampler=sampler)
    if args.invented and args.thoughts != DISTANCES:
        parser.error(f"--invented is for --thoughts {DISTANCES}; leave it out")
    kinds = world.query_kinds
    if args.shares and len(args.shares) != len(kinds):
        parser.error(f"--shares needs {len(kinds)} numbers, one for each of {', '.join(kinds)}")
    action, needs = {
        "train": (partial(train, world=world), ("run", "data")),
        "export": (partial(export, world=world), ("run", "out")),
        "average": (average, ("checkpoints", "out")),
        "repack": (repack, ("checkpoints", "init", "out")),
    }[args.action]
    for name in needs:
        if not getattr(args, name):
            parser.error(f"{args.action} needs --{name}")
    action(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
