r"""`segzero-train`: fine-tunes a reasoner by SFT, by GRPO, or on custom objects (`own`).

    python -m training.data.prepare --source refcocog --root refcocog --out data/g9k --limit 9000
    accelerate launch --config_file training/accelerate/zero3.yaml -m training.cli \
        grpo --config seg-zero-7b --set data=data/g9k --set output=runs/seg-zero-7b
    segzero-train grpo --config tabletop --set data=data/tabletop --set output=runs/tabletop
    segzero-train own --images images --labels labels.json --out runs/own

The same command resumes from the last complete checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segzero_core.checkpoints.description import FILE_NAME
from training.arguments import new_parser, run_command
from training.config import CONFIGS, load_config

OWN = "own"
_DESCRIPTION = """Fine-tune a reasoner, by supervision or by GRPO. The same command resumes from
the last complete checkpoint. From labelled images of your own objects in one step: segzero-train
own --help."""
_OWN_CONFIG = "own-objects"
_OWN_DESCRIPTION = """From labelled images of your own objects to a fine-tuned model.

    segzero-train own --images images --labels labels.json --out runs/own
    segzero-train own --images images --labels labels.json --out runs/own --rehearse scenes

A fifth of the images is held out. The model is trained on the true answers of the others (SFT) and
measured on the held-out images before and after. OUT/model is a folder for `segzero --model`. The
same command resumes a training that was cut off. See docs/own-objects.md.
"""


def _train(arguments: Sequence[str]) -> str:
    parser = argparse.ArgumentParser(prog="segzero-train", description=_DESCRIPTION)
    add = parser.add_argument
    add("method", choices=("sft", "grpo"))
    add("--config", required=True, help=f"a TOML file, or one of {', '.join(sorted(CONFIGS))}")
    how = "set a field of the configuration, such as grpo.learning_rate=2e-6"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=how)
    add("--show", action="store_true", help="print the resolved configuration and stop")
    args = parser.parse_args(arguments)
    config = load_config(args.config, args.set)
    if args.show:
        return config.to_json()
    from training.finetune.train import train

    folder = train(args.method, config)
    return f"segzero-train: the model is in {folder} (a folder for --model; see {FILE_NAME})"


def _train_own(arguments: Sequence[str]) -> str:
    parser = new_parser("segzero-train own", _OWN_DESCRIPTION)
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of the images")
    add("--labels", type=Path, required=True, help="COCO instances file over them")
    add("--out", type=Path, required=True, help="folder to write to, or to resume in")
    add("--model", default="tabletop", help="name, folder or Hub id to begin from")
    add("--minutes", type=float, default=10.0, help="time of the training on the clock (10)")
    add("--rehearse", type=Path, help="rendered scenes or prepared data that the model knows")
    add("--rehearse-share", type=float, default=1.0, help="questions of that for each own one")
    add("--config", default=_OWN_CONFIG, help="a configuration of segzero-train")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="set a field of it")
    args = parser.parse_args(arguments)
    config = replace(
        load_config(args.config, args.set),
        model=args.model,
        data=str(args.out / "data" / "train"),
        output=str(args.out),
        max_minutes=args.minutes,
    )
    from training.finetune.custom_objects import train_on_labels

    return train_on_labels(
        args.images, args.labels, args.out, config, args.rehearse, args.rehearse_share
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `run_command`."""
    words = list(sys.argv[1:] if argv is None else argv)
    is_own = words[:1] == [OWN]
    name = "segzero-train own: error" if is_own else "segzero-train: error"
    work = (lambda: _train_own(words[1:])) if is_own else (lambda: _train(words))
    return run_command(name, work, "stopped; the same command resumes from here")


if __name__ == "__main__":
    sys.exit(main())
