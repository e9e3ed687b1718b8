"""Reward protocols: which terms a completion is rewarded for, and with what weights.

    scores = score(PROTOCOLS["segzero"], completions, truths)
    scores.terms["box_iou"], scores.totals          float64 [N] each
    make_protocol("paper", accuracy="soft", parts=("box",), thinking=False)       an ablation

- `paper`: the terms of Seg-Zero, and those of VisionReasoner for the multi-object form. Differs
  from their public code where that code differs from their text, and reads completions through
  `parse_completion`, as the pipeline does.
- `reference`: their public code, quirks included; see `training.rewards.reference`.
- `segzero`: ours. An empty answer is right where nothing fits, and earns nothing elsewhere; points
  must lie in the true box or mask; extra and repeated objects cost in every form.

Pixel thresholds are meant for an image of 840x840 and scale with the size the model saw. A
completion that cannot be read earns 0 on the terms of its answer and is counted; its thinking is
still scored. Any other failure raises `RewardError`, and is never hidden as a 0.

Source: Seg-Zero (arXiv:2503.06520), VisionReasoner (arXiv:2505.12081).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import ConfigError, InputError
from segzero_core.prompt import SINGLE_OBJECT
from training.config import PROTOCOL_NAMES
from training.rewards import reference
from training.rewards.ground_truth import POINTS_OF_FORM, GroundTruth
from training.rewards.matching import MatchRule
from training.rewards.terms import (
    Answer,
    RewardError,
    non_repeat,
    read_answers,
    refusal,
    segmentation_format_soft,
    segmentation_format_strict,
    thinking_format,
    thinking_format_filled,
)

TermFunction = Callable[[Answer, GroundTruth], float]


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a protocol."""

    function: TermFunction  # takes an answer and its ground truth, and returns a share in [0, 1]
    single_object: float = 1.0  # weight in the single-object form
    multi_object: float = 1.0  # weight in the multi-object form; 0 leaves the term out

    def weight(self, form: str) -> float:
        """The term's weight in a form of answer."""
        return self.single_object if form == SINGLE_OBJECT else self.multi_object


@dataclass(frozen=True, slots=True)
class RewardProtocol:
    """How completions are read, and the terms whose weighted sum they earn."""

    name: str  # name of the protocol
    # Reads completions, and compares each with its ground truth.
    read: Callable[[Sequence[str], Sequence[GroundTruth]], Sequence[Answer]]
    terms: Mapping[str, Term]  # by name; the names are also those of the metrics

    def maximum(self, form: str) -> float:
        """The largest total in a form of answer."""
        return sum(term.weight(form) for term in self.terms.values())

    def with_terms(self, **terms: Term) -> RewardProtocol:
        """The same protocol with terms added, or replaced where the name is known."""
        return replace(self, terms={**self.terms, **terms})

    def without_terms(self, *names: str) -> RewardProtocol:
        """The same protocol without some of its terms.

        Raises:
            ConfigError: It has no such term.
        """
        if unknown := set(names) - set(self.terms):
            raise ConfigError(
                f"{self.name} has no term {sorted(unknown)}; there are {list(self.terms)}"
            )
        kept = {name: term for name, term in self.terms.items() if name not in names}
        return replace(self, terms=kept)


_PARTS: Final = {"box": ("box_iou", "box_l1"), "points": ("point_l1",)}
_ACCURACY: Final[dict[str, TermFunction]] = {
    # Hard: the share of boxes with IoU > 0.5. Soft: the mean IoU.
    "box_iou": lambda answer, _: answer.accuracy.box_iou,
    # Hard: the share of boxes whose sides are off by less than 10 px. Soft: 1 - L1 / side.
    "box_l1": lambda answer, _: answer.accuracy.box_l1,
    # Hard: the share of objects with points near the true ones: less than 100 px in the
    # single-object form, 30 px in the multi-object form. Soft: 1 - L1 / side. Points outside the
    # box that the protocol asks for earn nothing.
    "point_l1": lambda answer, _: answer.accuracy.point_l1,
}
_FORMATS: Final[dict[str, TermFunction]] = {
    "soft": segmentation_format_soft,
    "strict": segmentation_format_strict,
}


def make_protocol(
    name: str = "segzero",
    *,
    accuracy: Literal["hard", "soft"] = "hard",
    format: Literal["soft", "strict"] = "strict",
    parts: tuple[str, ...] = ("box", "points"),
    thinking: bool = True,
) -> RewardProtocol:
    """Make a protocol, or a variant of it for an ablation.

    The largest total is 5 in the single-object form and 7 in the multi-object form; with `segzero`
    it is 7 in both.

    Args:
        name: `paper`, `reference` or `segzero`.
        accuracy: 0 or 1 by thresholds, or in proportion; the public code has only `hard`.
        format: Whether the answer must have exactly the form that was asked for.
        parts: `box`, `points` or both; the terms of the other part are left out. The parser needs
            a box and points all the same.
        thinking: Whether there is a term for the format of the thinking.

    Raises:
        ConfigError: There is no such protocol or variant.
    """
    if name not in PROTOCOL_NAMES:
        raise ConfigError(f"protocol: expected one of {sorted(PROTOCOL_NAMES)}, got {name!r}")
    if accuracy not in ("hard", "soft") or format not in _FORMATS:
        raise ConfigError(f"no accuracy {accuracy!r} with format {format!r}")
    if not parts or not set(parts) <= set(_PARTS):
        raise ConfigError(f"parts: expected some of {sorted(_PARTS)}, got {parts!r}")
    if name == "segzero":
        rule = MatchRule(accuracy, parts, points_within="truth")
        read = partial(read_answers, rule=rule)
        answer_terms = {"segmentation_format": _FORMATS[format], **_ACCURACY}
        terms = {
            "thinking_format": Term(thinking_format_filled),
            **{key: Term(partial(_or_refusal, term)) for key, term in answer_terms.items()},
            "refusal": Term(refusal),
            "non_repeat": Term(non_repeat),
        }
    elif name == "paper":
        rule = MatchRule(accuracy, parts, points_within="answer")
        read = partial(read_answers, rule=rule)
        terms = _paper_terms(thinking_format, _FORMATS[format], non_repeat)
    else:
        if accuracy != "hard" or set(parts) != set(_PARTS):
            raise ConfigError(
                "the public code knows hard accuracy only, of box and points together"
            )
        terms = _paper_terms(
            reference.thinking_format, segmentation_format_strict, reference.non_repeat
        )
        read = partial(reference.read_answers, style=format)
    unwanted = [term for part, terms in _PARTS.items() if part not in parts for term in terms]
    unwanted += [] if thinking else ["thinking_format"]
    return RewardProtocol(name, read, terms).without_terms(*unwanted)


def _paper_terms(
    thinking: TermFunction, segmentation_format: TermFunction, repeats: TermFunction
) -> dict[str, Term]:
    return {
        "thinking_format": Term(thinking),
        "segmentation_format": Term(segmentation_format, multi_object=2.0),
        **{name: Term(function) for name, function in _ACCURACY.items()},
        "non_repeat": Term(repeats, single_object=0.0),
    }


def _or_refusal(function: TermFunction, answer: Answer, truth: GroundTruth) -> float:
    """Score a term, but by refusal where nothing fits: 1 for an empty answer, else 0."""
    return function(answer, truth) if len(truth) else refusal(answer, truth)


PROTOCOLS: Final = {name: make_protocol(name) for name in PROTOCOL_NAMES}


@dataclass(frozen=True, eq=False, slots=True)
class Scores:
    """The rewards of a batch of completions."""

    terms: dict[str, NDArray[np.float64]]  # float64 [N] for each term of the protocol, weighted
    totals: NDArray[np.float64]  # float64 [N], their sums
    unusable: NDArray[np.bool_]  # bool [N], the completions that the protocol could not read

    @property
    def unusable_share(self) -> float:
        """Share of the completions that could not be read; 0 where there are none at all."""
        return float(self.unusable.mean()) if len(self.unusable) else 0.0


def score(
    protocol: RewardProtocol, completions: Sequence[str], truths: Sequence[GroundTruth]
) -> Scores:
    """Score completions, each with its ground truth.

    Raises:
        InputError: The numbers of completions and truths differ, or a completion is no text.
        RewardError: A term failed, or gave no number in [0, 1]; says which, for which sample.
    """
    if len(completions) != len(truths):
        raise InputError(f"{len(completions)} completions for {len(truths)} truths")
    for index, text in enumerate(completions):
        if not isinstance(text, str):
            raise InputError(f"completion {index}: expected text, got {type(text).__name__}")
    answers = protocol.read(completions, truths)
    terms = {name: _earned(name, term, answers, truths) for name, term in protocol.terms.items()}
    totals = np.sum(list(terms.values()), axis=0) if terms else np.zeros(len(truths))
    return Scores(terms, totals, np.array([answer.unusable for answer in answers], np.bool_))


def _earned(
    name: str, term: Term, answers: Sequence[Answer], truths: Sequence[GroundTruth]
) -> NDArray[np.float64]:
    weights = {form: term.weight(form) for form in POINTS_OF_FORM}
    earned = np.zeros(len(truths))
    for index, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
        weight = weights[truth.form]
        if not weight:
            continue
        try:
            share = float(term.function(answer, truth))
        except Exception as error:
            raise RewardError(index, name, error) from error
        if not -1e-9 < share < 1 + 1e-9:
            raise RewardError(index, name, f"expected a share in [0, 1], got {share}")
        earned[index] = weight * share
    return earned
