"""What a completion earns in training: one small function per term, summed by a named protocol.

    scores = score(PROTOCOLS["segzero"], completions, truths)
    scores.terms["box_iou"], scores.totals          float64 [N] each
    make_protocol("paper", accuracy="soft", parts=("box",), thinking=False)       an ablation

Protocols:

- `paper`: the terms of Seg-Zero, and those of VisionReasoner for the multi-object form. Differs
  from their public code where that differs from what they describe, and reads completions through
  `parse_completion`, as everything else here does.
- `reference`: their public code, quirks included; see `training.rewards.reference`.
- `segzero`: ours. An empty answer is right where nothing fits, and earns nothing elsewhere; points
  must lie in the true box or mask; objects too many and objects twice cost in every form.

Pixel thresholds are meant for a picture of 840x840 and scale with the size the model saw. A
completion that cannot be read earns 0 on the terms of its answer and is counted; its thinking is
still scored. Anything else that goes wrong is raised with the sample and the term, never hidden as
a 0.

Source: Seg-Zero (arXiv:2503.06520), VisionReasoner (arXiv:2505.12081).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from segzero_core.completion.parser import TAGS, parse_completion
from segzero_core.errors import ConfigError, InputError, ReasoningError, SegZeroError
from segzero_core.prompt import SINGLE_OBJECT
from segzero_core.types import ObjectPrompt
from training.rewards import reference
from training.rewards.ground_truth import POINTS_OF_FORM, Truth
from training.rewards.matching import Accuracy, MatchRule, Objects, match

MAX_REPEATS: Final = 1
"""As many sentences may be said again before the thinking counts as repetitive."""

_TAG = re.compile("|".join(TAGS), re.IGNORECASE | re.ASCII)
# The end of a sentence is followed by space or nothing: the stop in "0.5" is none.
_SENTENCE_END = re.compile(r"[.!?]++(?=\s|$)|\n")


class RewardError(SegZeroError):
    """A reward could not be computed.

    Attributes:
        sample: Which completion of the batch, from 0.
        term: Which term, or `reading`.
    """

    def __init__(self, sample: int, term: str, problem: str) -> None:
        super().__init__(f"sample {sample}, {term}: {problem}")
        self.sample = sample
        self.term = term

    @classmethod
    def from_error(cls, sample: int, term: str, error: Exception) -> RewardError:
        """Say of any error where it came up."""
        return cls(sample, term, f"{type(error).__name__}: {error}")


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """A completion, read and compared with its truth once for all terms.

    Attributes:
        text: The completion.
        n_objects: How many objects it names; None where it could not be read.
        n_in_form: How many of them have as many points as the form that was asked for.
        accuracy: How far they are right.
    """

    text: str
    n_objects: int | None
    n_in_form: int
    accuracy: Accuracy

    @property
    def unusable(self) -> bool:
        """Whether nothing could be read from it."""
        return self.n_objects is None


def read_answers(
    texts: Sequence[str], truths: Sequence[Truth], rule: MatchRule | None = None
) -> list[Answer]:
    """Read completions through `parse_completion` and pair their objects with the true ones.

    Args:
        texts: The completions.
        truths: What is right for each of them.
        rule: What a pair is worth; by default that of the protocol `segzero`.

    Raises:
        RewardError: The parser failed in a way that is no fault of the completion.
    """
    objects = [
        _read(index, text, POINTS_OF_FORM[truth.form])
        for index, (text, truth) in enumerate(zip(texts, truths, strict=True))
    ]
    accuracies = match(objects, truths, rule or MatchRule())
    return [
        Answer(text, None, 0, accuracy)
        if found is None
        else Answer(text, found.count, found.count - found.n_without_points, accuracy)
        for text, found, accuracy in zip(texts, objects, accuracies, strict=True)
    ]


def _read(index: int, text: str, n_points: int) -> Objects | None:
    """Return the objects of a completion as numbers; None where it cannot be read."""
    try:
        return _objects(parse_completion(text).prompts, n_points)
    except ReasoningError:
        return None
    except Exception as error:
        raise RewardError.from_error(index, "reading", error) from error


def _objects(prompts: Sequence[ObjectPrompt], n_points: int) -> Objects:
    boxes: list[float] = []
    points: list[float] = []
    n_without_points = 0
    for prompt in prompts:
        box = prompt.box
        boxes += (box.x_min, box.y_min, box.x_max, box.y_max)
        if len(prompt.points) != n_points:
            n_without_points += 1
            points += (np.nan,) * (2 * n_points)
            continue
        for point in prompt.points:
            points += (point.x, point.y)
    return Objects(len(prompts), boxes, points, n_without_points)


# --- terms: (answer, truth) -> a share of the largest reward, in [0, 1] -----------------------


def thinking_format(answer: Answer, truth: Truth) -> float:
    """1 for `<think>…</think><answer>…</answer>`, each tag once, and nothing but space around.

    Differs from the public code: white space before and after is no fault, and a tag that is
    written a second time is one.
    """
    text = answer.text
    tags = list(_TAG.finditer(text))
    if tuple(tag.group() for tag in tags) != TAGS:
        return 0.0
    before, between = text[: tags[0].start()], text[tags[1].end() : tags[2].start()]
    outside = before + between + text[tags[3].end() :]
    return float(not outside.strip())


def thinking_format_filled(answer: Answer, truth: Truth) -> float:
    """As `thinking_format`, and the thinking must not be blank: empty tags are no thinking."""
    if not thinking_format(answer, truth):
        return 0.0
    _, thinking = answer.text.split(TAGS[0])
    return float(not thinking.lstrip().startswith(TAGS[1]))


def segmentation_format_soft(answer: Answer, truth: Truth) -> float:
    """1 for an answer that names an object in either form.

    Other keys that contain "bbox" and "points", which the paper's soft format takes, cannot be
    used by anyone, so they earn nothing here.
    """
    return float(bool(answer.n_objects))


def segmentation_format_strict(answer: Answer, truth: Truth) -> float:
    """The share of objects in the form that was asked for; one object where it is for one."""
    if not answer.n_objects or (truth.form == SINGLE_OBJECT and answer.n_objects > 1):
        return 0.0
    return answer.n_in_form / answer.n_objects


def box_iou(answer: Answer, truth: Truth) -> float:
    """Hard: the share of boxes with IoU > 0.5. Soft: the mean IoU."""
    return answer.accuracy.box_iou


def box_l1(answer: Answer, truth: Truth) -> float:
    """Hard: the share of boxes whose sides are off by less than 10 px. Soft: 1 - L1 / side."""
    return answer.accuracy.box_l1


def point_l1(answer: Answer, truth: Truth) -> float:
    """Hard: the share of objects with points near the true ones. Soft: 1 - L1 / side.

    Near is less than 100 px in the single-object form and 30 px in the multi-object form. Points
    outside the box that the protocol asks for earn nothing.
    """
    return answer.accuracy.point_l1


def refusal(answer: Answer, truth: Truth) -> float:
    """1 where the answer is empty exactly if nothing fits."""
    return float(answer.n_objects is not None and bool(answer.n_objects) == bool(len(truth)))


def non_repeat(answer: Answer, truth: Truth) -> float:
    """0 where two or more sentences of the thinking were said before, apart from case and spaces.

    All text before the last answer is looked at, so that it does not matter whether the rest can
    be read.
    """
    text = answer.text
    opened = text.rfind(TAGS[2])
    said = _TAG.sub("\n", text[:opened] if opened >= 0 else text)
    sentences = [" ".join(s.lower().split()) for s in _SENTENCE_END.split(said)]
    sentences = [sentence for sentence in sentences if sentence]
    return float(len(sentences) - len(set(sentences)) <= MAX_REPEATS)


def full_for_refusal(
    function: Callable[[Answer, Truth], float], answer: Answer, truth: Truth
) -> float:
    """Where nothing fits, an empty answer earns a term in full and objects earn none of it."""
    return function(answer, truth) if len(truth) else refusal(answer, truth)


# --- protocols --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a protocol.

    Attributes:
        function: Takes an answer and its truth, and returns a share in [0, 1].
        single_object: What the whole share earns in the single-object form.
        multi_object: The same in the multi-object form; 0 leaves the term out.
    """

    function: Callable[[Any, Truth], float]
    single_object: float = 1.0
    multi_object: float = 1.0

    def weight(self, form: str) -> float:
        """What the whole share earns."""
        return self.single_object if form == SINGLE_OBJECT else self.multi_object


@dataclass(frozen=True, slots=True)
class RewardProtocol:
    """How completions are read, and what they earn.

    Attributes:
        name: What a figure is said to follow.
        read: Makes one answer of each completion and its truth.
        terms: By their names, which are those of the metrics; they are added up.
    """

    name: str
    read: Callable[[Sequence[str], Sequence[Truth]], Sequence[Any]]
    terms: Mapping[str, Term]

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
_ACCURACY: Final = {
    "box_iou": Term(box_iou),
    "box_l1": Term(box_l1),
    "point_l1": Term(point_l1),
}
_FORMATS: Final = {"soft": segmentation_format_soft, "strict": segmentation_format_strict}


def make_protocol(
    name: str = "segzero",
    *,
    accuracy: Literal["hard", "soft"] = "hard",
    format: Literal["soft", "strict"] = "strict",
    parts: tuple[str, ...] = ("box", "points"),
    thinking: bool = True,
) -> RewardProtocol:
    """Make a protocol, or a variant of it for an ablation.

    Args:
        name: `paper`, `reference` or `segzero`.
        accuracy: 0 or 1 by thresholds, or in proportion; the public code has only `hard`.
        format: Whether the answer must have exactly the form that was asked for.
        parts: `box`, `points` or both; the others' terms are left out. The parser wants a box and
            points all the same.
        thinking: Whether there is a term for the format of the thinking.

    Raises:
        ConfigError: There is no such protocol or variant.
    """
    if name not in _MAKERS:
        raise ConfigError(f"protocol: expected one of {sorted(_MAKERS)}, got {name!r}")
    if accuracy not in ("hard", "soft") or format not in _FORMATS:
        raise ConfigError(f"no accuracy {accuracy!r} with format {format!r}")
    if not parts or not set(parts) <= set(_PARTS):
        raise ConfigError(f"parts: expected some of {sorted(_PARTS)}, got {parts!r}")
    protocol = _MAKERS[name](accuracy, format, parts)
    unwanted = [term for part, terms in _PARTS.items() if part not in parts for term in terms]
    return protocol.without_terms(*unwanted, *([] if thinking else ["thinking_format"]))


def _make_paper(
    accuracy: Literal["hard", "soft"], style: Literal["soft", "strict"], parts: tuple[str, ...]
) -> RewardProtocol:
    """At most 5 in the single-object form, 7 in the multi-object form."""
    rule = MatchRule(accuracy, parts, points_within="answer")
    terms = {
        "thinking_format": Term(thinking_format),
        "segmentation_format": Term(_FORMATS[style], multi_object=2.0),
        **_ACCURACY,
        "non_repeat": Term(non_repeat, single_object=0.0),
    }
    return RewardProtocol("paper", partial(read_answers, rule=rule), terms)


def _make_reference(
    accuracy: Literal["hard", "soft"], style: Literal["soft", "strict"], parts: tuple[str, ...]
) -> RewardProtocol:
    """At most 5 in the single-object form, 7 in the multi-object form."""
    if accuracy != "hard" or set(parts) != set(_PARTS):
        raise ConfigError("the public code knows hard accuracy only, of box and points together")
    terms = {
        "thinking_format": Term(reference.thinking_format),
        "segmentation_format": Term(reference.segmentation_format, multi_object=2.0),
        **_ACCURACY,
        "non_repeat": Term(reference.non_repeat, single_object=0.0),
    }
    read = partial(reference.read_answers, style=style)
    return RewardProtocol("reference", read, terms)


def _make_segzero(
    accuracy: Literal["hard", "soft"], style: Literal["soft", "strict"], parts: tuple[str, ...]
) -> RewardProtocol:
    """At most 7 in either form, whether something is meant or not."""
    rule = MatchRule(accuracy, parts, points_within="truth")
    answer_terms = {
        "segmentation_format": _FORMATS[style],
        "box_iou": box_iou,
        "box_l1": box_l1,
        "point_l1": point_l1,
    }
    terms = {
        "thinking_format": Term(thinking_format_filled),
        **{name: Term(partial(full_for_refusal, f)) for name, f in answer_terms.items()},
        "refusal": Term(refusal),
        "non_repeat": Term(non_repeat),
    }
    return RewardProtocol("segzero", partial(read_answers, rule=rule), terms)


_MAKERS: Final = {"paper": _make_paper, "reference": _make_reference, "segzero": _make_segzero}
PROTOCOLS: Final = {name: make_protocol(name) for name in _MAKERS}


# --- scoring ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Scores:
    """What completions earned.

    Attributes:
        terms: float64 [N] for each term of the protocol, as it enters the total.
        totals: float64 [N], their sums.
        unusable: bool [N], the completions that the protocol could not read.
    """

    terms: dict[str, NDArray[np.float64]]
    totals: NDArray[np.float64]
    unusable: NDArray[np.bool_]

    @property
    def unusable_share(self) -> float:
        """Share of the completions that could not be read; 0 where there are none at all."""
        return float(self.unusable.mean()) if len(self.unusable) else 0.0


def score(protocol: RewardProtocol, completions: Sequence[str], truths: Sequence[Truth]) -> Scores:
    """Score completions, each with its truth.

    Raises:
        InputError: There are more of one than of the other, or a completion is no text.
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
    name: str, term: Term, answers: Sequence[Any], truths: Sequence[Truth]
) -> NDArray[np.float64]:
    weights = {form: term.weight(form) for form in POINTS_OF_FORM}
    function = term.function
    earned = np.zeros(len(truths))
    for index, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
        weight = weights[truth.form]
        if not weight:
            continue
        try:
            share = float(function(answer, truth))
        except Exception as error:
            raise RewardError.from_error(index, name, error) from error
        if not -1e-9 < share < 1 + 1e-9:
            raise RewardError(index, name, f"expected a share in [0, 1], got {share}")
        earned[index] = weight * share
    return earned
