"""Writes the tables of docs/study.md from the kept results, between marks in the text.

What lies between `<!-- NAME -->` and `<!-- /NAME -->` is replaced; everything else is written by
hand. A test holds the committed document against the committed results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from segzero_core.completion.parser import parse_completion
from segzero_core.errors import InputError
from training.study import estimates
from training.study.estimates import (
    SEEN,
    UNSEEN,
    Estimate,
    Trainings,
    growth,
    load_trainings,
    metric,
)
from training.study.jobs import CHOICE
from training.study.plan import (
    NONE,
    SFT_RATES,
    TRAINED_KINDS,
    Arm,
    main_arms,
    pilot_arms,
    size_arms,
)
from training.study.plots import LENGTH, REWARD, plot_curves, reward_terms, title_of
from training.study.results import Cases, load_cases

PLOT: Final = "curves.png"
_NOT_RUN = "Not run yet."
_TRACES = 3
_REFERENCE = "rl_thinking"
_BASELINES = {"single_object_direct": "baseline", "single_object": "baseline_thinking"}

Cell = Callable[[Trainings], str]
"""Writes one cell of an arm's row."""


def write_report(folder: Path, document: Path) -> None:
    """Renew the tables between the marks of the document, and the plot beside the results.

    Raises:
        InputError: Results or document are missing or damaged.
    """
    arms = _loaded(folder, main_arms(chosen_rate(folder)))
    learned = [arm for arm in arms if arm.arm.method == "grpo"]
    if learned:
        plot_curves(learned, folder / PLOT)
    text = document.read_text(encoding="utf-8")
    for name, content in tables(folder).items():
        parts = re.split(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", text, flags=re.DOTALL)
        if len(parts) != 2:
            raise InputError(
                f"{document}: expected the mark <!-- {name} --> once, found it"
                f" {len(parts) - 1} times"
            )
        text = f"{parts[0]}{content}\n{parts[1]}"
    document.write_text(text, encoding="utf-8")


def tables(folder: Path) -> dict[str, str]:
    """Every generated part of the document, by the name of its mark.

    Raises:
        InputError: Results are missing or damaged, or do not begin from one model.
    """
    cases = load_cases(folder)
    main = _loaded(folder, main_arms(chosen_rate(folder)))
    pilots, sizes = _loaded(folder, pilot_arms()), _loaded(folder, size_arms())
    hashes = {result.base_hash for arm in (*main, *pilots) for result in arm.results}
    if len(hashes) > 1:
        raise InputError(f"the results begin from different models: {sorted(hashes)}")
    plot = f"![rewards and length against the step]({folder.name}/{PLOT})"
    return {
        "setting": _setting(cases, main),
        "main": _main(main, cases),
        "rates": _rates(folder),
        "rewards": _rewards(main, [*main, *pilots]),
        "growth": _growth([*main, *pilots, *sizes]),
        "terms": _terms(main),
        "curves": plot if (folder / PLOT).is_file() else _NOT_RUN,
        "words": _words(main),
        "pilots": _pilots(main, pilots, cases),
        "sizes": _sizes(sizes, cases),
        "traces": _traces(main, cases),
    }


def chosen_rate(folder: Path) -> float:
    """SFT's rate as it was chosen; the middle one before that."""
    path = folder / CHOICE
    return float(json.loads(path.read_text())["rate"]) if path.is_file() else SFT_RATES[1]


def _loaded(folder: Path, arms: Sequence[Arm]) -> list[Trainings]:
    return [found for arm in arms if (found := load_trainings(folder, arm)) is not None]


def _named(arms: Sequence[Trainings], name: str) -> Trainings | None:
    return next((arm for arm in arms if arm.arm.name == name), None)


def _label(arm: Trainings) -> str:
    return arm.arm.label


def _count(arm: Trainings) -> str:
    return str(len(arm.results)) if arm.arm.method else ""


def _value(*what: Any, digits: int = 3, **how: Any) -> Cell:
    """Write a metric of an arm without its interval."""
    return lambda arm: f"{metric(arm, *what, **how).value:.{digits}f}"


def _giou(cases: Cases, split: str) -> Cell:
    return lambda arm: _text(metric(arm, "iou", cases, split=split))


def _gain(
    main: Sequence[Trainings], find: Callable[..., Estimate], *what: Any, **how: Any
) -> Cell:
    """Write what an arm gained over the warmed-up model with the same prompt; empty for that."""

    def write(arm: Trainings) -> str:
        before = _named(main, _BASELINES.get(arm.arm.template, "")) if arm.arm.method else None
        return _text(find(arm, *what, over=before, **how), "+") if before else ""

    return write


def _setting(cases: Cases, main: Sequence[Trainings]) -> str:
    pairs = list(zip(cases.kinds, cases.splits, strict=True))
    counts = [
        f"{sum(kind in TRAINED_KINDS and own == split for kind, own in pairs)} {word}"
        for split, word in ((SEEN, "in-domain"), (UNSEEN, "out-of-domain"))
    ]
    base = main[0].results[0].base_hash if main else ""
    return (
        f"{len(set(cases.images))} test scenes; {' and '.join(counts)} questions that mean one"
        f" object, {cases.kinds.count(NONE)} that mean none (annotations `{cases.data_hash}`)."
        f" All arms begin from the weights `{base}`."
    )


def _main(arms: Sequence[Trainings], cases: Cases) -> str:
    columns = {
        "arm": _label,
        "trainings": _count,
        "gIoU in-domain": _giou(cases, SEEN),
        "gIoU out-of-domain": _giou(cases, UNSEEN),
        "box@50": _value("box_hit", cases),
        "point in mask": _value("point_hit", cases),
        "gain in-domain": _gain(arms, metric, "iou", cases, split=SEEN),
        "gain out-of-domain": _gain(arms, metric, "iou", cases, split=UNSEEN),
        "refused where nothing fits": _value("refused", cases, (NONE,), digits=2),
        "unusable": lambda arm: f"{100 * np.mean([r.unusable for r in arm.results]):.1f} %",
    }
    return _arms_table(arms, columns)


def _rates(folder: Path) -> str:
    path = folder / CHOICE
    if not path.is_file():
        return _NOT_RUN
    values = json.loads(path.read_text())
    rows = [
        (f"{rate}", f"{giou:.3f}", "chosen" if float(rate) == values["rate"] else "")
        for rate, giou in values["validation_giou"].items()
    ]
    return _table(("rate of SFT", "mean IoU on the validation scenes", ""), rows)


def _rewards(main: Sequence[Trainings], arms: Sequence[Trainings]) -> str:
    columns = {
        "arm": _label,
        "trainings": _count,
        "reward, held out": lambda arm: _text(estimates.reward(arm)),
        "rise over the baseline": _gain(main, estimates.reward),
    }
    return _arms_table(arms, columns)


def _growth(arms: Sequence[Trainings]) -> str:
    rows = []
    for arm in arms:
        reward, length = growth(arm, REWARD), growth(arm, LENGTH)
        if reward is not None:
            ends = (f"{value:.2f}" for value in (reward.first, reward.last))
            tokens = "" if length is None else f"{length.first:.0f} → {length.last:.0f}"
            rise = _text(reward.rise, "+", 2)
            rows.append((arm.arm.label, f"{reward.steps:.0f}", *ends, rise, tokens))
    head = ("arm", "steps", "reward, first 5 steps", "last 5", "rise", "tokens a reply")
    return _table(head, rows)


def _terms(arms: Sequence[Trainings]) -> str:
    learned = [arm for arm in arms if arm.arm.method == "grpo"]
    rows = []
    for key in reward_terms(learned):
        found = [growth(arm, key) for arm in learned]
        cells = ("" if g is None else f"{g.first:.2f} → {g.last:.2f}" for g in found)
        rows.append((title_of(key), *cells))
    return _table(("term", *(arm.arm.label for arm in learned)), rows)


def _words(arms: Sequence[Trainings]) -> str:
    kinds = dict.fromkeys(arms[0].results[0].word_kinds) if arms else ()
    columns: dict[str, Cell] = {"arm": _label}
    for kind in kinds:
        columns[kind] = lambda arm, kind=kind: f"{estimates.words(arm, kind).value:.3f}"
    columns["all"] = lambda arm: _text(estimates.words(arm))
    columns["change"] = _gain(arms, estimates.words)
    return _arms_table(arms, columns)


def _pilots(main: Sequence[Trainings], pilots: Sequence[Trainings], cases: Cases) -> str:
    reference = _named(main, _REFERENCE)
    if reference is None or not pilots:
        return _NOT_RUN
    arm = replace(reference.arm, label="as in the main table")
    first = Trainings(arm, reference.results[:1], reference.metrics[:1])
    columns = {
        "change": _label,
        "gIoU in-domain": _value("iou", cases, split=SEEN),
        "out-of-domain": _value("iou", cases, split=UNSEEN),
        "box@50": _value("box_hit", cases),
        "point in mask": _value("point_hit", cases),
        "refused where nothing fits": _value("refused", cases, (NONE,), digits=2),
        "refused wrongly": _value("refused", cases),
        "gain over the first row": _over_first(first, cases),
    }
    return _arms_table([first, *pilots], columns)


def _sizes(arms: Sequence[Trainings], cases: Cases) -> str:
    columns = {
        "arm": _label,
        "gIoU in-domain": _giou(cases, SEEN),
        "out-of-domain": _giou(cases, UNSEEN),
        "gain": _over_first(arms[0], cases) if arms else _label,
    }
    return _arms_table(arms, columns)


def _over_first(first: Trainings, cases: Cases) -> Cell:
    return lambda arm: "" if arm is first else _text(metric(arm, "iou", cases, over=first), "+")


def _traces(arms: Sequence[Trainings], cases: Cases) -> str:
    """The first right and the first wrong answers of RL with thinking."""
    arm = _named(arms, _REFERENCE)
    if arm is None:
        return _NOT_RUN
    result = arm.results[0]
    kept = [
        i for i in range(len(result.completions))
        if cases.kinds[i] in TRAINED_KINDS and cases.splits[i] == UNSEEN and not result.unusable[i]
    ]  # fmt: skip
    lines = []
    for word, is_right in (("Right", True), ("Wrong", False)):
        for i in [i for i in kept if (result.iou[i] >= 0.5) is is_right][:_TRACES]:
            thinking = parse_completion(result.completions[i]).thinking.strip()
            lines.append(f"- {word} (IoU {result.iou[i]:.2f}), *{cases.queries[i]}*: “{thinking}”")
    return "\n".join(lines)


def _text(estimate: Estimate, sign: str = "", digits: int = 3) -> str:
    """Write an estimate with its interval; the sign `+` also shows that of positive numbers."""
    value, *ends = (f"{x:{sign}.{digits}f}" for x in (estimate.value, *(estimate.interval or ())))
    return f"{value} ({' to '.join(ends)})" if ends else value


def _arms_table(arms: Sequence[Trainings], columns: Mapping[str, Cell]) -> str:
    return _table(list(columns), [[cell(arm) for cell in columns.values()] for arm in arms])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return _NOT_RUN
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
