"""Tells people how the node is: ~/status, /diagnostics and the log."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType

from segzero_ros import qos
from segzero_ros.msg import SegmentationResult, Status
from segzero_ros.parameters import read_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from segzero_core.types import ModelIdentity
    from segzero_ros.node import SegZeroNode
    from segzero_ros.queries.answer import Answer

DIAGNOSTICS_PERIOD_S: Final = 1.0
WARNING_PERIOD_S: Final = 5.0


class Reporter:
    """The node's voice; any thread may use it.

    Args:
        node: Whose state is told; its health and outputs exist.
        facts: Returns what the diagnostics tell beside the counters; see `Health.to_msg`.

    Attributes:
        status: What was told last.
        identity: Of the model that is loaded, with the encoder that it uses now; None without.
    """

    def __init__(self, node: SegZeroNode, facts: Callable[[], dict[str, Any]]) -> None:
        self._node = node
        self._facts = facts
        self._model = node.config.model
        self._turn = threading.Lock()
        self._loading_since_s: float | None = None
        self.identity: ModelIdentity | None = None
        self.status = Status()
        self._diagnostics = node.create_publisher(
            DiagnosticArray, "/diagnostics", **qos.overridable(qos.RESULT)
        )
        # With simulated time that stands still, diagnostics are wanted most.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose, clock=steady)

    def tell(self, state: int, detail: str, query_id: str = "") -> None:
        """Publish the node's state; in order, whichever threads tell it."""
        with self._turn:
            self._loading_since_s = None
            self._publish(state, detail, query_id)

    def tell_loading(self) -> None:
        """Publish that the model loads, now and every second until another state is told."""
        with self._turn:
            self._loading_since_s = time.monotonic()
            self._publish(Status.LOADING, f"loading {self._model}")

    def log_failure(self, answer: Answer) -> None:
        """Log one line for an expected failure, and the traceback for any other."""
        msg, logger = answer.msg, self._node.get_logger()
        if msg.error_code == SegmentationResult.OK:
            return
        if msg.error_code == SegmentationResult.MODEL_FAILURE and answer.error is not None:
            trace = "".join(traceback.format_exception(answer.error))
            logger.error(f"query {msg.query_id}: {trace}")
            return
        logger.warning(
            f"query {msg.query_id} failed (error code {msg.error_code}): {msg.error_msg}"
        )

    def warn_rarely(self, text: str) -> None:
        """Log a warning that may come with every answer; at most one every few seconds."""
        self._node.get_logger().warning(text, throttle_duration_sec=WARNING_PERIOD_S)

    def _publish(self, state: int, detail: str, query_id: str = "") -> None:
        self.status = Status(
            state=state,
            detail=detail,
            model=self._model,
            encoder_backend=self.identity.encoder_backend if self.identity else "",
            active_query_id=query_id,
        )
        self._node.outputs.publish_status(self.status)

    def _diagnose(self) -> None:
        """Publish /diagnostics, and the progress of a load."""
        try:
            with self._turn:
                if self._loading_since_s is not None:
                    since_s = time.monotonic() - self._loading_since_s
                    self._publish(Status.LOADING, f"loading {self._model}, {since_s:.0f} s so far")
            node = self._node
            reason = self.identity.encoder_reason if self.identity else ""
            msg = node.health.to_msg(
                node.get_fully_qualified_name(),
                node.get_clock().now().to_msg(),
                self.status,
                read_config(node).max_image_age_s,
                self._facts() | {"encoder_reason": reason},
            )
            node.outputs.publish(self._diagnostics, msg)
        except Exception:
            self._node.log_defect("while writing the diagnostics")
