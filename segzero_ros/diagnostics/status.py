"""Keeps the node's state and publishes it on ~/status."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from segzero_core.types import ModelIdentity
from segzero_ros.msg import Status


class StatusReporter:
    """Publishes the node's state in the order in which it changes, whichever threads change it.

    `publish` is called while the state is locked.
    """

    def __init__(self, model: str, publish: Callable[[Status], None]) -> None:
        self._model = model
        self._send = publish
        self._lock = threading.Lock()
        self._loading_since_s: float | None = None
        # Of the model that is loaded, with the encoder that it uses now; None without.
        self.identity: ModelIdentity | None = None
        self.status = Status()  # the last one

    def report(self, state: int, detail: str) -> None:
        """Publish a state, whatever it was before."""
        with self._lock:
            self._publish(state, detail)

    def compare_and_set(
        self, expected: tuple[int, str], state: int, detail: str, query_id: str = ""
    ) -> bool:
        """Publish a state only if the present one is as expected.

        `expected` is a state and an active query id. Returns whether it was as expected.
        """
        with self._lock:
            as_expected = (self.status.state, self.status.active_query_id) == expected
            if as_expected:
                self._publish(state, detail, query_id)
            return as_expected

    def report_loading(self) -> None:
        """Publish that the model loads."""
        with self._lock:
            self._publish(Status.LOADING, f"loading {self._model}")
            self._loading_since_s = time.monotonic()

    def repeat_loading(self) -> None:
        """Publish again that the model loads, with the time so far; nothing in other states."""
        with self._lock:
            if (since_s := self._loading_since_s) is not None:
                passed_s = time.monotonic() - since_s
                self._publish(Status.LOADING, f"loading {self._model}, {passed_s:.0f} s so far")
                self._loading_since_s = since_s

    def _publish(self, state: int, detail: str, query_id: str = "") -> None:
        self._loading_since_s = None
        self.status = Status(
            state=state,
            detail=detail,
            model=self._model,
            encoder_backend=self.identity.encoder_backend if self.identity else "",
            active_query_id=query_id,
        )
        self._send(self.status)
