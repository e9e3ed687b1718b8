"""The study: its figures on made-up results, its document, and a run in small."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from segzero_core.errors import InputError
from tests.training import in_process
from tests.training.conftest import write_scene
from training.study import estimates, jobs, plan, report
from training.study.jobs import CHOICE, Study, StudyError, run
from training.study.plan import (
    NONE,
    SFT_RATES,
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
    Cases,
    Result,
    load_result,
    metrics_path,
    result_path,
    save,
)

DOCS = Path(__file__).parents[3] / "docs"
SCENES = 30


def cases() -> Cases:
    kinds = ("name", "attribute", "relation", "function", "none")
    rows = [
        (f"{s}/{k}", str(s), k, "test" if s % 2 else "train") for s in range(SCENES) for k in kinds
    ]
    columns = (tuple(column) for column in zip(*rows, strict=True))
    return Cases(*columns, queries=("what?",) * len(rows), data_hash="abc")


def result(arm: str, seed: int, iou: float) -> Result:
    count = len(cases().ids)
    none = [kind == "none" for kind in cases().kinds]
    return Result(
        arm=arm,
        seed=seed,
        base_hash="base",
        weights_hash=arm,
        iou=tuple(float(empty) or iou for empty in none),
        refused=tuple(int(empty) for empty in none),
        unusable=(0,) * count,
        box_hit=(1.0,) * count,
        point_hit=(None,) * count,
        words=(1.0, 0.0) * 5,
        word_kinds=("color", "count") * 5,
        rewards=tuple(iou * 4 + scene % 2 for scene in range(SCENES)),
        rewarded=tuple(str(scene) for scene in range(SCENES)),
        completions=("<think>I see it.</think><answer>[]</answer>",) * 10,
    )


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Results of the main arms, each training 0.1 above its baseline."""
    save(cases(), tmp_path / CASES)
    for arm in main_arms(SFT_RATES[1]):
        for seed in arm.seeds:
            iou = 0.5 if not arm.method else 0.6
            save(result(arm.name, seed, iou), result_path(tmp_path, arm.name, seed))
            if arm.method:
                rows = [
                    {"step": n, "reward": n / 10, "rewards/box_iou/mean": 1.0} for n in range(20)
                ]
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                metrics_path(tmp_path, arm.name, seed).write_text(lines)
    return tmp_path


def test_a_gain_is_over_the_same_cases_and_has_an_interval(kept: Path) -> None:
    base, _, sft, *_ = main_arms(SFT_RATES[1])
    first, second = (estimates.load_trainings(kept, arm) for arm in (base, sft))
    assert first is not None
    assert second is not None
    found = estimates.metric(second, "iou", cases(), split=estimates.UNSEEN, over=first)
    assert found.value == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.1, 0.1))
    assert estimates.metric(second, "iou", cases()).value == pytest.approx(0.6)
    assert estimates.metric(second, "refused", cases(), (NONE,)).value == 1
    assert estimates.metric(second, "refused", cases()).value == 0
    assert estimates.words(second).value == 0.5
    assert estimates.metric(second, "point_hit", cases()).value == 0


def test_the_reward_of_held_out_questions_is_compared_question_by_question(kept: Path) -> None:
    _, base, *_, arm = main_arms(SFT_RATES[1])
    first, second = (estimates.load_trainings(kept, each) for each in (base, arm))
    assert first is not None
    assert second is not None
    assert estimates.reward(first).value == pytest.approx(2.5)
    low, high = estimates.reward(first).interval or (np.nan, np.nan)
    assert low < 2.5 < high
    rise = estimates.reward(second, over=first)
    assert rise.value == pytest.approx(0.4)
    assert rise.interval == pytest.approx((0.4, 0.4))  # what differs between images is in both


def test_the_rise_of_a_reward_compares_the_ends_of_all_trainings(kept: Path) -> None:
    trainings = estimates.load_trainings(kept, main_arms(SFT_RATES[1])[3])
    assert trainings is not None
    found = estimates.growth(trainings, "reward")
    assert found is not None
    assert (found.first, found.last, found.steps) == pytest.approx((0.2, 1.7, 20))
    low, high = found.rise.interval or (np.nan, np.nan)
    assert 1.2 < low < 1.5 < high < 1.8
    assert estimates.growth(trainings, "no such key") is None


def test_the_document_takes_its_tables_and_keeps_the_rest(kept: Path, tmp_path: Path) -> None:
    document = tmp_path / "study.md"
    names = list(report.tables(kept))
    marks = "\n".join(f"<!-- {name} -->\nold\n<!-- /{name} -->" for name in names)
    document.write_text(f"by hand\n{marks}\n")
    report.write_report(kept, document)
    text = document.read_text()
    assert text.startswith("by hand\n")
    assert "old" not in text
    assert "| RL, thinking | 3 | 0.600 (0.600 to 0.600)" in text
    assert "+0.100 (+0.100 to +0.100)" in text
    assert (kept / report.PLOT).is_file()
    document.write_text("no marks")
    with pytest.raises(InputError, match="expected the mark <!-- setting -->"):
        report.write_report(kept, document)


def test_results_of_different_models_are_not_put_in_one_table(kept: Path) -> None:
    path = result_path(kept, "rl", 0)
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"base_hash": "other"}))
    with pytest.raises(InputError, match="different models"):
        report.tables(kept)


def test_a_reply_that_cannot_be_read_is_no_trace(kept: Path) -> None:
    path = result_path(kept, "rl_thinking", 0)
    values = json.loads(path.read_text())
    count = len(values["iou"])
    broken = {"completions": ["<think>"] * count, "unusable": [1] * count, "iou": [0.0] * count}
    path.write_text(json.dumps(values | broken))
    assert report.tables(kept)["traces"] == ""


def test_an_arm_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no arm rl_magic; there are .*rl_thinking"):
        run(Study(tmp_path / "work", tmp_path / "kept", only=("rl", "rl_magic")))
    assert not (tmp_path / "work").exists()


def test_the_study_begins_from_the_model_of_before_reinforcement(tmp_path: Path) -> None:
    if _git("cat-file", "-e", plan.WARMED_UP):
        pytest.skip("the history of this checkout is not whole")
    model = jobs._from_history(tmp_path / "warmed_up")
    assert (model / "reasoner" / "model.safetensors").stat().st_size > 1_000_000
    assert jobs._from_history(tmp_path / "warmed_up") == model


def test_a_history_that_is_not_whole_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "WARMED_UP", "0" * 40)
    with pytest.raises(StudyError, match="name a model to begin from with --base"):
        jobs._from_history(tmp_path / "warmed_up")
    assert not (tmp_path / "warmed_up").exists()


def _git(*arguments: str) -> int:
    return subprocess.run(
        ["git", "-C", str(DOCS.parent), *arguments], capture_output=True, check=False
    ).returncode


def test_rates_that_were_tried_elsewhere_are_not_tried_again(kept: Path) -> None:
    study = Study(kept / "work", kept)
    assert jobs.choose_rate(study) == SFT_RATES[1]
    (kept / CHOICE).write_text(json.dumps({"validation_giou": {"3e-05": 0.5, "0.0003": 0.6}}))
    assert jobs.choose_rate(study) == 3e-4
    (kept / CHOICE).write_text("{}")
    with pytest.raises(InputError, match=CHOICE):
        jobs.choose_rate(study)


def test_a_damaged_result_is_named(kept: Path) -> None:
    path = result_path(kept, "rl", 0)
    path.write_text('{"arm": "rl"}')
    with pytest.raises(InputError, match=r"rl-0\.json"):
        load_result(path)


def test_every_arm_is_a_configuration_that_can_be_trained() -> None:
    from training.config import load_config

    arms: list[Arm] = [*rate_arms(), *main_arms(SFT_RATES[0]), *pilot_arms(), *size_arms()]
    assert len({arm.name for arm in arms}) == len(arms)
    for arm in arms:
        settings = [*settings_of_all(Scale()), *arm.settings, f"template={arm.template}"]
        config = load_config("tabletop", settings)
        assert config.grpo.completions_per_prompt * config.grpo.prompts_per_step == 64


def test_the_committed_document_says_what_the_committed_results_say() -> None:
    folder, text = DOCS / "study", (DOCS / "study.md").read_text()
    if not (folder / CASES).is_file():
        pytest.skip("no results of the study are committed yet")
    for name, content in report.tables(folder).items():
        assert f"<!-- {name} -->\n{content}\n<!-- /{name} -->" in text


@pytest.mark.slow
def test_a_study_in_small_trains_asks_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.run", in_process.run)
    work, kept = tmp_path / "work", tmp_path / "kept"
    firsts = {"train": 0, "validation": jobs.VALIDATION_SEED, "test": jobs.TEST_SEED}
    for name, first in firsts.items():
        for seed in range(2):
            write_scene(work / name / f"{seed:06d}", first + seed)
    scale = Scale(1e-6, train_scenes=2, validation_scenes=2, test_scenes=2, reward_replies=2)
    study = Study(work, kept, scale=scale, jobs=1, only=("sft_0.0001", "sft"))
    with pytest.raises(StudyError, match=r"train\.log"):
        run(Study(work, kept, base="/nowhere", scale=scale, only=("sft_0.0001",)))
    run(study)
    assert json.loads((kept / CHOICE).read_text())["rate"] == 1e-4
    first = load_result(result_path(kept, "sft", 0))
    assert len(first.iou) == len(json.loads((kept / CASES).read_text())["ids"]) == 4
    assert first.base_hash != first.weights_hash
    single = [kind for kind in json.loads((kept / CASES).read_text())["kinds"] if kind != NONE]
    assert len(first.rewards) == len(first.rewarded) == len(single) > 0
    assert all(0 <= reward <= 5 for reward in first.rewards)
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    run(study)
    after = {path: path.stat().st_mtime_ns for path in kept.iterdir() if path.name != CHOICE}
    assert after == {path: before[path] for path in after}
