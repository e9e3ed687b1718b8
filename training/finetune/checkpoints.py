"""Checkpoints that are whole or are not there, and the metrics that belong to them.

A checkpoint counts when `complete.json` lies in it, which is written last and lists every file
with its size. What a full disk or a killed process left behind has no such list, and is never
gone on from.
"""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from segzero_core.checkpoints.description import FILE_NAME
from segzero_core.errors import SegZeroError
from training.finetune.time_budget import SPENT, ProcessorClock

COMPLETE = "complete.json"
RUN_FILE = "segzero_run.json"
METRICS = "metrics.jsonl"
_PREFIX = "checkpoint-"
_LIBRARIES = ("torch", "transformers", "trl", "accelerate", "datasets")


class CheckpointError(SegZeroError):
    """A checkpoint could not be written or is not whole."""


@dataclass(frozen=True)
class Provenance:
    """What a run is, kept beside every checkpoint.

    Attributes:
        method: `sft` or `grpo`.
        config: The resolved configuration.
        data_hash: Of the prepared data.
        git_revision: Commit of the code, with `-dirty` where the tree differs; empty outside git.
        model_hash: Of the weights that the run began from.
        description: What `segzero.json` says of the model, so that a checkpoint can be loaded.
    """

    method: str
    config: Mapping[str, Any]
    data_hash: str
    git_revision: str
    model_hash: str
    description: Mapping[str, Any]

    def identity(self) -> dict[str, Any]:
        """What must be the same when a run is gone on with; how long it runs may change."""
        config = {k: v for k, v in self.config.items() if k not in _MAY_CHANGE}
        return {"method": self.method, "config": config, "data_hash": self.data_hash}


_MAY_CHANGE = (
    "max_steps",
    "max_processor_minutes",
    "epochs",
    "save_steps",
    "keep_checkpoints",
    "log_steps",
    "output",
)


class KeepWhole(TrainerCallback):
    """Finishes every checkpoint, and writes the metrics as one JSON object a line."""

    def __init__(self, provenance: Provenance, clock: ProcessorClock) -> None:
        self._provenance, self._clock = provenance, clock

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write what the run is, then the list that makes the checkpoint whole."""
        if state.is_world_process_zero:
            finish_checkpoint(
                Path(args.output_dir) / f"{_PREFIX}{state.global_step}", self._provenance
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append a row."""
        if state.is_world_process_zero and logs:
            spent_s = round(self._clock.spent_s(), 2)
            row = {"step": state.global_step, SPENT: spent_s, **logs}
            with (Path(args.output_dir) / METRICS).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")


def finish_checkpoint(folder: Path, provenance: Provenance) -> None:
    """Add what the run is, then mark the folder as whole.

    Raises:
        CheckpointError: Something could not be written, such as on a full disk.
    """
    run = {
        **provenance.__dict__,
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    try:
        (folder / RUN_FILE).write_text(json.dumps(run, indent=1) + "\n")
        (folder / FILE_NAME).write_text(json.dumps(provenance.description, indent=1) + "\n")
        files = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != COMPLETE
        }
        temporary = folder / f"{COMPLETE}.tmp"
        temporary.write_text(json.dumps(files, indent=1))
        temporary.replace(folder / COMPLETE)
    except OSError as error:
        raise CheckpointError(full_disk_message(folder, error)) from error


def full_disk_message(folder: Path, error: BaseException) -> str:
    """Say what could not be written, and how much room there is."""
    reason = getattr(error, "strerror", None) or str(error)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    return (
        f"{folder} could not be written: {reason}; {free_gb:.2f} GB are free."
        " The last whole checkpoint is kept: make room, and run the same command again"
    )


def is_full_disk(error: BaseException) -> bool:
    """Say whether an error, of whatever library, comes from a disk without room."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors and torch have errors of their own, which hold the system's only as a text.
    return any(
        text in str(error) for text in ("No space left", "os error 28", "file write failed")
    )


def fault_of(folder: Path) -> str | None:
    """Say why a checkpoint is not whole; None where it is."""
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


def last_whole(output: Path, provenance: Provenance) -> tuple[Path | None, list[str]]:
    """Find the checkpoint to go on from.

    Args:
        output: Folder of the run.
        provenance: What the run is now.

    Returns:
        The newest whole checkpoint or None, and a line for each newer one that is not whole; they
        are removed, so that nothing half-written is taken for a result.

    Raises:
        CheckpointError: The run in the folder was another one.
    """
    complaints = []
    folders = [path for path in output.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdigit()]
    for folder in sorted(folders, key=_step_of, reverse=True):
        fault = fault_of(folder)
        if fault is None:
            _check_same_run(folder, provenance)
            return folder, complaints
        complaints.append(f"{folder} is not whole ({fault}) and was removed")
        shutil.rmtree(folder)
    return None, complaints


def drop_later_metrics(output: Path, step: int) -> None:
    """Take out rows of steps that will be done again, and a row that was cut off."""
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
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


def git_revision(folder: Path) -> str:
    """Commit of the checkout that a folder lies in; empty where there is none."""

    def git(*arguments: str) -> str:
        ran = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return ran.stdout.strip() if ran.returncode == 0 else ""

    revision = git("rev-parse", "HEAD")
    return revision + ("-dirty" if revision and git("status", "--porcelain") else "")


def _step_of(folder: Path) -> int:
    return int(folder.name[len(_PREFIX) :])


def _check_same_run(folder: Path, provenance: Provenance) -> None:
    before = json.loads((folder / RUN_FILE).read_text())
    earlier = Provenance(**{k: before[k] for k in Provenance.__dataclass_fields__}).identity()
    now = json.loads(json.dumps(provenance.identity()))
    if earlier == now:
        return
    changed = [key for key in now if earlier.get(key) != now[key]]
    if "config" in changed:
        changed += [
            f"config.{key}: {earlier['config'].get(key)!r} -> {value!r}"
            for key, value in now["config"].items()
            if earlier["config"].get(key) != value
        ]
    raise CheckpointError(
        f"{folder} belongs to another run: {'; '.join(changed)}. Choose another output, or remove"
        " that folder to begin anew"
    )
