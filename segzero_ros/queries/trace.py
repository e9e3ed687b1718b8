"""The model's thinking as a stream of messages on ~/reasoning."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from std_msgs.msg import Header

from segzero_ros.conversions.text import valid_text
from segzero_ros.msg import ReasoningTrace

PERIOD_S: Final = 0.05
"""Text is collected for this long: a message for each token would cost more than the token."""


@dataclass(eq=False)
class TraceWriter:
    """Collects the tokens of one query's reply and publishes them a few times a second.

    Safe to use from several threads. The thread that concludes a query closes its trace; text that
    a hung model produces afterwards is dropped.
    """

    query_id: str
    publish: Callable[[ReasoningTrace], None]  # called with each message

    def __post_init__(self) -> None:
        self.header: Header | None = None  # of the image, once it is known
        self.thinking = ""  # the thinking so far
        self._lock = threading.Lock()
        self._stage = int(ReasoningTrace.WAITING)
        self._delta = ""
        self._text_sent_s = -PERIOD_S
        self._is_first = True
        self._is_closed = False

    def add(self, stage: int, text: str = "") -> None:
        """Add text. A later stage than before is published at once, after the text until then."""
        with self._lock:
            if self._is_closed:
                return
            changed = stage > self._stage or self._is_first
            if changed:
                if self._delta:
                    self._send(done=False)
                self._stage = stage
            self._delta += text
            if stage == ReasoningTrace.THINKING:
                self.thinking += text
            if changed or time.monotonic() - self._text_sent_s >= PERIOD_S:
                self._send(done=False)

    def close(self, stage: int) -> None:
        """Publish the rest of the text, and that no more will come."""
        with self._lock:
            if self._is_closed:
                return
            if self._delta:
                self._send(done=False)
            self._stage, self._is_closed = stage, True
            self._send(done=True)

    def _send(self, *, done: bool) -> None:
        trace = ReasoningTrace(
            query_id=self.query_id,
            stage=self._stage,
            delta=valid_text(self._delta),
            thinking=valid_text(self.thinking),
            done=done,
        )
        if self.header is not None:
            trace.header = self.header
        if self._delta:
            self._text_sent_s = time.monotonic()
        self._delta, self._is_first = "", False
        self.publish(trace)
