"""The terms of a reward: functions of a completion and its ground truth, in [0, 1] each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from segzero_core.completion.parser import TAGS, parse_completion
from segzero_core.errors import ReasoningError, SegZeroError
from segzero_core.prompt import SINGLE_OBJECT
from segzero_core.types import ObjectPrompt
from training.rewards.ground_truth import POINTS_OF_FORM, GroundTruth
from training.rewards.matching import Accuracy, MatchRule, Objects, match

MAX_REPEATS: Final = 1
"""Number of sentences that may be repeated before the thinking counts as repetitive."""

_TAG = re.compile("|".join(TAGS), re.IGNORECASE | re.ASCII)
# The end of a sentence is followed by space or nothing: the full stop in "0.5" is none.
_SENTENCE_END = re.compile(r"[.!?]++(?=\s|$)|\n")


class RewardError(SegZeroError):
    """A reward could not be computed."""

    def __init__(self, sample: int, term: str, problem: str | Exception) -> None:
        if isinstance(problem, Exception):
            problem = f"{type(problem).__name__}: {problem}"
        super().__init__(f"sample {sample}, {term}: {problem}")
        self.sample = sample  # index of the completion in its batch
        self.term = term  # name of the term, or `reading`


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """A completion, read and compared with its ground truth once for all terms."""

    text: str  # the completion
    n_objects: int | None  # number of objects in it; None where it cannot be read
    format_share: float  # share of the format reward, in [0, 1]; see `segmentation_format_strict`
    accuracy: Accuracy  # shares of the accuracy rewards

    @property
    def unusable(self) -> bool:
        """Whether nothing could be read from it."""
        return self.n_objects is None


def read_answers(
    texts: Sequence[str], truths: Sequence[GroundTruth], rule: MatchRule
) -> list[Answer]:
    """Read completions through `parse_completion` and match their objects with the true ones.

    Raises:
        RewardError: The parser failed for another reason than an unusable completion.
    """
    pairs = enumerate(zip(texts, truths, strict=True))
    return compared(texts, [_read(index, *pair) for index, pair in pairs], truths, rule)


def compared(
    texts: Sequence[str],
    read: Sequence[tuple[Objects | None, float]],
    truths: Sequence[GroundTruth],
    rule: MatchRule,
) -> list[Answer]:
    """Match the objects that were read with the true ones.

    What was read of a text is its objects, None where it could not be read, and its format share.
    """
    accuracies = match([objects for objects, _ in read], truths, rule)
    return [
        Answer(text, None if objects is None else objects.count, format_share, accuracy)
        for text, (objects, format_share), accuracy in zip(texts, read, accuracies, strict=True)
    ]


def _read(index: int, text: str, truth: GroundTruth) -> tuple[Objects | None, float]:
    """Return the objects of a completion (None where it cannot be read) and the format share."""
    try:
        prompts = parse_completion(text).prompts
    except ReasoningError:
        return None, 0.0
    except Exception as error:
        raise RewardError(index, "reading", error) from error
    objects, n_in_form = _objects(prompts, POINTS_OF_FORM[truth.form])
    if not objects.count or (truth.form == SINGLE_OBJECT and objects.count > 1):
        return objects, 0.0
    return objects, n_in_form / objects.count


def _objects(prompts: Sequence[ObjectPrompt], n_points: int) -> tuple[Objects, int]:
    """Return prompts as numbers, and how many of them have the number of points of the form."""
    boxes: list[float] = []
    points: list[float] = []
    n_in_form = 0
    for prompt in prompts:
        box = prompt.box
        boxes += (box.x_min, box.y_min, box.x_max, box.y_max)
        if len(prompt.points) != n_points:
            points += (np.nan,) * (2 * n_points)
            continue
        n_in_form += 1
        for point in prompt.points:
            points += (point.x, point.y)
    return Objects(len(prompts), boxes, points), n_in_form


def thinking_format(answer: Answer, truth: GroundTruth) -> float:
    """1 for `<think>…</think><answer>…</answer>`, each tag once, and only white space around it.

    Differs from the public code: white space before and after is allowed, and a repeated tag is
    not.
    """
    text = answer.text
    tags = list(_TAG.finditer(text))
    if tuple(tag.group() for tag in tags) != TAGS:
        return 0.0
    before, between = text[: tags[0].start()], text[tags[1].end() : tags[2].start()]
    outside = before + between + text[tags[3].end() :]
    return float(not outside.strip())


def thinking_format_filled(answer: Answer, truth: GroundTruth) -> float:
    """As `thinking_format`, and the thinking must not be blank."""
    if not thinking_format(answer, truth):
        return 0.0
    _, thinking = answer.text.split(TAGS[0])
    return float(not thinking.lstrip().startswith(TAGS[1]))


def segmentation_format_soft(answer: Answer, truth: GroundTruth) -> float:
    """1 for an answer that names an object in either form.

    Differs from the paper: other keys that contain "bbox" and "points" earn nothing, because the
    pipeline cannot use them.
    """
    return float(bool(answer.n_objects))


def segmentation_format_strict(answer: Answer, truth: GroundTruth) -> float:
    """Share of objects in the form that was asked for; 0 for several in the single-object form."""
    return answer.format_share


def refusal(answer: Answer, truth: GroundTruth) -> float:
    """1 where the answer is empty exactly if nothing fits."""
    return float(answer.n_objects is not None and bool(answer.n_objects) == bool(len(truth)))


def non_repeat(answer: Answer, truth: GroundTruth) -> float:
    """0 where two or more sentences of the thinking are repetitions, case and spaces aside.

    All text before the last answer counts, so that the term does not depend on whether the rest
    can be read.
    """
    text = answer.text
    opened = text.rfind(TAGS[2])
    thinking = _TAG.sub("\n", text[:opened] if opened >= 0 else text)
    sentences = [" ".join(s.lower().split()) for s in _SENTENCE_END.split(thinking)]
    sentences = [sentence for sentence in sentences if sentence]
    return float(len(sentences) - len(set(sentences)) <= MAX_REPEATS)
