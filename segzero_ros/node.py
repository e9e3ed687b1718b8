"""Lifecycle node that answers queries about the latest camera image.

It only wires: camera/ fills the image buffer, queries/ has the model answer queries, spatial/
measures the objects, messages/ builds what publishers.py publishes, tracking.py tracks the
objects afterwards, diagnostics/ reports state and health.

Threads: the executor's, in which all callbacks return at once; the model's and the one that
watches it; one for each transition; one that draws the overlay; one that tracks objects.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Final

from lifecycle_msgs.msg import Transition
from rclpy.clock import Clock, ClockType
from std_msgs.msg import String
from std_srvs.srv import Trigger

from segzero_core.errors import SegZeroError
from segzero_ros import qos
from segzero_ros.camera.image_buffer import CameraFrame, ImageBuffer
from segzero_ros.camera.subscriptions import subscribe_camera
from segzero_ros.diagnostics.guard import Guard
from segzero_ros.diagnostics.health import Health, resident_mb
from segzero_ros.diagnostics.log_bridge import LogBridge, log_defect
from segzero_ros.diagnostics.memory import release_memory
from segzero_ros.diagnostics.status import StatusReporter
from segzero_ros.lifecycle import ManagedNode, TransitionRefusedError
from segzero_ros.msg import Status
from segzero_ros.parameters import NodeConfig, check_change, declare_parameters, read_config
from segzero_ros.publishers import Publishers
from segzero_ros.queries.action_server import SegmentServer
from segzero_ros.queries.answer import Pipeline, load_pipeline
from segzero_ros.queries.manager import WARNING_PERIOD_S, QueryManager
from segzero_ros.spatial.pose_estimator import estimate_poses
from segzero_ros.spatial.transforms import Transforms
from segzero_ros.tracking import NOTHING, TrackingWorker

STOP_TIMEOUT_S: Final = 2.0
"""How long a running answer may take to notice that the node ends."""
DIAGNOSTICS_PERIOD_S: Final = 1.0


class SegZeroNode(ManagedNode):
    """Answers queries about the latest image of a camera.

    All topics, the action and the services exist from construction to the end, so that a query to
    a node that is not active is answered too: with INACTIVE. `load` makes the pipeline, in
    configure. `end_process` is called with a reason, where `exit_on_hang` asks for that.
    """

    def __init__(
        self,
        load: Callable[[NodeConfig], Pipeline] = load_pipeline,
        end_process: Callable[[str], None] = lambda _: None,
        **node_arguments: Any,
    ) -> None:
        super().__init__("segzero", **node_arguments)
        declare_parameters(self)
        self.config = read_config(self)
        self.add_on_set_parameters_callback(functools.partial(check_change, self))
        config: Callable[[], NodeConfig] = functools.partial(read_config, self)
        self._load = load
        self._end_process = end_process
        self._log = self.get_logger()
        self._log_bridge = LogBridge(self._log)
        self._health = Health()
        self._guard = guard = Guard(self._log, self._health)
        endpoints = qos.Endpoints(self, self._on_mismatch, guard)
        self.output = Publishers(self, endpoints, config, guard)
        publish = self.output.publish
        self._status = StatusReporter(self.config.model, functools.partial(publish, "status"))
        self.images = ImageBuffer(self.config.ring_size, self.config.pair_tolerance_s)
        transforms = Transforms(self)
        if self.config.target_frame:
            with contextlib.suppress(ImportError):  # reported when a transform is looked up
                transforms.listen()
        self._tracking = TrackingWorker(
            lambda: self.queries.pipeline.new_tracker(),
            functools.partial(publish, "tracks"),
            self._may_track,
            lambda: 1.0 / self.get_parameter("tracking_rate_hz").value,
            self._on_tracking_state,
            guard,
        )
        self.queries = QueryManager(
            config,
            self.images,
            functools.partial(estimate_poses, transforms, config),
            self._tracking,
            self.output,
            self._status,
            self._health,
            self._log,
            guard,
            lambda: self.state_label,
            self._on_hang,
        )
        transport = self.config.image_transport
        self._image_topic = subscribe_camera(
            endpoints, self.images, transport, self._on_frame, self._on_unreadable
        )
        endpoints.subscribe(String, "~/query", lambda msg: self.queries.ask(msg.data), qos.QUERY)
        self._actions = SegmentServer(self, self.queries, guard)
        self._offer("~/cancel", self.queries.cancel_all)
        self._offer(
            "~/reset_tracking",
            lambda: "nothing is followed any more" if self._tracking.reset() else NOTHING,
        )
        # With simulated time that stands still, diagnostics are wanted most.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        self._status.report(Status.UNCONFIGURED, "not configured")
        if self.config.autostart:
            self.begin_transitions(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)

    # Transitions, each in a thread of its own; see lifecycle.py.

    def do_configure(self) -> None:
        """Load the model."""
        self._status.report_loading()
        try:
            pipeline = self._load(self.config)
        except Exception as error:
            if not isinstance(error, SegZeroError):
                log_defect(self._log, f"while loading {self.config.model}")
            reason = f"cannot load {self.config.model}: {error}"
            release_memory()
            self._status.report(Status.ERROR, f"{reason}; fix it and configure again")
            raise TransitionRefusedError(reason) from error
        self._status.identity = pipeline.identity
        self.queries.start(pipeline)
        self._status.report(Status.INACTIVE, "configured, not active")

    def do_activate(self) -> None:
        """Begin to take images and queries."""
        if self.queries.hang:
            raise TransitionRefusedError(self.queries.hang)
        self.queries.accept()
        self._status.report(Status.READY, "ready")

    def do_deactivate(self) -> None:
        """Take no query any more, and let the running one finish or cancel it."""
        patience_s = read_config(self).deactivate_timeout_s
        self.queries.stop_accepting(patience_s, "the node was deactivated")
        if not self.queries.hang:  # which ~/status goes on to report
            self._status.report(Status.INACTIVE, "configured, not active")

    def do_cleanup(self) -> None:
        """Give the model's memory back."""
        self.queries.stop_accepting(0.0, "the node was cleaned up")
        before_mb = resident_mb()
        self.queries.end()
        self._status.identity = None
        release_memory()
        self._log.info(f"memory: {before_mb:.0f} MB before, {resident_mb():.0f} MB after")
        self._status.report(Status.UNCONFIGURED, "not configured")

    do_shutdown = do_cleanup

    def close(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """End everything that runs, giving every query its result; the executor still spins.

        Within `timeout_s` [s] the answer that runs has to notice it. Returns whether the model's
        threads have ended; a load may still run.
        """
        self.queries.stop_accepting(0.0, "the node is shutting down")
        has_ended = self.queries.end(timeout_s)
        self._tracking.stop(timeout_s)
        self.output.close()
        self._log_bridge.close()
        return has_ended

    def destroy_node(self) -> None:
        """Destroy the action server and the node; the executor must not spin any more."""
        self._actions.close()
        super().destroy_node()

    # Callbacks.

    def _on_frame(self, frame: CameraFrame) -> None:
        self._health.frame_arrived(frame)
        self._tracking.frame_arrived(frame)

    def _on_unreadable(self, topic: str, reason: str) -> None:
        self._log.warning(
            f"{topic}: a message is dropped: {reason}", throttle_duration_sec=WARNING_PERIOD_S
        )
        self._health.unreadable(f"{topic}: {reason}")

    def _offer(self, name: str, act: Callable[[], str]) -> None:
        """Offer a service that acts and answers with what it did."""

        def serve(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            response.success, response.message = True, act()
            return response

        self.create_service(Trigger, name, serve)

    def _may_track(self) -> bool:
        is_idle = self.queries.is_accepting and self.queries.is_idle
        is_wanted = self.output.is_subscribed("tracks") and self.get_parameter("tracking").value
        return is_idle and is_wanted

    def _on_tracking_state(self, state: str) -> None:
        """Report how the tracking goes, unless there is something else to report."""
        self._log.info(f"tracking: {state}")
        if self.queries.is_accepting:
            self._status.compare_and_set((Status.READY, ""), Status.READY, f"ready; {state}")

    def _on_hang(self, reason: str) -> None:
        """Leave the active state, in which no query could be answered any more."""
        self._log.error(reason)
        if read_config(self).exit_on_hang:
            self._end_process(reason)
        else:
            self.begin_transitions(Transition.TRANSITION_DEACTIVATE)

    def _on_mismatch(self, topic: str, lines: list[str]) -> None:
        advice = "; ".join(lines) or f"{topic}: a peer with incompatible QoS came and went"
        self._log.warning(advice)
        self._health.mismatched(topic, advice)

    def _look_for_twins(self, own: str) -> None:
        """Report other nodes of this name, which answer every query a second time."""
        count = self.count_publishers(f"{own}/status")
        if count > 1:
            advice = (
                f"{count} nodes are called {own} (one that was killed counts for 20 s more);"
                " remap one: --ros-args -r __node:=NAME"
            )
            self._log.warning(advice, throttle_duration_sec=60.0)
            self._health.mismatched("node", advice)
        else:
            self._health.fits("node")

    def _publish_diagnostics(self) -> None:
        """Publish /diagnostics, and the progress of a load."""
        with self._guard("while writing the diagnostics"):
            self._status.repeat_loading()
            identity = self._status.identity
            facts = {
                "clock_jumps": self.images.clock_jumps,
                "image_topic": self._image_topic,
                "lifecycle": self.state_label,
                "tracking": self._tracking.state,
                "encoder_reason": identity.encoder_reason if identity else "",
            }
            name, stamp = self.get_fully_qualified_name(), self.get_clock().now().to_msg()
            self._look_for_twins(name)
            max_age_s = read_config(self).max_image_age_s
            status, reasoners = self._status.status, self.queries.reasoners
            msg = self._health.to_msg(name, stamp, status, max_age_s, facts, reasoners)
            self.output.publish("diagnostics", msg)
