"""Detects answers that leave open which object was meant.

A reasoner gives no second choice and no probability. What can be seen is that somebody asked for
one object and got several that are equally good.
"""

from __future__ import annotations

import re
from typing import Final

from segzero_core.types import Result

NEAR_EQUAL: Final = 0.1
"""Scores that differ by at most this are near-equal."""

_ONE: Final = re.compile(
    r"^(please )?(find |show |give me |segment |point at |point to |where is |which is )?"
    r"(the|a|an|one|my|your|this|that|something|anything|which|what) ?",
    re.IGNORECASE,
)
_SEVERAL: Final = re.compile(
    r"\b(all|every|everything|each|any of|both|these|those|them|several|many|few|some|group"
    r"|set|pair|and|two|three|four|five|six|seven|eight|nine|ten|\d+)\b",
    re.IGNORECASE,
)
_PLURAL: Final = re.compile(r"\b[a-z]{2,}[^s\W]s\b", re.IGNORECASE)
_NOT_PLURAL: Final = frozenset({"does", "this", "lens"})


def asks_for_one(query: str) -> bool:
    """Whether an English query clearly asks for a single object.

    When in doubt, as with any word that may be a plural, the answer is no.
    """
    if not _ONE.match(query.strip()) or _SEVERAL.search(query):
        return False
    return all(word.lower() in _NOT_PLURAL for word in _PLURAL.findall(query))


def is_ambiguous(result: Result, margin: float = NEAR_EQUAL) -> bool:
    """Whether one object was asked for, and found with others whose scores are near-equal."""
    scores = sorted(map(float, result.segmentation.scores), reverse=True)
    if len(scores) < 2 or scores[0] - scores[1] > margin:
        return False
    return asks_for_one(result.query)
