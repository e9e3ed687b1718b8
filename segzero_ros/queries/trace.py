"""The model's thinking as a stream of messages on ~/reasoning."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from segzero_ros.msg import ReasoningTrace
from segzero_ros.messages.result import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from std_msgs.msg import Header

PERIOD_S: Final = 0.05
"""Text is gathered for this long: a message for each token would cost more than the token."""


class TraceWriter:
    """Gathers the pieces of one query's text and publishes them a few times a second.

    Safe to use from several threads: whoever concludes a query closes its trace, and what a model
    that hung says afterwards is dropped.

    Args:
        query_id: Of the query that is thought about.
        publish: Called with each message.
    """

    def __init__(self, query_id: str, publish: Callable[[ReasoningTrace], None]) -> None:
        self.header: Header | None = None
        self.thinking = ""
        self._query_id = query_id
        self._publish = publish
        self._lock = threading.Lock()
        self._stage = int(ReasoningTrace.WAITING)
        self._delta = ""
        self._text_sent_s = -PERIOD_S
        self._is_first = True
        self._is_closed = False

    def add(self, stage: int, text: str = "") -> None:
        """Take more text; a later stage than before is told at once, with the text until then."""
        with self._lock:
            if self._is_closed:
                return
            changed = stage > self._stage or self._is_first
            if changed:
                self._flush()
                self._stage = stage
            self._delta += text
            if stage == ReasoningTrace.THINKING:
                self.thinking += text
            if changed or time.monotonic() - self._text_sent_s >= PERIOD_S:
                self._send(done=False)

    def close(self, stage: int) -> None:
        """Tell the text that is left, and that no more will come."""
        with self._lock:
            if self._is_closed:
                return
            self._flush()
            self._stage, self._is_closed = stage, True
            self._send(done=True)

    def _flush(self) -> None:
        if self._delta:
            self._send(done=False)

    def _send(self, *, done: bool) -> None:
        trace = ReasoningTrace(
            query_id=self._query_id,
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
        self._publish(trace)
