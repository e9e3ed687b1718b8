"""The loop that segmenter and tracker share: what it exports, and what it remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.bundle.tracker.test_train import SHORT, write_clips
from training.bundle.loop import (
    CHECKPOINT,
    Loop,
    LoopSettings,
    Run,
    exported_score,
    parse_phases,
    phase_at,
    prefetched,
)
from training.bundle.segmenter import train as segmenter
from training.bundle.segmenter.export import export as export_untrained
from training.bundle.segmenter.model import TINY, build_model, model_config
from training.bundle.tracker import train as tracker
from training.bundle.tracker.data import find_clips

WEIGHTS = "model.safetensors"
SOON: dict[str, Any] = {"minutes": 10.0, "validate_minutes": 0.0, "checkpoint_minutes": 100.0}


class CrashError(Exception):
    pass


def scores(*values: float) -> Callable[..., dict[str, float]]:
    """A validation that gives these scores, one after the other, and then ends the process."""
    left: Iterator[float] = iter(values)

    def validate(*_: Any) -> dict[str, float]:
        for value in left:
            return {"score": value}
        raise CrashError

    return validate


@pytest.fixture
def train_segmenter(scenes: Path, tmp_path: Path) -> Callable[[], object]:
    phases = (segmenter.Phase(0.0, 64, 2),)
    settings = segmenter.Settings(
        size="tiny", phases=phases, validate_scenes=1, max_steps=4, **SOON
    )
    return lambda: segmenter.train([scenes], scenes, tmp_path / "out", tmp_path / "work", settings)


@pytest.fixture
def train_tracker(tmp_path: Path) -> Callable[[], object]:
    torch.manual_seed(0)
    base = tmp_path / "base"
    export_untrained(build_model(model_config(TINY)), TINY, base)
    clips = find_clips([write_clips(tmp_path / "clips")])
    settings = replace(SHORT, max_steps=4, **SOON)
    return lambda: tracker.train(
        clips, clips[:1], base, tmp_path / "out", tmp_path / "work", settings
    )


@pytest.mark.parametrize(
    ("module", "fixture"),
    [
        pytest.param(segmenter, "train_segmenter", id="segmenter"),
        pytest.param(tracker, "train_tracker", id="tracker"),
    ],
)
def test_after_a_crash_no_worse_export_replaces_a_better_one(
    module: Any,
    fixture: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = request.getfixturevalue(fixture)
    monkeypatch.setattr(module, "validate", scores(0.5, 0.9))
    with pytest.raises(CrashError):
        train()
    best = (tmp_path / "out" / WEIGHTS).read_bytes()
    monkeypatch.setattr(module, "validate", lambda *_: {"score": 0.6})
    train()
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == best


@dataclass
class Job:
    """One weight that a step raises by 1."""

    work: Path
    out: Path

    def loop(self, *values: float, steps: int = 2) -> Loop:
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        average = torch.nn.Linear(1, 1, bias=False)
        run = Run(model, average, torch.optim.SGD(model.parameters(), lr=1.0))

        def step(progress: float) -> dict[str, Any]:
            run.descend(-model.weight.sum(), {}, 0.0)
            return {}

        def export(metadata: dict[str, str]) -> None:
            state = {name: tensor.detach() for name, tensor in run.average.state_dict().items()}
            self.out.mkdir(exist_ok=True)
            save_file(state, self.out / WEIGHTS, metadata)

        settings = LoopSettings(max_steps=steps, **SOON)
        return Loop(run, settings, self.work, self.out, step, scores(*values), export)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "work", tmp_path / "out")


def exported(job: Job) -> float:
    return float(load_file(job.out / WEIGHTS)["weight"])


def test_the_best_weights_stay_exported(job: Job) -> None:
    job.loop(0.1, 0.5, 0.5)()  # one validation a step, and one at the end
    assert exported(job) == pytest.approx(2.0, abs=1e-3)
    other = Job(job.work / "other", job.out)
    other.loop(0.3, 0.2, 0.2)()
    assert exported(other) == pytest.approx(1.0, abs=1e-3)


def test_the_score_of_another_run_in_the_folder_does_not_count(job: Job) -> None:
    run = job.loop(0.9, 0.9, 0.9)()
    assert exported_score(job.out, run.id) == 0.9
    assert exported_score(job.out, "another") == 0.0
    (job.work / CHECKPOINT).unlink()
    run = job.loop(0.1, 0.1, 0.1)()
    assert exported_score(job.out, run.id) == 0.1


def test_phases_are_read_from_the_command_line() -> None:
    phases = parse_phases("0:256:6,0.5:512:4", segmenter.Phase)
    assert phases == (segmenter.Phase(0.0, 256, 6), segmenter.Phase(0.5, 512, 4))
    assert phase_at(phases, 0.49) == phases[0]
    assert phase_at(phases, 0.5) == phases[1]


def test_prefetching_keeps_the_order() -> None:
    source = prefetched(iter(range(10)))
    assert [next(source) for _ in range(5)] == [0, 1, 2, 3, 4]
    source.close()
