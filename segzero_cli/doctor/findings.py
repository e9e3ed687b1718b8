"""The result of one check of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial


class Mark(Enum):
    """Outcome of a check."""

    OK = "ok"
    ABSENT = "--"
    """Missing, and only some commands need it."""
    FAILED = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    mark: Mark
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.mark.value:<4} {self.subject:<12} {self.text}"


ok, absent, failed = (partial(Finding, mark) for mark in Mark)
