"""Scores answers in words, of ChartQA, TextVQA and rendered scenes.

Written from the published definitions; each rule names its source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

# Source: Masry et al., ChartQA (arXiv:2203.10244): numbers may be off by 5 %.
CHART_TOLERANCE: Final = 0.05
# Source: Antol et al., VQA (arXiv:1505.00468): right if three people said so.
VQA_AGREEMENT: Final = 3

_ARTICLES = {"a", "an", "the"}
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
# Those whose letters are no word of their own: "wont" becomes "won't", "were" stays.
_CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's
how'd how'll how's i'm i've isn't it'd it'll let's ma'am might've mightn't must've mustn't
needn't o'clock oughtn't shan't she's should've shouldn't somebody's someone's something's
that'd that's there'd there's they'd they'll they're they've wasn't we've weren't what'll
what're what's what've when's where'd where's where've who'd who'll who's who've why'll why's
won't would've wouldn't y'all you'd you'll you're you've
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _CONTRACTED.split()}
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d)")
_PERIOD_OUTSIDE_NUMBER = re.compile(r"\.(?!\d)")
# As the published evaluation has them: the signs of money and per cent are not among them.
_PUNCTUATION = re.compile(r"""[;/\[\]"{}()=+\\_\-<>@`,?!]""")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)


def spoken_answer(reply: str) -> str:
    """Return the answer of a reply: the text in its last answer tags, else the whole reply."""
    tagged = _ANSWER.findall(reply)
    return (tagged[-1] if tagged else reply).strip()


def relaxed_match(answer: str, truth: str) -> bool:
    """Say whether an answer about a chart is right.

    Numbers may be off by 5 % of the true one; currency, per cent and thousands signs do not
    matter. Anything else must be the same text, but for case.

    Source: Masry et al., ChartQA (arXiv:2203.10244); differs: signs around a number are dropped.
    """
    answered, true = _number(answer), _number(truth)
    if answered is not None and true is not None:
        return abs(answered - true) <= CHART_TOLERANCE * abs(true)
    return _plain(answer) == _plain(truth)


def _number(text: str) -> float | None:
    bare = text.strip().rstrip(".").strip("$€£% ")
    if not _NUMBER.fullmatch(bare):
        return None
    value = float(bare.replace(",", ""))
    return value if math.isfinite(value) else None


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def vqa_accuracy(answer: str, truths: Sequence[str]) -> float:
    """Score an answer against those of several people.

    Each person is left out once; the answer earns a third for each of the others who said the
    same, at most 1. The score is the mean over those left out.

    Source: the evaluation of VQA (arXiv:1505.00468, visualqa.org/evaluation).
    """
    normal = normalize(answer)
    same = [normalize(truth) == normal for truth in truths]
    total = sum(same)
    scores = [min(1.0, (total - own) / VQA_AGREEMENT) for own in same]
    return sum(scores) / len(scores)


def normalize(text: str) -> str:
    """Normalize an answer for the comparison.

    Lower case; periods outside numbers and commas inside them dropped; other punctuation, but for
    apostrophe, colon and signs such as $ and %, a space; number words as digits; no articles;
    contractions with their apostrophe.

    Source: visualqa.org/evaluation, the rules before comparing answers.
    """
    lowered = _COMMA_IN_NUMBER.sub("", text.lower())
    bare = _PERIOD_OUTSIDE_NUMBER.sub("", _PUNCTUATION.sub(" ", lowered))
    words = (_NUMBER_WORDS.get(word, word) for word in bare.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def exact_word(answer: str, truth: str) -> bool:
    """Say whether an answer is the one right word, in any case, with or without a full stop."""
    return _plain(answer) == _plain(truth)
