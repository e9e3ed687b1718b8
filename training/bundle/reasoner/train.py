"""Trains the small reasoner from nothing, on two cores.

See `python -m training.bundle.reasoner.train --help`.

Three stages. `dense`: the vision tower and the lower language layers learn to say, at every image
token, what object is there, its colour and its box (the read-out layers are thrown away). `text`:
the whole model learns to think and answer; attention heads of the upper layers are told which
image tokens to look at while a piece of text speaks of an object, so that a coordinate is a copy
from the token that already knows it. `choices`: the language layers alone learn where a choice
falls (is what I see of the colour that was asked for? is there any?), from ten times as many
questions a second; `text` follows once more, to put it all together.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody reads
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from segzero_core.checkpoints.weights import SUMS_FILE, file_digest
from segzero_core.prompt import TEMPLATES
from training.bundle.reasoner.data import (
    CHOICE,
    COLORS,
    KIND_SHARES,
    KINDS,
    NUMBER,
    Batch,
    Packer,
    Tables,
)
from training.bundle.reasoner.forward import LAYERS, DenseHeads, build_model, number_ids, think
from training.bundle.reasoner.tokenizer import (
    SEEN_SIZE,
    build_processor,
    build_tokenizer,
    corpus,
    extend_tokenizer,
    save_processor,
)
from worlds.tabletop.scene import Scene
from worlds.tabletop.vocabulary import QUERY_KINDS

SMEAR_PX = 1.5  # a coordinate one pixel off is nearly right
POINTER_WEIGHT, DENSE_WEIGHT = 0.3, 0.5
DENSE, TEXT, CHOICES = "dense", "text", "choices"
EMBEDDINGS = "model.language_model.embed_tokens.weight"
WEIGHTS_FILE = "model.safetensors"


class Losses:
    """The terms of the loss, by name; `total` is what is minimised."""

    def __init__(self, numbers: Tensor, embeddings: Tensor, deciding_weight: float) -> None:
        self._number_ids, self._deciding_weight = numbers, deciding_weight
        self._embeddings = embeddings
        grid = torch.arange(SEEN_SIZE + 1.0)
        near = torch.exp(-0.5 * ((grid[:, None] - grid) / SMEAR_PX) ** 2)
        self._smeared = near / near.sum(1, keepdim=True)

    def dense(self, heads: DenseHeads, cells: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Kind, colour and coordinates at every image token."""
        kind, color, places = heads(cells)
        on_object = batch.cell_kind < len(KINDS)
        wanted = batch.cell_numbers[on_object]
        logits = places[on_object] @ self._embeddings[self._number_ids].T
        logs = F.log_softmax(logits.float(), -1)
        weight = torch.ones(len(KINDS) + 1)
        weight[-1] = 0.3
        return {
            "kind": F.cross_entropy(kind.float().flatten(0, 1), batch.cell_kind.flatten(), weight),
            "color": F.cross_entropy(color.float()[on_object], batch.cell_color[on_object]),
            "place": -(self._smeared[wanted] * logs).sum(-1).mean(),
            "kind_acc": (kind[on_object].argmax(-1) == batch.cell_kind[on_object]).float().mean(),
            "color_acc": (color[on_object].argmax(-1) == batch.cell_color[on_object])
            .float()
            .mean(),
            "place_px": (logits.argmax(-1) - wanted).abs().float().mean(),
        }

    def words(self, last: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """The words of the completion; the places where a choice falls weigh more.

        The place is weighed and not the word: a word that weighs more than its rival is said too
        often.
        """
        states, targets, roles = _flat(last, batch)
        words = (targets >= 0) & (roles != NUMBER)
        logits = (states[words] @ self._embeddings.T).float()
        wanted, decides = targets[words], roles[words] == CHOICE
        right = logits.argmax(-1) == wanted
        weights = torch.where(decides, self._deciding_weight, 1.0)
        losses = F.cross_entropy(logits, wanted, reduction="none")
        return {
            "words": (weights * losses).sum() / weights.sum(),
            "word_acc": right.float().mean(),
            "deciding_acc": right[decides].float().mean(),
        }

    def numbers(self, last: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """The coordinates of the completion, smeared."""
        states, targets, roles = _flat(last, batch)
        numeric = roles == NUMBER
        logits = (states[numeric] @ self._embeddings.T).float()
        position = torch.full((len(self._embeddings),), -1)
        position[self._number_ids] = torch.arange(SEEN_SIZE + 1)
        wanted = position[targets[numeric]]
        logs = F.log_softmax(logits, -1)[:, self._number_ids]
        guess = logits[:, self._number_ids].argmax(-1)
        return {
            "numbers": -(self._smeared[wanted] * logs).sum(-1).mean(),
            "number_px": (guess - wanted).abs().float().mean(),
        }

    @staticmethod
    def pointer(losses: list[list[Tensor]], batch: Batch) -> dict[str, Tensor]:
        """How much the pointer heads look beside the object that is spoken of."""
        valid = [group.pointer_cells.any(-1) for group in batch.packed.asked]
        by_layer = [
            torch.cat([row[own] for row, own in zip(rows, valid, strict=True)]).mean()
            for rows in zip(*losses, strict=True)
        ]
        return {"pointer": sum(by_layer) / len(by_layer), "pointer_last": by_layer[-1].detach()}


def _flat(last: list[Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, next tokens and the roles of those, of all groups in a row."""
    return (
        torch.cat([group.flatten(0, 1) for group in last]),
        torch.cat([targets.flatten() for targets in batch.targets]),
        torch.cat([roles.flatten() for roles in batch.roles]),
    )


def total(terms: dict[str, Tensor], words_weight: float) -> Tensor:
    """The weighted sum of the terms that have gradients to give."""
    weights = {"words": words_weight, "numbers": 1.0, "pointer": POINTER_WEIGHT}
    dense = DENSE_WEIGHT if "words" in terms else 1.0
    weights |= dict.fromkeys(("kind", "color", "place"), dense)
    return sum(weight * terms[name] for name, weight in weights.items() if name in terms)


def optimizers(
    model: torch.nn.Module, heads: DenseHeads, lr: float, *, muon: bool
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else.

    Muon works in bfloat16: without instructions for it a step takes minutes, and AdamW has to do.
    """
    matrices, others = [], []
    for name, weight in model.named_parameters():
        inside = ("blocks." in name or "layers." in name or "merger" in name) and weight.ndim == 2
        (matrices if inside and muon else others).append(weight)
    adamw = torch.optim.AdamW(
        [*others, *heads.parameters()], lr=lr, betas=(0.9, 0.98), weight_decay=0.0
    )
    if not muon:
        return [adamw]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        adamw,
    ]


def rate(step: int, steps: int, warm: int, cool: int) -> float:
    """Warm up, stay, and go down linearly at the end."""
    return min(1.0, (step + 1) / warm, max(0.02, (steps - step) / cool))


def train(args: argparse.Namespace) -> None:
    """Run one stage; goes on from the last checkpoint of the same stage in `--run`."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(args)
    model = build_model(tokenizer, args.seed, args.layers)
    heads = DenseHeads(256, len(KINDS), len(COLORS))
    opts = optimizers(model, heads, args.lr, muon=args.muon)
    step = _restore(args, model, heads, opts)
    losses = Losses(
        number_ids(tokenizer),
        model.get_input_embeddings().weight,
        args.deciding_weight,
    )
    questions = 0 if args.stage == DENSE else args.questions
    loader = DataLoader(
        Tables(
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
            _save(args, model, heads, opts, step)


def _step(model, heads, opts, losses, batch, args, step) -> dict[str, Tensor]:
    factor = rate(step, args.steps, args.warm, args.cool)
    for opt in opts:
        for group in opt.param_groups:
            group["lr"] = args.lr * factor
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
        thoughts = think(
            model,
            batch.packed,
            dense_only=args.stage == DENSE,
            fixed_pictures=args.stage == CHOICES,
        )
        terms: dict[str, Tensor] = {}
        if args.stage != CHOICES:
            fresh_heads = step < args.heads_first
            cells = thoughts.dense.detach() if fresh_heads else thoughts.dense
            terms |= losses.dense(heads, cells, batch)
        if args.stage != DENSE:
            terms |= losses.words(thoughts.last, batch)
        if args.stage == TEXT:
            terms |= losses.numbers(thoughts.last, batch)
            terms |= losses.pointer(thoughts.pointer_losses, batch)
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


def _tokenizer(args: argparse.Namespace) -> PreTrainedTokenizerFast:
    folder = args.run / "processor"
    if folder.exists():
        return AutoProcessor.from_pretrained(folder).tokenizer
    if args.init is not None and args.init.is_dir():
        known = AutoProcessor.from_pretrained(args.init).tokenizer
        save_processor(build_processor(extend_tokenizer(known)), folder)
    elif args.init is not None:
        # The numbers of its words are those that its weights know.
        shutil.copytree(args.init.parent / "processor", folder, dirs_exist_ok=True)
    else:
        scenes = sorted(p for f in args.data for p in f.glob("*/scene.json"))[:400]
        objects = [Scene.from_json(p.read_text()).objects for p in scenes]
        save_processor(build_processor(build_tokenizer(corpus(objects, args.seed))), folder)
    return AutoProcessor.from_pretrained(folder).tokenizer


def _save(args, model, heads, opts, step: int) -> None:
    weights = {f"model.{k}": v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    weights |= {f"heads.{k}": v for k, v in heads.state_dict().items()}
    target = args.run / f"{args.stage}.safetensors"
    save_file({k: v.contiguous() for k, v in weights.items()}, str(target) + ".tmp")
    torch.save({"step": step, "opts": [o.state_dict() for o in opts]}, str(target) + ".state.tmp")
    Path(str(target) + ".tmp").replace(target)
    Path(str(target) + ".state.tmp").replace(str(target) + ".state")


def _restore(args, model, heads, opts) -> int:
    """Load the last checkpoint of the stage, or what it begins from; return the step it is at."""
    target = args.run / f"{args.stage}.safetensors"
    if not target.exists():
        if args.init is not None:
            _load_weights(args.init, model, heads)
        return 0
    _load_weights(target, model, heads)
    state = torch.load(str(target) + ".state", weights_only=True)
    for opt, saved in zip(opts, state["opts"], strict=True):
        opt.load_state_dict(saved)
    return int(state["step"])


def _load_weights(path: Path, model: torch.nn.Module, heads: DenseHeads) -> None:
    """Load a checkpoint with its read-out layers, or a model folder, which has none."""
    if path.is_dir():
        known = AutoModelForImageTextToText.from_pretrained(path, dtype="float32")
        ours = known.state_dict()
    else:
        weights = load_file(path)
        ours = {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
        heads.load_state_dict(
            {k.removeprefix("heads."): v for k, v in weights.items() if k.startswith("heads.")}
        )
    ours[EMBEDDINGS] = _with_new_rows(ours[EMBEDDINGS], model)
    ours = {name: weight for name, weight in ours.items() if not _is_cut_off(name, model)}
    # The output layer is the embedding; it is saved once.
    model.load_state_dict(ours | {"lm_head.weight": ours[EMBEDDINGS]})


def _is_cut_off(name: str, model: torch.nn.Module) -> bool:
    """Whether weights belong to a layer that a smaller model does not have."""
    layer = re.match(r"model\.language_model\.layers\.(\d+)\.", name)
    return layer is not None and int(layer[1]) >= len(model.model.language_model.layers)


def _with_new_rows(embeddings: Tensor, model: torch.nn.Module) -> Tensor:
    """Give tokens that were added at the end the mean of all others."""
    missing = len(model.get_input_embeddings().weight) - len(embeddings)
    return torch.cat([embeddings, embeddings.mean(0, keepdim=True).expand(missing, -1)])


def export(args: argparse.Namespace) -> None:
    """Write a checkpoint as a plain `transformers` folder in float16 with its segzero.json."""
    tokenizer = _tokenizer(args)
    model = build_model(tokenizer, args.seed, args.layers)
    checkpoint = args.run / f"{args.stage}.safetensors"
    _load_weights(checkpoint, model, DenseHeads(256, len(KINDS), len(COLORS)))
    args.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(args.out)
    AutoProcessor.from_pretrained(args.run / "processor").save_pretrained(args.out)
    description = {
        "name": "tabletop",
        "prompt_template": "multi_object",
        "templates": list(TEMPLATES),
        "seen_size_wh": [SEEN_SIZE, SEEN_SIZE],
        "coordinates": "absolute",
        "lowercase_query": True,
        "segmenter": "../segmenter",
        "max_new_tokens": 400,
    }
    (args.out / "segzero.json").write_text(json.dumps(description, indent=1) + "\n")


def average(args: argparse.Namespace) -> None:
    """Write the mean of the weights of checkpoints that began from the same one."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(_mean(args.checkpoints), str(args.out))


def repack(args: argparse.Namespace) -> None:
    """Write the mean of checkpoints of `segzero-train` as a model folder like that of `--init`."""
    before, mean = load_file(args.init / WEIGHTS_FILE), _mean(args.checkpoints)
    if set(before) != set(mean):
        raise SystemExit(f"the checkpoints hold other weights than {args.init}")
    weights = {name: tensor.to(before[name].dtype) for name, tensor in mean.items()}
    shutil.copytree(args.init, args.out, dirs_exist_ok=True)
    save_file(weights, str(args.out / WEIGHTS_FILE), metadata={"format": "pt"})
    (args.out / WEIGHTS_FILE).chmod(0o644)
    digest = file_digest(args.out / WEIGHTS_FILE)
    (args.out / SUMS_FILE).write_text(f"{digest}  {WEIGHTS_FILE}\n", encoding="utf-8")


def _mean(paths: list[Path]) -> dict[str, Tensor]:
    checkpoints = [load_file(path) for path in paths]
    names = set(checkpoints[0])
    if any(set(weights) != names for weights in checkpoints):
        raise SystemExit("the checkpoints hold different weights: they are of different models")
    return {
        name: torch.stack([weights[name].float() for weights in checkpoints]).mean(0)
        for name in sorted(names)
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.bundle.reasoner.train", description=__doc__
    )
    parser.add_argument("action", choices=("train", "export", "average", "repack"))
    parser.add_argument("--run", type=Path, help="folder of checkpoints and log")
    parser.add_argument(
        "--checkpoints", type=Path, nargs="+", help="average, repack: of which the mean"
    )
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="rendered folders")
    parser.add_argument("--stage", choices=(DENSE, TEXT, CHOICES), default=TEXT)
    parser.add_argument(
        "--init",
        type=Path,
        help="checkpoint or model folder to begin from, such as RUN/dense.safetensors",
    )
    parser.add_argument(
        "--out", type=Path, help="export, repack: the model folder; average: the checkpoint"
    )
    parser.add_argument(
        "--layers",
        type=int,
        default=LAYERS,
        help="language layers; with fewer than --init has, its upper ones are left out",
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=12, help="pictures a step")
    parser.add_argument("--questions", type=int, default=5, help="questions a picture")
    parser.add_argument(
        "--shares",
        type=float,
        nargs=len(QUERY_KINDS),
        default=KIND_SHARES,
        help=f"how often each kind is asked: {', '.join(QUERY_KINDS)}",
    )
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--warm", type=int, default=50)
    parser.add_argument("--cool", type=int, default=800, help="steps of going down at the end")
    parser.add_argument(
        "--heads-first",
        type=int,
        default=0,
        help="steps in which fresh read-out layers learn without moving the model",
    )
    parser.add_argument(
        "--words-weight",
        type=float,
        default=2.0,
        help="weight of the words against the numbers; few of the words decide, so they need it",
    )
    parser.add_argument(
        "--deciding-weight",
        type=float,
        default=10.0,
        help="weight of the words in which the choice falls, against the other words",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--muon", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    action, needs = {
        "train": (train, ("run", "data")),
        "export": (export, ("run", "out")),
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
