"""Replies and fakes that several test modules of the node use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from segzero_core import SegZero
from segzero_core.testing.fakes import BoxSegmenter, FakeEncoder, fake_description
from segzero_core.types import ModelIdentity

THINKING = "I see a red mug on the left and a blue one; the query names the red one."
TWO_OBJECTS = (
    f"<think>{THINKING}</think><answer>"
    '[{"bbox_2d": [10, 10, 30, 40], "point_2d": [20, 25]},'
    ' {"bbox_2d": [50, 60, 90, 95], "point_2d": [70, 80]}]</answer>'
)
NOTHING = "<think>There is no fruit.</think><answer>[]</answer>"
# The scripted model sees 100x100 pixels; images of the same size keep the numbers readable.
SIZE_WH = (100, 100)


class GatedReasoner:
    """Says the beginning of a reply, then waits until the test opens the gate.

    Attributes:
        waiting: Set when the beginning was said.
        gate: The rest is said when it is set.
    """

    def __init__(self, reply: str = TWO_OBJECTS, *, before: int = 20) -> None:
        self.description = fake_description()
        self.waiting, self.gate = threading.Event(), threading.Event()
        self.queries: list[str] = []
        self._reply, self._before = reply, before

    def stream(
        self, image: Any, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[str]:
        self.queries.append(query)
        yield self._reply[: self._before]
        self.waiting.set()
        assert self.gate.wait(30.0)
        yield self._reply[self._before :]


def pipeline_of(reasoner: Any, encoder: Any = None) -> SegZero:
    identity = ModelIdentity("scripted", "0123456789abcdef", "fake")
    return SegZero(reasoner, encoder or FakeEncoder(), BoxSegmenter(), identity)
