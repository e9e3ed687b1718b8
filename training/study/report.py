"""Writes the tables of docs/study.md from the kept results, between marks in the text.

What lies between `<!-- NAME -->` and `<!-- /NAME -->` is replaced; everything else is written by
hand. A test holds the committed document against the committed results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from segzero_core.completion.parser import parse_completion
from segzero_core.errors import InputError
from training.study import estimates
from training.study.estimates import SEEN, UNSEEN, Estimate, Trainings, load_trainings
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


def write_report(folder: Path, document: Path) -> None:
    """Renew the tables of the document and the plot.

    Args:
        folder: The kept results; the plot is written there.
        document: With the marks.

    Raises:
        InputError: Results or document are missing or damaged.
    """
    arms = _loaded(folder, main_arms(chosen_rate(folder)))
    learned = [arm for arm in arms if arm.arm.method == "grpo"]
    if learned:
        plot_curves(learned, folder / PLOT)
    text = document.read_text(encoding="utf-8")
    for name, content in tables(folder).items():
        text = _replaced(text, name, content, document)
    document.write_text(text, encoding="utf-8")


def tables(folder: Path) -> dict[str, str]:
    """Every generated part of the document, by the name of its mark.

    Raises:
        InputError: Results are missing or damaged, or do not begin from one model.
    """
    cases = load_cases(folder)
    main = _loaded(folder, main_arms(chosen_rate(folder)))
    pilots, sizes = _loaded(folder, pilot_arms()), _loaded(folder, size_arms())
    _check_one_base([*main, *pilots])
    return {
        "setting": _setting(cases, main),
        "main": _main(main, cases),
        "rates": _rates(folder),
        "rewards": _rewards(main, [*main, *pilots]),
        "growth": _growth([*main, *pilots, *sizes]),
        "terms": _terms(main),
        "curves": _curves(folder),
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


def _check_one_base(arms: Sequence[Trainings]) -> None:
    hashes = {result.base_hash for arm in arms for result in arm.results}
    if len(hashes) > 1:
        raise InputError(f"the results begin from different models: {sorted(hashes)}")


def _named(arms: Sequence[Trainings], name: str) -> Trainings | None:
    return next((arm for arm in arms if arm.arm.name == name), None)


def _before(main: Sequence[Trainings], arm: Trainings) -> Trainings | None:
    """The warmed-up model that was asked as the arm is; None for itself, and if it was not."""
    if not arm.arm.method:
        return None
    return _named(main, _BASELINES.get(arm.arm.template, ""))


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
    head = (
        "arm", "trainings", "gIoU in-domain", "gIoU out-of-domain", "box@50", "point in mask",
        "gain in-domain", "gain out-of-domain", "refused where nothing fits", "unusable",
    )  # fmt: skip
    rows = []
    for arm in arms:
        before = _before(arms, arm)
        gains = [
            _signed(estimates.gain(before, arm, cases, split)) if before else ""
            for split in (SEEN, UNSEEN)
        ]
        rows.append(
            (
                arm.arm.label,
                str(len(arm.results)) if arm.arm.method else "",
                _plain(estimates.giou(arm, cases, SEEN)),
                _plain(estimates.giou(arm, cases, UNSEEN)),
                f"{estimates.box_accuracy(arm, cases).value:.3f}",
                f"{estimates.point_accuracy(arm, cases).value:.3f}",
                *gains,
                f"{estimates.refusals(arm, cases).value:.2f}",
                f"{100 * estimates.unusable(arm, cases):.1f} %",
            )
        )
    return _table(head, rows)


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
    rows = []
    for arm in arms:
        before = _before(main, arm)
        rows.append(
            (
                arm.arm.label,
                str(len(arm.results)) if arm.arm.method else "",
                _plain(estimates.reward(arm)),
                _signed(estimates.reward_rise(before, arm)) if before else "",
            )
        )
    return _table(("arm", "trainings", "reward, held out", "rise over the baseline"), rows)


def _growth(arms: Sequence[Trainings]) -> str:
    rows = []
    for arm in arms:
        reward, length = estimates.growth(arm, REWARD), estimates.growth(arm, LENGTH)
        if reward is None:
            continue
        words = "" if length is None else f"{length.first:.0f} → {length.last:.0f}"
        rows.append(
            (
                arm.arm.label,
                f"{reward.steps:.0f}",
                f"{reward.first:.2f}",
                f"{reward.last:.2f}",
                _signed(reward.rise, 2),
                words,
            )
        )
    head = ("arm", "steps", "reward, first 5 steps", "last 5", "rise", "tokens a reply")
    return _table(head, rows)


def _terms(arms: Sequence[Trainings]) -> str:
    learned = [arm for arm in arms if arm.arm.method == "grpo"]
    rows = []
    for key in reward_terms(learned):
        cells = []
        for arm in learned:
            found = estimates.growth(arm, key)
            cells.append("" if found is None else f"{found.first:.2f} → {found.last:.2f}")
        rows.append((title_of(key), *cells))
    return _table(("term", *(arm.arm.label for arm in learned)), rows)


def _curves(folder: Path) -> str:
    if not (folder / PLOT).is_file():
        return _NOT_RUN
    return f"![rewards and length against the step]({folder.name}/{PLOT})"


def _words(arms: Sequence[Trainings]) -> str:
    if not arms:
        return _NOT_RUN
    kinds = list(dict.fromkeys(arms[0].results[0].word_kinds))
    rows = []
    for arm in arms:
        before = _before(arms, arm)
        rows.append(
            (
                arm.arm.label,
                *(f"{estimates.word_accuracy(arm, kind).value:.3f}" for kind in kinds),
                _plain(estimates.word_accuracy(arm)),
                _signed(estimates.word_gain(before, arm)) if before else "",
            )
        )
    return _table(("arm", *kinds, "all", "change"), rows)


def _pilots(main: Sequence[Trainings], pilots: Sequence[Trainings], cases: Cases) -> str:
    reference = _named(main, _REFERENCE)
    if reference is None or not pilots:
        return _NOT_RUN
    first = Trainings(reference.arm, reference.results[:1], reference.metrics[:1])
    rows = [_pilot_row("as in the main table", first, cases, "")]
    for arm in pilots:
        rows.append(
            _pilot_row(arm.arm.label, arm, cases, _signed(estimates.gain(first, arm, cases)))
        )
    head = (
        "change", "gIoU in-domain", "out-of-domain", "box@50", "point in mask",
        "refused where nothing fits", "refused wrongly", "gain over the first row",
    )  # fmt: skip
    return _table(head, rows)


def _pilot_row(label: str, arm: Trainings, cases: Cases, gain: str) -> tuple[str, ...]:
    return (
        label,
        f"{estimates.giou(arm, cases, SEEN).value:.3f}",
        f"{estimates.giou(arm, cases, UNSEEN).value:.3f}",
        f"{estimates.box_accuracy(arm, cases).value:.3f}",
        f"{estimates.point_accuracy(arm, cases).value:.3f}",
        f"{estimates.refusals(arm, cases).value:.2f}",
        f"{estimates.wrong_refusals(arm, cases).value:.3f}",
        gain,
    )


def _sizes(arms: Sequence[Trainings], cases: Cases) -> str:
    if not arms:
        return _NOT_RUN
    before = arms[0]
    rows = [
        (
            arm.arm.label,
            _plain(estimates.giou(arm, cases, SEEN)),
            _plain(estimates.giou(arm, cases, UNSEEN)),
            _signed(estimates.gain(before, arm, cases)) if arm is not before else "",
        )
        for arm in arms
    ]
    return _table(("arm", "gIoU in-domain", "out-of-domain", "gain"), rows)


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
    right = [i for i in kept if result.iou[i] >= 0.5][:_TRACES]
    wrong = [i for i in kept if result.iou[i] < 0.5][:_TRACES]
    lines = []
    for word, chosen in (("Right", right), ("Wrong", wrong)):
        for i in chosen:
            thinking = _thinking(result.completions[i])
            lines.append(f"- {word} (IoU {result.iou[i]:.2f}), *{cases.queries[i]}*: “{thinking}”")
    return "\n".join(lines)


def _thinking(completion: str) -> str:
    return parse_completion(completion).thinking.strip()


def _plain(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.value:.3f}"
    low, high = estimate.interval
    return f"{estimate.value:.3f} ({low:.3f} to {high:.3f})"


def _signed(estimate: Estimate, digits: int = 3) -> str:
    text = f"{estimate.value:+.{digits}f}"
    if estimate.interval is None:
        return text
    low, high = estimate.interval
    return f"{text} ({low:+.{digits}f} to {high:+.{digits}f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return _NOT_RUN
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _replaced(text: str, name: str, content: str, document: Path) -> str:
    mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    put: Callable[[re.Match[str]], str] = lambda found: f"{found[1]}{content}\n{found[2]}"  # noqa: E731
    text, count = mark.subn(put, text)
    if count != 1:
        raise InputError(
            f"{document}: expected the mark <!-- {name} --> once, found it {count} times"
        )
    return text
