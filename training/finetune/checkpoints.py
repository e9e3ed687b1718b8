"""Writes, checks and resumes checkpoints, and records the metrics of a run.

A checkpoint counts when `complete.json` lies in it, which is written last and lists every file
with its size. A folder without it, from a killed process or a full disk, is never resumed from.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from segzero_core.checkpoints.description import FILE_NAME
from segzero_core.errors import SegZeroError
from segzero_core.files import write_atomically
from training.finetune.time_budget import TimeBudget

COMPLETE = "complete.json"
RUN_FILE = "segzero_run.json"
METRICS = "metrics.jsonl"
BEGUN = "checkpoints.txt"
"""In a run's folder: the checkpoints that it has begun to write, and so may remove."""
LOCK = "segzero-train.lock"
_PREFIX = "checkpoint-"
_LIBRARIES = ("torch", "transformers", "trl", "accelerate", "datasets")


class CheckpointError(SegZeroError):
    """A checkpoint could not be written, is not complete, or belongs to another run."""


@dataclass(frozen=True)
class Provenance:
    """Method, configuration, data and code of a run, saved beside every checkpoint."""

    method: str  # `sft` or `grpo`
    config: Mapping[str, Any]  # the resolved configuration
    data_hash: str  # hash of the prepared data
    # Commit of the code, with `-dirty` where the tree differs; empty outside git.
    git_revision: str
    model_hash: str  # hash of the weights that the run began from
    # Contents of `segzero.json`, so that a checkpoint can be loaded as a model.
    description: Mapping[str, Any]

    def identity(self) -> dict[str, Any]:
        """Return what must be equal to resume a run; length and saving intervals may change."""
        config = {k: v for k, v in self.config.items() if k not in _MAY_CHANGE}
        return {"method": self.method, "config": config, "data_hash": self.data_hash}


_MAY_CHANGE = (
    "max_steps",
    "max_minutes",
    "max_processor_minutes",
    "epochs",
    "save_steps",
    "keep_checkpoints",
    "log_steps",
    "output",
)


class RunRecorder(TrainerCallback):
    """Completes every checkpoint, and writes the metrics as one JSON object a line."""

    def __init__(self, provenance: Provenance, budget: TimeBudget) -> None:
        self._provenance, self._budget = provenance, budget

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note which checkpoint is about to be written."""
        if control.should_save and state.is_world_process_zero:
            _note_begun(Path(args.output_dir), f"{_PREFIX}{state.global_step}")

    on_epoch_end = on_step_end

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write what the run is, then the list that makes the checkpoint complete."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"{_PREFIX}{state.global_step}"
            finish_checkpoint(folder, self._provenance)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append a row to the metrics."""
        if state.is_world_process_zero and logs:
            spent = {key: round(seconds, 2) for key, seconds in self._budget.spent_s().items()}
            row = {"step": state.global_step, **spent, **logs}
            with (Path(args.output_dir) / METRICS).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")


class ResumesByHubNames(Trainer):
    """A trainer that resumes from checkpoints of Qwen2.5-VL; mixed into those of TRL.

    Qwen2.5-VL is saved under the Hub's names of its weights, which differ from those inside the
    module. The trainer of `transformers` reads a checkpoint back by the module's names, finds
    none, warns, and continues with the weights that it began from. Here the loader of published
    models reads a checkpoint too, and weights that do not fit are an error.
    """

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:  # they save by the module's names
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        target: Any = self.accelerator.unwrap_model(model if model is not None else self.model)
        saved, report = type(target).from_pretrained(
            resume_from_checkpoint,
            dtype=next(target.parameters()).dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
        for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if found := sorted(map(str, report.get(fault) or ())):
                raise CheckpointError(
                    f"{resume_from_checkpoint}: the weights do not fit: {len(found)}"
                    f" {fault.replace('_', ' ')}, such as {found[0]}"
                )
        target.load_state_dict(saved.state_dict())


def finish_checkpoint(folder: Path, provenance: Provenance) -> None:
    """Write the provenance, then mark the folder as complete.

    Raises:
        CheckpointError: Something could not be written, such as on a full disk.
    """
    run = {**provenance.__dict__, "versions": {name: version(name) for name in _LIBRARIES}}
    try:
        (folder / RUN_FILE).write_text(json.dumps(run, indent=1) + "\n")
        (folder / FILE_NAME).write_text(json.dumps(provenance.description, indent=1) + "\n")
        files = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != COMPLETE
        }
        write_atomically(folder / COMPLETE, json.dumps(files, indent=1))
    except OSError as error:
        raise CheckpointError(full_disk_message(folder, error)) from error


def full_disk_message(folder: Path, error: BaseException) -> str:
    """Return an error message about a file that does not fit on the disk."""
    reason = getattr(error, "strerror", None) or str(error)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    return (
        f"{folder} could not be written: {reason}; {free_gb:.2f} GB are free."
        " The last complete checkpoint is kept: make room, and run the same command again"
    )


def is_full_disk(error: BaseException) -> bool:
    """Whether an error of any library means that the disk is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # The errors of safetensors and torch hold the system's error only as a text.
    texts = ("No space left", "os error 28", "file write failed")
    return any(text in str(error) for text in texts)


def find_fault(folder: Path) -> str | None:
    """Say why a checkpoint is not complete; None where it is."""
    try:
        files = json.loads((folder / COMPLETE).read_text())
        for name, size in files.items():
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError) as error:
        return f"{COMPLETE} cannot be read: {error}"
    return None


def step_of(checkpoint: Path) -> int:
    """The number of the step that a checkpoint was saved at."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def last_complete(output: Path, provenance: Provenance) -> tuple[Path | None, list[str]]:
    """Find the checkpoint of a run to resume from.

    Returns:
        The newest complete checkpoint or None, and a message for each newer one that is not
        complete. Those are removed, so that no half-written folder is taken for a result.

    Raises:
        CheckpointError: The run in the folder was another one, or another program's.
    """
    messages = []
    folders = [p for p in output.glob(f"{_PREFIX}*") if p.name.removeprefix(_PREFIX).isdigit()]
    begun = _begun(output)
    for folder in folders:
        if folder.name not in begun and not (folder / RUN_FILE).is_file():
            raise CheckpointError(
                f"{folder} was not written by segzero-train, which would remove it in time; choose"
                " another output, or move that folder away"
            )
    for folder in sorted(folders, key=step_of, reverse=True):
        fault = find_fault(folder)
        if fault is None:
            _check_same_run(folder, provenance)
            return folder, messages
        messages.append(f"{folder} is not complete ({fault}) and was removed")
        shutil.rmtree(folder)
    return None, messages


def _begun(output: Path) -> set[str]:
    try:
        return set((output / BEGUN).read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return set()


def _note_begun(output: Path, name: str) -> None:
    if name not in _begun(output):
        with (output / BEGUN).open("a", encoding="utf-8") as lines:
            lines.write(f"{name}\n")


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Keep a run's folder to one process; launched together, the first of them has it.

    Raises:
        CheckpointError: Another training has it.
    """
    if int(os.environ.get("RANK", "0")):
        yield
        return
    with (output / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise CheckpointError(
                f"{output} is in use by process {file.read().strip() or '(unknown)'}; wait for it,"
                " or choose another output"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _check_same_run(folder: Path, provenance: Provenance) -> None:
    before = json.loads((folder / RUN_FILE).read_text())
    earlier = Provenance(**{k: before[k] for k in Provenance.__dataclass_fields__}).identity()
    now = json.loads(json.dumps(provenance.identity()))
    if earlier == now:
        return
    old, new = earlier["config"], now["config"]
    changed = [key for key in now if earlier.get(key) != now[key]]
    changed += [
        f"config.{key}: {old.get(key)!r} -> {new[key]!r}"
        for key in new
        if old.get(key) != new[key]
    ]
    raise CheckpointError(
        f"{folder} belongs to another run: {'; '.join(changed)}. Choose another output, or remove"
        " that folder to begin anew"
    )


def drop_later_metrics(output: Path, step: int) -> None:
    """Remove rows of steps that will be repeated, and a truncated row."""
    path = output / METRICS
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step and "train_runtime" not in row:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept))


def git_revision(folder: Path) -> str:
    """Commit of the checkout that a folder lies in; empty where there is none."""

    def git(*arguments: str) -> str:
        ran = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return ran.stdout.strip() if ran.returncode == 0 else ""

    revision = git("rev-parse", "HEAD")
    return revision + ("-dirty" if revision and git("status", "--porcelain") else "")
