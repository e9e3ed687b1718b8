"""The model's thinking as a stream of messages on ~/reasoning."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from segzero_ros.conversions.text import valid_text
from segzero_ros.msg import ReasoningTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from std_msgs.msg import Header

PERIOD_S: Final = 0.05
"""Text is collected for this long: a message for each token would cost more than the token."""


class TraceWriter:
    """Collects the tokens of one query's reply and publishes them a few times a second.

    Safe to use from several threads. The thread that concludes a query closes its trace; text that
    a hung model produces afterwards is dropped.

    Args:
        query_id: Of the query.
        publish: Called with each message.

    Attributes:
        header: Of the image, once it is known.
        thinking: The thinking so far.
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
        """Add text. A later stage than before is published at once, after the text until then."""
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
        """Publish the rest of the text, and that no more will come."""
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
