"""Does what the plan says: trains, asks, keeps the results. Every step that is done is skipped.

All work is done by the commands that a user would type, each in a process with one core, several
at a time.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from segzero_core.checkpoints.registry import find_model
from segzero_core.checkpoints.weights import weights_hash
from segzero_core.errors import InputError, SegZeroError
from training.evaluation.predictions import read_predictions, write_whole
from training.finetune.checkpoints import COMPLETE, METRICS
from training.study.plan import (
    ASKED_KINDS,
    BASE,
    RATES,
    REWARD_SETTINGS,
    SFT_RATES,
    SMALL,
    SMALL_LAYERS,
    TRAINED_KINDS,
    WARMED_UP,
    Arm,
    Scale,
    main_arms,
    pilot_arms,
    rate_arms,
    settings_of_all,
    size_arms,
)
from training.study.results import (
    CASES,
    cases_of,
    keep_metrics,
    load_cases,
    make_result,
    metrics_path,
    result_path,
    save,
)

ROOT: Final = Path(__file__).parents[2]
CHOICE: Final = "sft_rate.json"
HELD_OUT: Final = "prepared_test"
TRAIN_SEED, VALIDATION_SEED, TEST_SEED = 300_000, 800_000, 1_000_000


class StudyError(SegZeroError):
    """A step of the study failed."""


@dataclass(frozen=True)
class Study:
    """Where the study works and what it keeps.

    Attributes:
        work: Folder of scenes, checkpoints and logs.
        kept: Folder of the results that are kept beside the document.
        base: The warmed-up model: a name, or a folder with a reasoner and a segmenter. Empty: the
            bundled one as it was at `WARMED_UP`, from the project's history.
        scale: How large it is.
        jobs: Trainings at a time.
        only: Names of the arms to do; empty: all.
    """

    work: Path
    kept: Path
    base: str = ""
    scale: Scale = field(default_factory=Scale)
    jobs: int = 2
    only: tuple[str, ...] = ()

    def folder(self, arm: Arm, seed: int) -> Path:
        """Where one training works."""
        return self.work / f"{arm.name}-{seed}"

    def wants(self, arm: Arm) -> bool:
        """Whether an arm is among those to do."""
        return not self.only or arm.name in self.only


def run(study: Study) -> None:
    """Do everything that is not done yet.

    Raises:
        StudyError: There is no such arm, or a command failed; its log is named.
        InputError: Data or results are damaged, or belong to another study.
    """
    _check_names(study.only)
    study.kept.mkdir(parents=True, exist_ok=True)
    if not study.base:
        study = replace(study, base=str(_from_history(study.work / "warmed_up")))
    _prepare(study)
    known = _kept_rates(study)
    rates = [arm for arm in rate_arms() if study.wants(arm) and _rate_of(arm) not in known]
    _in_parallel(study, [(arm, seed) for arm in rates for seed in arm.seeds])
    rate = choose_rate(study)
    arms = [arm for arm in (*main_arms(rate), *pilot_arms(), *size_arms()) if study.wants(arm)]
    if any(arm.base == SMALL for arm in arms):
        _warm_up_small(study)
    _in_parallel(study, sorted(((arm, seed) for arm in arms for seed in arm.seeds), key=_turn))


def _check_names(names: Iterable[str]) -> None:
    arms = (*rate_arms(), *main_arms(SFT_RATES[0]), *pilot_arms(), *size_arms())
    known = [arm.name for arm in arms]
    if unknown := [name for name in names if name not in known]:
        raise StudyError(f"no arm {', '.join(unknown)}; there are {', '.join(known)}")


def choose_rate(study: Study) -> float:
    """SFT's rate with the highest gIoU on the validation scenes; kept with the results.

    Returns:
        The rate; the middle one where none was tried.
    """
    scores = _kept_rates(study)
    for arm in rate_arms():
        path = study.folder(arm, 0) / "validation.jsonl"
        if path.is_file():
            rows = [r for r in read_predictions(path).rows.values() if r["kind"] in TRAINED_KINDS]
            scores[_rate_of(arm)] = sum(r["iou"] for r in rows) / len(rows)
    if not scores:
        return _rate_of(rate_arms()[1])
    best = max(scores, key=lambda rate: scores[rate])
    values = {"validation_giou": {f"{k:g}": round(v, 4) for k, v in scores.items()}, "rate": best}
    write_whole(study.kept / CHOICE, json.dumps(values, indent=1) + "\n")
    return best


def _from_history(folder: Path) -> Path:
    """Take the warmed-up model out of the project's history."""
    model = folder / "models" / "tabletop"
    if not model.is_dir():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        command = ["git", "-C", str(ROOT), "archive", WARMED_UP, "models/tabletop"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise StudyError(
                f"the warmed-up model is in commit {WARMED_UP[:7]} of this project, which cannot"
                f" be read here: {done.stderr.decode(errors='replace').strip()}; fetch the whole"
                " history, or name a model to begin from with --base"
            )
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(partial, filter="data")
        partial.rename(folder)
    return model


def _kept_rates(study: Study) -> dict[float, float]:
    """GIoU by rate, of those that were tried; also on another machine."""
    path = study.kept / CHOICE
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["validation_giou"]
        return {float(rate): float(giou) for rate, giou in values.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} does not hold the rates that were tried: {error!r}") from error


def _rate_of(arm: Arm) -> float:
    return float(arm.settings[0].partition("=")[2])


def _turn(job: tuple[Arm, int]) -> tuple[int, ...]:
    """First seeds of everything come first, so that a study cut short has all its rows."""
    return (job[1],)


def _prepare(study: Study) -> None:
    """Render the scenes and write the training data."""
    scale = study.scale
    for name, seed, count in (
        ("train", TRAIN_SEED, scale.train_scenes),
        ("validation", VALIDATION_SEED, scale.validation_scenes),
        ("test", TEST_SEED, scale.test_scenes),
    ):
        folder = study.work / name
        if len(list(folder.glob("*/scene.json"))) < count:
            arguments = ["--seed", str(seed), "--count", str(count), "--out", str(folder)]
            _command(study.work / "render.log", "worlds.tabletop.render", *arguments)
    for name, out in (("train", "prepared"), ("test", HELD_OUT)):
        arguments = ["--source", "tabletop", "--root", str(study.work / name), "--split", name]
        arguments += ["--seen-size", "336", "--out", str(study.work / out)]
        _command(study.work / "prepare.log", "training.data.prepare", *arguments)


def _in_parallel(study: Study, jobs: Iterable[tuple[Arm, int]]) -> None:
    with ThreadPoolExecutor(study.jobs) as pool:
        waiting = [pool.submit(_do, study, arm, seed) for arm, seed in jobs]
        try:
            for job in waiting:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _do(study: Study, arm: Arm, seed: int) -> None:
    """Train one arm with one seed, ask the result, and keep what came out."""
    folder = study.folder(arm, seed)
    if arm.table != RATES and result_path(study.kept, arm.name, seed).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"{arm.name}, seed {seed}")
    model = _trained(study, arm, seed) if arm.method else _base(study, arm.base)
    if arm.table == RATES:
        _ask(study, arm, model, "validation", folder)
        return
    _ask(study, arm, model, "test", folder)
    _ask_words(study, model, folder)
    _sample_rewards(study, arm, model, folder)
    _keep(study, arm, seed)


def _trained(study: Study, arm: Arm, seed: int) -> str:
    """Train, or find the model of a training that is done."""
    tuned = next(
        (a for a in rate_arms() if arm.name == "sft" and a.settings == arm.settings), None
    )
    if tuned is not None and seed in tuned.seeds:
        _adopt(study.folder(tuned, seed), study.folder(arm, seed))
    folder = study.folder(arm, seed)
    if not (folder / "model" / COMPLETE).is_file():
        settings = (
            *settings_of_all(study.scale),
            *arm.settings,
            f"template={arm.template}",
            f"model={_base(study, arm.base)}",
            f"data={study.work / 'prepared'}",
            f"output={folder}",
            f"seed={seed}",
        )
        sets = [word for setting in settings for word in ("--set", setting)]
        _command(
            folder / "train.log",
            "training.cli",
            arm.method,
            "--config",
            "tabletop",
            *sets,
        )
    return str(folder / "model")


def _adopt(source: Path, target: Path) -> None:
    """Take a model that was trained under another name."""
    if (source / "model" / COMPLETE).is_file() and not (target / "model").exists():
        shutil.copy(source / METRICS, target / METRICS)
        partial = target / "model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source / "model", partial)
        partial.rename(target / "model")


def _base(study: Study, base: str) -> str:
    return study.base if base == BASE else str(study.work / "small" / "model")


def _warm_up_small(study: Study) -> None:
    """Take the uppermost layers off the model and warm it up again."""
    run_folder, model = study.work / "small" / "run", study.work / "small" / "model"
    files = find_model(study.base)
    shared = ("--run", str(run_folder), "--layers", str(SMALL_LAYERS))
    steps = str(study.scale.small_steps)
    _command(
        study.work / "small.log", "training.bundle.reasoner.train", "train", *shared,
        "--stage", "text",
        "--init", str(files.reasoner), "--data", str(study.work / "train"), "--steps", steps,
        "--cool", steps, "--warm", "10", "--heads-first", "20", "--lr", "1e-3",
        "--words-weight", "5", "--questions", "6", "--save-every", "20", "--no-muon",
        "--no-bf16", "--log-every", "10",
    )  # fmt: skip
    if not (model / "reasoner" / "segzero.json").is_file():
        export = ("export", *shared, "--out", str(model / "reasoner"))
        _command(study.work / "small.log", "training.bundle.reasoner.train", *export)
    if not (model / "segmenter").exists():
        shutil.copytree(files.segmenter, model / "segmenter")


def _ask(study: Study, arm: Arm, model: str, scenes: str, folder: Path) -> None:
    samples = folder / f"{scenes}.jsonl"
    if not samples.is_file():
        arguments = ["--data", str(study.work / scenes), "--model", model]
        arguments += ["--template", arm.template, "--batch", str(study.scale.batch)]
        arguments += ["--samples", str(samples), "--device", "cpu"]
        _command(folder / f"{scenes}.log", "training.evaluation.evaluate", *arguments)


def _ask_words(study: Study, model: str, folder: Path) -> None:
    samples = folder / "words.jsonl"
    if not samples.is_file():
        arguments = ["--benchmark", "tabletop", "--root", str(study.work / "test")]
        arguments += ["--model", model, "--batch", "12", "--device", "cpu"]
        _command(
            folder / "words.log",
            "training.evaluation.retention",
            *arguments,
            "--samples",
            str(samples),
        )


def _sample_rewards(study: Study, arm: Arm, model: str, folder: Path) -> None:
    """Reward replies to the same held-out questions, whatever the arm itself was paid for."""
    samples = folder / "rewards.jsonl"
    if not samples.is_file():
        settings = (*REWARD_SETTINGS, f"template={arm.template}")
        arguments = ["--model", model, "--data", str(study.work / HELD_OUT)]
        arguments += ["--questions", str(study.scale.reward_questions)]
        arguments += ["--replies", str(study.scale.reward_replies), "--samples", str(samples)]
        arguments += [word for setting in settings for word in ("--set", setting)]
        _command(folder / "rewards.log", "training.finetune.reward_statistics", *arguments)


def _keep(study: Study, arm: Arm, seed: int) -> None:
    folder = study.folder(arm, seed)
    samples = folder / "test.jsonl"
    if not (study.kept / CASES).is_file():
        save(cases_of(read_predictions(samples), ASKED_KINDS), study.kept / CASES)
    files = find_model(_base(study, arm.base))
    base_hash = weights_hash(sorted(files.reasoner.glob("*.safetensors")))
    cases = load_cases(study.kept)
    result = make_result(arm.name, seed, base_hash, folder, cases)
    if seed:
        result = replace(result, completions=())
    if arm.method:
        keep_metrics(folder / METRICS, metrics_path(study.kept, arm.name, seed))
    save(result, result_path(study.kept, arm.name, seed))


def _command(log: Path, module: str, *arguments: str) -> None:
    """Run a module of this checkout on one core; what it prints goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("a", encoding="utf-8") as lines:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=lines,
            stderr=lines,
            check=False,
        )
    if done.returncode:
        raise StudyError(f"{module} failed with exit code {done.returncode}; see {log}")


def _say(text: str) -> None:
    print(f"study: {text}", file=sys.stderr, flush=True)
