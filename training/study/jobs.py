"""Runs the plan: trains, evaluates and keeps the results. Finished steps are skipped.

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
from itertools import chain
from pathlib import Path
from typing import Any, Final

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
    arms_after_rates,
    rate_arms,
    settings_of_all,
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
    """Where the study works and what it keeps."""

    work: Path  # folder of scenes, checkpoints and logs
    kept: Path  # folder of the results that are kept beside the document
    # The warmed-up model: a name, or a folder with a reasoner and a segmenter. Empty: the bundled
    # one as it was at `WARMED_UP`, from the project's history.
    base: str = ""
    scale: Scale = field(default_factory=Scale)  # how large it is
    jobs: int = 2  # trainings at a time
    only: tuple[str, ...] = ()  # names of the arms to do; empty: all

    def folder(self, arm: Arm, seed: int) -> Path:
        """Where one training works."""
        return self.work / f"{arm.name}-{seed}"

    def wants(self, arm: Arm) -> bool:
        """Whether an arm is among those to do."""
        return not self.only or arm.name in self.only


def run(study: Study) -> None:
    """Run all steps that are not done yet.

    Raises:
        StudyError: There is no such arm, or a command failed; its log is named.
        InputError: Data or results are damaged, or belong to another study.
    """
    known = [arm.name for arm in (*rate_arms(), *arms_after_rates(SFT_RATES[0]))]
    if unknown := [name for name in study.only if name not in known]:
        raise StudyError(f"no arm {', '.join(unknown)}; there are {', '.join(known)}")
    study.kept.mkdir(parents=True, exist_ok=True)
    if not study.base:
        study = replace(study, base=str(_from_history(study.work / "warmed_up")))
    _prepare(study)
    tried = _kept_rates(study)
    rates = [arm for arm in rate_arms() if study.wants(arm) and _rate_of(arm) not in tried]
    _in_parallel(study, [(arm, seed) for arm in rates for seed in arm.seeds])
    rate = choose_rate(study)
    arms = [arm for arm in arms_after_rates(rate) if study.wants(arm)]
    if any(arm.base == SMALL for arm in arms):
        _warm_up_small(study)
    # First seeds of everything come first, so that a study cut short has all its rows.
    work = [(arm, seed) for arm in arms for seed in arm.seeds]
    _in_parallel(study, sorted(work, key=lambda job: job[1]))


def choose_rate(study: Study) -> float:
    """Keep and return SFT's rate with the highest gIoU on the validation scenes.

    Where none was tried, it is the middle one.
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
    """Return gIoU by rate, of all rates tried so far, on any machine."""
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


def _prepare(study: Study) -> None:
    """Render the scenes and write the training data."""
    scale = study.scale
    for name, seed, count in (
        ("train", TRAIN_SEED, scale.train_scenes),
        ("validation", VALIDATION_SEED, scale.validation_scenes),
        ("test", TEST_SEED, scale.test_scenes),
    ):
        folder, log = study.work / name, study.work / "render.log"
        if len(list(folder.glob("*/scene.json"))) < count:
            _command(log, "worlds.tabletop.render", seed=seed, count=count, out=folder)
    for name, out in (("train", "prepared"), ("test", HELD_OUT)):
        options = {"source": "tabletop", "split": name, "seen_size": 336, "out": study.work / out}
        log = study.work / "prepare.log"
        _command(log, "training.data.prepare", root=study.work / name, **options)


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
    """Train one arm with one seed, evaluate the result, and keep what came out."""
    folder, scale = study.folder(arm, seed), study.scale
    if arm.table != RATES and result_path(study.kept, arm.name, seed).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    print(f"study: {arm.name}, seed {seed}", file=sys.stderr, flush=True)
    model = _trained(study, arm, seed) if arm.method else _base(study, arm.base)
    scenes = "validation" if arm.table == RATES else "test"
    asked = {"model": model, "device": "cpu"}
    answers = {"data": study.work / scenes, "template": arm.template, "batch": scale.batch}
    _sample(folder / f"{scenes}.jsonl", "training.evaluation.evaluate", **asked, **answers)
    if arm.table == RATES:
        return
    words = {"benchmark": "tabletop", "root": study.work / "test", "batch": 12}
    _sample(folder / "words.jsonl", "training.evaluation.retention", **asked, **words)
    # All arms answer the same held-out questions, whatever they themselves were paid for.
    _sample(
        folder / "rewards.jsonl",
        "training.finetune.reward_statistics",
        settings=(*REWARD_SETTINGS, f"template={arm.template}"),
        model=model,
        data=study.work / HELD_OUT,
        questions=scale.reward_questions,
        replies=scale.reward_replies,
    )
    _keep(study, arm, seed)


def _sample(samples: Path, module: str, **options: Any) -> None:
    """Write a file of samples if it is missing; the log lies beside it."""
    if not samples.is_file():
        _command(samples.with_suffix(".log"), module, samples=samples, **options)


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
        log = folder / "train.log"
        _command(log, "training.cli", arm.method, settings=settings, config="tabletop")
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
    """Remove the uppermost layers of the model and warm it up again."""
    folder, steps = study.work / "small", study.scale.small_steps
    model, log = folder / "model", study.work / "small.log"
    files, module = find_model(study.base), "training.bundle.reasoner.train"
    shared = {"run": folder / "run", "layers": SMALL_LAYERS}
    data = {"stage": "text", "init": files.reasoner, "data": study.work / "train"}
    schedule = {"steps": steps, "cool": steps, "warm": 10, "heads_first": 20, "lr": "1e-3"}
    questions = {"words_weight": 5, "questions": 6, "save_every": 20, "log_every": 10}
    words = ("train", "--no-muon", "--no-bf16")
    _command(log, module, *words, **shared, **data, **schedule, **questions)
    if not (model / "reasoner" / "segzero.json").is_file():
        _command(log, module, "export", **shared, out=model / "reasoner")
    if not (model / "segmenter").exists():
        shutil.copytree(files.segmenter, model / "segmenter")


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


def _command(
    log: Path, module: str, *words: str, settings: Iterable[str] = (), **options: object
) -> None:
    """Run a module of this checkout on one core; what it prints goes to the log.

    Each setting is a value of `--set`; the option `batch_size=5` becomes `--batch-size 5`.

    Raises:
        StudyError: It failed.
    """
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items()]
    pairs += [("--set", setting) for setting in settings]
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *words, *chain.from_iterable(pairs)]
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=file, stderr=file, check=False
        )
    if done.returncode:
        raise StudyError(f"{module} failed with exit code {done.returncode}; see {log}")
