"""Make a bundled model in one command: scenes, warm-up, segmenter, memory, GRPO.

    python -m training.bundle.recipe --work runs/tabletop --out runs/tabletop/bundle
    python -m training.bundle.recipe --world libero --work runs/libero --out runs/libero/bundle

`tabletop` begins from nothing. `libero` begins from the weights of `tabletop` and needs the extra
`libero` for its scenes; its segmenter has no memory, so it does not track.

Each step is a command of its own, which is shown, and goes on where it was stopped; one that is
done is not done again. `--scale 0.01` does a hundredth of everything: it makes no useful model,
and shows that all steps fit together. On processors without bfloat16 add `--plain`.

The committed weights came by a longer way, on which this one was found; their card tells it.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from segzero_core.checkpoints.registry import bundled_folder
from training.bundle.tracker.initialization import MARKER_STEPS


class Step(NamedTuple):
    """One command: the name of its mark in the work folder, and the words after `python -m`."""

    name: str
    arguments: tuple[str, ...]


class Scale(float):
    """How much of everything is done: a share of scenes, steps and minutes."""

    def count(self, whole: int, least: int = 1) -> str:
        """Return a number of scenes or steps; never none."""
        return str(max(least, round(whole * self)))

    def minutes(self, whole: float) -> str:
        """Return a time."""
        return f"{whole * self:g}"


def _step(name: str, *words: str | Path) -> Step:
    """Make a step from words; a text is split at its spaces, a path is not."""
    parts = ([str(word)] if isinstance(word, Path) else word.split() for word in words)
    return Step(name, tuple(part for group in parts for part in group))


def steps(work: Path, out: Path, scale: Scale, *, plain: bool) -> tuple[Step, ...]:
    """Return all commands, in their order.

    `plain` trains in float32: for processors without bfloat16.
    """
    return (
        *_scenes(work / "data", scale),
        *_reasoner(work, out / "reasoner", scale, plain=plain),
        *_segmenter(work, out / "segmenter", scale),
        *_reinforcement(work, out, scale),
    )


def libero_steps(work: Path, out: Path, scale: Scale, *, plain: bool) -> tuple[Step, ...]:
    """Return all commands of the model `libero`; as `steps`, from the weights of `tabletop`."""
    before, data = bundled_folder("tabletop"), work / "data"
    scenes = (data / "train", "--val", data / "val")
    precision = "--no-bf16" if plain else "--bf16"

    def render(name: str, seed: int, count: int) -> Step:
        amount = f"--seed {seed} --count {scale.count(count)} --jobs 2"
        return _step(name, f"worlds.libero.render {amount} --out", data / name)

    def train(stage: str, init: Path, count: int, cool: int, more: str) -> Step:
        schedule = f"--steps {scale.count(count)} --cool {scale.count(cool)} {more}"
        command = f"training.bundle.reasoner.train train --world libero --stage {stage} --run"
        start = ("--init", init, "--data", data / "train")
        return _step(stage, command, work / stage, *start, schedule, precision)

    words = "--words-weight 6 --deciding-weight 6 --batch 5 --questions 10 --new-words"
    words += " --thoughts distances --invented 0.5"
    export = "training.bundle.reasoner.train export --world libero --run"
    segmenter = "training.bundle.segmenter.train train --data"
    places = ("--work", work / "segmenter-work", "--out", out / "segmenter")
    number = "" if plain else "--bf16"
    minutes = f"--minutes {scale.minutes(120)} --sides 0:512:4 --close-ups 0.5 {number}"
    return (
        render("train", 0, 8000),
        render("val", 800_000, 150),
        train("dense", before / "reasoner", 800, 300, "--batch 16 --lr 2.5e-3"),
        train("text", work / "dense" / "dense.safetensors", 1600, 400, f"--lr 1.6e-3 {words}"),
        _step("reasoner", export, work / "text", "--out", out / "reasoner"),
        _step("segmenter", segmenter, *scenes, "--init", before / "segmenter", *places, minutes),
    )


def _scenes(data: Path, scale: Scale) -> tuple[Step, ...]:
    def make(
        name: str, module: str, seed: int, count: int, least: int = 1, more: str = ""
    ) -> Step:
        amount = f"--seed {seed} --count {scale.count(count, least)}"
        return _step(name, f"worlds.tabletop.{module} {amount} --out", data / name, more)

    return (
        make("train", "render", 0, 6600),
        make("val", "render", 800_000, 200),
        make("grpo", "render", 300_000, 600, least=3),  # queries for one step
        make("clips", "clips", 0, 500, more="--frames 10 --rate 5"),
        make("clips-val", "clips", 800_000, 4, more="--frames 30 --rate 5"),
    )


def _reasoner(work: Path, out: Path, scale: Scale, *, plain: bool) -> tuple[Step, ...]:
    precision = "--no-bf16" if plain else "--bf16"

    def train(
        run: str, stage: str, count: int, cool: int, rate: str, more: str, before: str = ""
    ) -> Step:
        """One stage; `before` is the checkpoint that it begins from."""
        schedule = f"--steps {scale.count(count)} --cool {scale.count(cool)} --lr {rate}"
        start = ("--init", work / f"{before}.safetensors") if before else ()
        command = f"training.bundle.reasoner.train train --stage {stage} --run"
        data = (f"{schedule} --data", work / "data" / "train")
        return _step(run, command, work / run, *data, precision, *start, more)

    def export(name: str, to: Path) -> Step:
        command = "training.bundle.reasoner.train export --run"
        return _step(name, command, work / "last", "--out", to)

    fast, slow = "3e-3", "1.2e-3"
    text = "--words-weight 6 --deciding-weight 6 --questions 6"
    choices = "--batch 8 --questions 48 --deciding-weight 6"
    return (
        train("dense", "dense", 2000, 900, fast, "--batch 16"),
        train("text", "text", 900, 300, fast, text, "dense/dense"),
        train("choices", "choices", 120, 80, slow, choices, "text/text"),
        train("last", "text", 200, 150, slow, text, "choices/choices"),
        export("reasoner", out),
        export("warmed-up", work / "warmed-up"),
    )


def _segmenter(work: Path, out: Path, scale: Scale) -> tuple[Step, ...]:
    def train(name: str, data: str, val: str, to: Path, more: str, *base: str | Path) -> Step:
        part = "tracker" if base else "segmenter"
        command = f"training.bundle.{part}.train train --data"
        scenes = (work / "data" / data, "--val", work / "data" / val)
        places = ("--work", work / f"{part}-work", "--out", to)
        return _step(name, command, *scenes, *base, *places, more)

    single = work / "single"
    marks = f"--minutes {scale.minutes(60)} --mark-steps {scale.count(MARKER_STEPS)}"
    return (
        train("single", "train", "val", single, f"--minutes {scale.minutes(92)}"),
        train("segmenter", "clips", "clips-val", out, marks, "--base", single),
    )


def _reinforcement(work: Path, out: Path, scale: Scale) -> tuple[Step, ...]:
    """GRPO from the end of the warm-up; at least one step of it."""
    data, run = work / "data", work / "grpo"
    settings = {
        "model": out,
        "data": data / "grpo-prepared",
        "output": run,
        "max_steps": scale.count(180),
        "epochs": 1000,
        "save_steps": scale.count(20),
        "grpo.learning_rate": 5e-5,
        "grpo.accuracy": "soft",
        "grpo.scale_by_std": "false",
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    prepare = "training.data.prepare --source tabletop --root"
    train = ("training.cli", "grpo", "--config", "tabletop", *sets)
    # The mean with the weights of before, these twice: those of GRPO alone refuse too little.
    before, after = (d / "model.safetensors" for d in (work / "warmed-up", run / "model"))
    repack = "training.bundle.reasoner.train repack --init"
    parts = ("--checkpoints", before, before, after)
    prepared = ("--seen-size 336 --out", data / "grpo-prepared")
    return (
        _step("grpo-prepared", prepare, data / "grpo", *prepared),
        Step("grpo-trained", train),
        _step("grpo-mean", repack, work / "warmed-up", "--out", out / "reasoner", *parts),
    )


def run(work: Path, todo: tuple[Step, ...]) -> int:
    """Do what is not done yet; return the exit code of the first step that fails, or 0."""
    done = work / "done"
    done.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(todo, start=1):
        mark, command = done / step.name, shlex.join(("python", "-m", *step.arguments))
        if mark.exists() and mark.read_text() == command:
            continue
        print(f"recipe: {number} of {len(todo)}: {command}", flush=True)
        code = subprocess.run([sys.executable, "-m", *step.arguments], check=False).returncode
        if code:
            print(f"recipe: {step.name} ended with exit code {code}; the same command goes on")
            return code
        mark.write_text(command)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.bundle.recipe", description=__doc__)
    parser.add_argument("--world", choices=sorted(_RECIPES), default="tabletop")
    parser.add_argument("--work", type=Path, required=True, help="scenes, checkpoints, logs")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--scale", type=float, default=1.0, help="share of everything")
    parser.add_argument("--plain", action="store_true", help="everything in float32")
    args = parser.parse_args(argv)
    if not 0 < args.scale <= 1:
        parser.error(f"--scale: expected a share above 0 and at most 1, got {args.scale:g}")
    make = _RECIPES[args.world]
    return run(args.work, make(args.work, args.out, Scale(args.scale), plain=args.plain))


_RECIPES = {"tabletop": steps, "libero": libero_steps}


if __name__ == "__main__":
    sys.exit(main())
