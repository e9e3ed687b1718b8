"""Reads and writes the weights of the reasoner's training, and exports them as a model folder."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from segzero_core.checkpoints.weights import SUMS_FILE, file_digest
from segzero_core.files import write_atomically
from segzero_core.prompt import SEG_ZERO_TEMPLATES
from training.bundle.loop import WEIGHTS_FILE
from training.bundle.reasoner.model import DenseHeads, build_model, number_ids, number_waves
from training.bundle.reasoner.tokenizer import (
    build_processor,
    build_tokenizer,
    extend_tokenizer,
    seen_size_px,
)
from training.bundle.reasoner.world import World

EMBEDDINGS = "model.language_model.embed_tokens.weight"
_LAYER = re.compile(r"model\.language_model\.layers\.(\d+)\.")


def load_tokenizer(args: argparse.Namespace, world: World) -> PreTrainedTokenizerFast:
    """Load the tokenizer of the run; a fresh run takes that of `--init`, or trains one.

    A model of another world is of no use here: its tokenizer lacks the words.
    """
    folder = args.run / "processor"
    if folder.exists():
        return AutoProcessor.from_pretrained(folder).tokenizer
    known = None if args.init is None or args.new_words else tokenizer_of(args.init)
    if known is None:
        scenes = sorted(p for f in args.data for p in f.glob("*/scene.json"))[:400]
        build_processor(build_tokenizer(world.texts(scenes, args.seed), world)).save_pretrained(
            folder
        )
    else:
        build_processor(extend_tokenizer(known, world)).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder).tokenizer


def tokenizer_of(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder, or the one that stands beside a checkpoint."""
    folder = path if path.is_dir() else path.parent / "processor"
    return AutoProcessor.from_pretrained(folder).tokenizer


def save(args: argparse.Namespace, model: nn.Module, heads: DenseHeads, opts, step: int) -> None:
    """Write weights and optimizer state of the stage."""
    weights = {f"model.{k}": v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    weights |= {f"heads.{k}": v for k, v in heads.state_dict().items()}
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    state = {"step": step, "opts": [opt.state_dict() for opt in opts]}
    target = args.run / f"{args.stage}.safetensors"
    write_atomically(target, lambda file: save_file(weights, file))
    write_atomically(_state_file(target), lambda file: torch.save(state, file))


def _state_file(weights: Path) -> Path:
    return weights.with_name(f"{weights.name}.state")


def restore(
    args: argparse.Namespace,
    tokenizer: PreTrainedTokenizerFast,
    model: nn.Module,
    heads: DenseHeads,
    opts: list[torch.optim.Optimizer],
) -> int:
    """Load the last checkpoint of the stage, or what it begins from; return the step it is at."""
    target = args.run / f"{args.stage}.safetensors"
    if not target.exists():
        if args.init is not None:
            load_weights(args.init, tokenizer, model, heads)
        return 0
    load_weights(target, tokenizer, model, heads)
    state = torch.load(_state_file(target), weights_only=True)
    for opt, saved in zip(opts, state["opts"], strict=True):
        opt.load_state_dict(saved)
    return int(state["step"])


def load_weights(
    path: Path, tokenizer: PreTrainedTokenizerFast, model: nn.Module, heads: DenseHeads
) -> None:
    """Load a checkpoint with its read-out layers, or a model folder, which has none.

    What it learned of a token goes to the token of the same text.
    """
    if path.is_dir():
        known = AutoModelForImageTextToText.from_pretrained(path, dtype="float32")
        ours = known.state_dict()
    else:
        weights = load_file(path)
        ours = {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
        heads.load_state_dict(
            {k.removeprefix("heads."): v for k, v in weights.items() if k.startswith("heads.")}
        )
    ours[EMBEDDINGS] = rows_of(tokenizer, tokenizer_of(path), ours[EMBEDDINGS].float())
    # A smaller model leaves out the upper layers.
    layers = len(model.model.language_model.layers)
    numbers = {name: _LAYER.match(name) for name in ours}
    ours = {n: w for n, w in ours.items() if not numbers[n] or int(numbers[n][1]) < layers}
    # The output layer is the embedding; it is saved once.
    model.load_state_dict(ours | {"lm_head.weight": ours[EMBEDDINGS]})


def rows_of(
    tokenizer: PreTrainedTokenizerFast, known: PreTrainedTokenizerFast, rows: Tensor
) -> Tensor:
    """Embeddings for a tokenizer, from those of another.

    A new coordinate continues the known ones, by the linear map from their waves; any other new
    token begins as the mean of all.
    """
    ours, theirs = tokenizer.get_vocab(), known.get_vocab()
    found = rows.mean(0).repeat(len(ours), 1)
    for text, index in ours.items():
        if text in theirs:
            found[index] = rows[theirs[text]]
    numbers, old = number_ids(tokenizer), number_ids(known)
    if len(numbers) > len(old):
        line = torch.arange(len(numbers))[:, None] / len(old)
        waves = torch.cat([number_waves(len(numbers)), line, torch.ones_like(line)], 1).double()
        linear = torch.linalg.lstsq(waves[: len(old)], rows[old].double()).solution
        found[numbers[len(old) :]] = (waves[len(old) :] @ linear).float()
    return found


def export(args: argparse.Namespace, world: World) -> None:
    """Write a checkpoint as a plain `transformers` folder in float16 with its segzero.json."""
    tokenizer = load_tokenizer(args, world)
    model = build_model(tokenizer, args.seed, args.layers)
    checkpoint = args.run / f"{args.stage}.safetensors"
    heads = DenseHeads(256, len(world.kinds), len(world.colors))
    load_weights(checkpoint, tokenizer, model, heads)
    side = seen_size_px(tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(args.out)
    AutoProcessor.from_pretrained(args.run / "processor").save_pretrained(args.out)
    description = {
        "name": world.name,
        "prompt_template": "multi_object",
        "templates": list(SEG_ZERO_TEMPLATES),
        "seen_size_wh": [side, side],
        "coordinates": "absolute",
        "lowercase_query": True,
        "segmenter": "../segmenter",
        "max_new_tokens": 400,
        "close_up_share": world.close_up_share,
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
