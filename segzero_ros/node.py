"""The ROS 2 node `segzero`, as a table of contents: what happens when, and which module does it.

    lifecycle.py  transitions         inputs.py   camera and questions  pictures.py   the ring
    jobs.py       a query             worker.py   the model's thread    answering.py  the model
    goals.py      the action          outputs.py  what is published     health.py     counters
    process.py    signals, exit code  qos.py      QoS                   reporting.py  the voice
    measuring.py  3-D                 frames.py   TF                    space.py      its messages
    tracks.py     following objects   newest.py   a thread that skips what is old

Threads: the executor's, in which all callbacks return at once; the model's and the one that
watches it; one for each transition; one that draws the overlay; one that follows objects.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from lifecycle_msgs.msg import Transition
from std_srvs.srv import Trigger

from segzero_core.errors import InputError, OutOfMemoryError, SegZeroError
from segzero_core.prompt import clean_query
from segzero_ros.camera.image_buffer import Picture, PictureRing, picture_trouble
from segzero_ros.camera.subscriptions import Inputs
from segzero_ros.diagnostics.health import Health, resident_mb
from segzero_ros.diagnostics.log_bridge import CoreLog
from segzero_ros.diagnostics.memory import release_memory
from segzero_ros.diagnostics.status import Reporter
from segzero_ros.lifecycle import ManagedNode, TransitionRefusedError
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
from segzero_ros.parameters import check_change, declare_parameters, read_config
from segzero_ros.publishers import Outputs
from segzero_ros.queries.action_server import SegmentServer
from segzero_ros.queries.answer import Answer, Pipeline, answer_query
from segzero_ros.queries.job import Job, Query
from segzero_ros.messages.result import failure_to_msg
from segzero_ros.queries.trace import TraceWriter
from segzero_ros.queries.worker import MAX_HANGS, Worker
from segzero_ros.spatial.pose_estimator import Measurer
from segzero_ros.tracking import NOTHING, Beginning, TrackKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from segzero_core.config import NodeConfig
    from segzero_core.tracking.tracker import Tracker

STOP_TIMEOUT_S: Final = 2.0
"""How long a running answer may take to notice that the node ends."""


def load_pipeline(config: NodeConfig) -> Pipeline:
    """Load the model that the parameters name; takes seconds to minutes."""
    from segzero_core import SegZero

    return SegZero.load(
        config.model,
        segmenter=config.segmenter or None,
        device=config.device,
        template=config.template or None,
        max_new_tokens=config.max_new_tokens or None,
        backend=config.backend,
        encoder_precision=config.encoder_precision,
        precision=config.precision,
        grammar=config.grammar,
    )


class SegZeroNode(ManagedNode):
    """Answers queries about the newest picture of a camera.

    All topics, the action and the services exist from construction to the end, so that a query to
    a node that is not active is answered too: with INACTIVE.

    Args:
        load: Makes the pipeline from the settings, in configure.
        **node_arguments: For `rclpy.node.Node`.
    """

    def __init__(
        self, load: Callable[[NodeConfig], Pipeline] = load_pipeline, **node_arguments: Any
    ) -> None:
        super().__init__("segzero", **node_arguments)
        declare_parameters(self)
        self.config = read_config(self)
        self.add_on_set_parameters_callback(functools.partial(check_change, self))
        self._load = load
        self._pipeline: Pipeline | None = None
        self._worker: Worker | None = None
        self._fault = ""
        self._gate = threading.Lock()
        self._is_accepting = False
        self._query_ids = itertools.count(1)
        self._core_log = CoreLog(self.get_logger())
        self.health = Health()
        self.ring = PictureRing(self.config.ring_size, self.config.pair_tolerance_s)
        self._measurer = Measurer(self)
        self.outputs = Outputs(self, self._on_mismatch)
        self._tracks = TrackKeeper(
            self._new_tracker,
            self.outputs.publish_tracks,
            self._may_track,
            lambda: 1.0 / self.get_parameter("tracking_rate_hz").value,
            self._on_tracking,
            self.log_defect,
        )
        self._inputs = Inputs(self, self._on_query, self._on_mismatch)
        self._goals = SegmentServer(self)
        self.create_service(Trigger, "~/cancel", self._on_cancel)
        self.create_service(Trigger, "~/reset_tracking", self._on_reset_tracking)
        self.reporter = Reporter(self, self._facts)
        self.reporter.tell(Status.UNCONFIGURED, "not configured")
        if self.config.autostart:
            self.begin_transitions(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)

    # Transitions, each in a thread of its own; see lifecycle.py.

    def do_configure(self) -> None:
        """Load the model."""
        self._fault = ""
        self.reporter.tell_loading()
        try:
            self._pipeline = self._load(self.config)
        except Exception as error:
            if not isinstance(error, SegZeroError):
                self.log_defect(f"while loading {self.config.model}")
            self._fault = f"cannot load {self.config.model}: {error}"
            release_memory()
            self.reporter.tell(Status.ERROR, f"{self._fault}; mend it and configure again")
            raise TransitionRefusedError(self._fault) from error
        self.reporter.identity = self._pipeline.identity
        self._worker = Worker(
            self._work,
            self._on_late,
            self._on_hang,
            lambda: read_config(self).stop_grace_s,
            name="segzero",
        )
        self.reporter.tell(Status.INACTIVE, "configured, not active")

    def do_activate(self) -> None:
        """Begin to take pictures and queries."""
        with self._gate:
            self._is_accepting = True
        self.reporter.tell(Status.READY, "ready")

    def do_deactivate(self) -> None:
        """Take no query any more, and let the running one finish or cancel it."""
        self._stop_accepting(read_config(self).deactivate_timeout_s, "the node was deactivated")
        if self._fault:
            raise RuntimeError(self._fault)  # by way of error processing to unconfigured
        self.reporter.tell(Status.INACTIVE, "configured, not active")

    def do_cleanup(self) -> None:
        """Give the model's memory back."""
        self._stop_accepting(0.0, "the node was cleaned up")
        before_mb = resident_mb()
        if self._worker is not None:
            self._worker.stop(read_config(self).stop_grace_s)
        self._worker = self._pipeline = None
        self.reporter.identity = None
        self.ring.clear()
        release_memory()
        self.get_logger().info(f"memory: {before_mb:.0f} MB before, {resident_mb():.0f} MB after")
        if self._fault:
            self.reporter.tell(Status.ERROR, f"{self._fault}; mend it and configure again")
        else:
            self.reporter.tell(Status.UNCONFIGURED, "not configured")

    def do_shutdown(self) -> None:
        """End for good."""
        self.do_cleanup()

    def _stop_accepting(self, patience_s: float, reason: str) -> None:
        with self._gate:
            self._is_accepting = False
            self._tracks.reset()
            waiting = self._worker.take_pending() if self._worker else None
        if waiting is not None:
            self.refuse(waiting, SegmentationResult.INACTIVE, f"{reason} before its turn came")
        if self._worker is None or self._worker.wait_idle(patience_s):
            return
        if (running := self._worker.running) is not None:
            running.stop(SegmentationResult.CANCELLED, f"{reason} while it ran")
        # A little more than the watching thread takes to give up a model that hangs.
        self._worker.wait_idle(read_config(self).stop_grace_s + 1.0)

    # Queries, in the executor's thread; topic and action go the same way.

    def _on_query(self, text: str) -> None:
        job = self.new_job(text)
        refusal = self.why_refused(text)
        if refusal is not None:
            self.refuse(job, *refusal)
        else:
            self.submit(job)

    def new_job(self, text: str, *, timeout_s: float = 0.0, **options: Any) -> Job:
        """Give a query an id, a trace and a limit of time; see `Job`."""
        query = Query(str(next(self._query_ids)), text)
        job = Job(query, timeout_s=timeout_s or read_config(self).timeout_s, **options)
        job.trace = TraceWriter(query.id, functools.partial(self._publish_trace, job))
        return job

    def why_refused(self, text: str) -> tuple[int, str] | None:
        """Say why a query that comes now is not even taken, as an error code and a reason."""
        try:
            clean_query(text)
        except InputError as error:
            return SegmentationResult.INVALID_QUERY, str(error)
        if not self._is_accepting or self._worker is None:
            return SegmentationResult.INACTIVE, (
                f"the node is {self.state_label} ({self.reporter.status.detail}); ask again when "
                "~/status says READY"
            )
        when_busy = read_config(self).when_busy
        if self._worker.would_refuse(when_busy):
            return SegmentationResult.BUSY, (
                f"another query runs and when_busy is {when_busy}; ask again when it is answered"
            )
        return None

    def submit(self, job: Job) -> None:
        """Queue a query, or give it its result if that cannot be done."""
        job.trace.add(ReasoningTrace.WAITING)
        with self._gate:
            worker = self._worker if self._is_accepting else None
            refused = worker.submit(job, read_config(self).when_busy) if worker else None
        if worker is None:
            reason = "the node stopped being active; ask again when ~/status says READY"
            self.refuse(job, SegmentationResult.INACTIVE, reason)
        elif refused is not None and refused.is_replaced:
            reason = f"replaced by the newer query {job.query.id}; ask again when it is answered"
            self.refuse(refused.job, SegmentationResult.CANCELLED, reason)
        elif refused is not None:
            self.refuse(job, SegmentationResult.BUSY, "another query came first")

    def cancel(self, job: Job, reason: str) -> None:
        """Stop a query, wherever it is."""
        job.stop(SegmentationResult.CANCELLED, reason)
        if self._worker is not None and self._worker.take_pending(job) is not None:
            self.refuse(job, SegmentationResult.CANCELLED, reason)

    def _on_cancel(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        worker = self._worker
        jobs = [job for job in (worker.pending, worker.running) if job] if worker else []
        for job in jobs:
            self.cancel(job, "cancelled by ~/cancel")
        response.success = True
        ids = " and ".join(job.query.id for job in reversed(jobs))
        response.message = f"cancelled query {ids}" if jobs else "no query runs or waits"
        return response

    def _on_reset_tracking(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success = True
        response.message = "nothing is followed any more" if self._tracks.reset() else NOTHING
        return response

    # Following objects, in a thread of its own; see tracks.py.

    def picture_arrived(self, picture: Picture) -> None:
        """Count a picture of the camera and follow the objects into it."""
        self.health.picture_arrived(picture)
        self._tracks.picture_arrived(picture)

    def _new_tracker(self) -> Tracker:
        pipeline = self._pipeline
        if pipeline is None:
            raise InputError("the model is gone")
        return pipeline.new_tracker()

    def _may_track(self) -> bool:
        worker = self._worker
        return (
            self._is_accepting
            and worker is not None
            and worker.running is None
            and worker.pending is None
            and self.outputs.has_track_listener
            and self.get_parameter("tracking").value
        )

    def _on_tracking(self, state: str) -> None:
        """Tell how the tracking goes; what a query does is told first."""
        self.get_logger().info(f"tracking: {state}")
        if self._is_accepting and self.reporter.status.state == Status.READY:
            self.reporter.tell(Status.READY, f"ready; {state}")

    # The answer, in the model's thread.

    def _work(self, job: Job) -> None:
        """Answer one query; the last border before the thread would end."""
        try:
            answer = self._measurer.add_space(job, self._answer(job))
            composed = self.outputs.compose(answer)
        except Exception as error:
            self.log_defect(f"while answering query {job.query.id}")
            reason = f"{type(error).__name__}: {error}; the node's log has the traceback"
            answer, composed = self._failure(job, SegmentationResult.INTERNAL_ERROR, reason), []
        if isinstance(answer.error, OutOfMemoryError | MemoryError):
            release_memory()
        self._conclude(job, answer, composed)

    def _answer(self, job: Job) -> Answer:
        job.began_s = time.monotonic()
        picture = job.picture or self.ring.newest
        if job.stopped is not None or job.check_deadline():
            assert job.stopped is not None
            return self._failure(job, job.stopped.code, job.stopped.reason, picture)
        config = read_config(self)
        max_age_s = 0.0 if job.picture is not None else config.max_image_age_s
        trouble = picture_trouble(picture, max_age_s)
        if trouble is not None or picture is None or self._pipeline is None:
            code, reason = trouble or (SegmentationResult.INACTIVE, "the model is gone")
            return self._failure(job, code, reason, picture)
        self.reporter.tell(Status.BUSY, "answering", job.query.id)
        return answer_query(self._pipeline, job, picture, job.trace, config.ambiguity_margin)

    def _conclude(self, job: Job, answer: Answer, composed: list[tuple[Any, Any]]) -> None:
        """Give a query its one result; whoever comes second is not heard."""
        if not job.conclude():
            return
        msg = answer.msg
        msg.answered_by = self.get_fully_qualified_name()
        if msg.error_code == SegmentationResult.OK and self._worker is not None:
            self._worker.answered_well()
        if answer.result is not None:
            self.reporter.identity = answer.result.model
        self.reporter.log_failure(answer)
        self.health.result_published(msg)
        failed = msg.error_code != SegmentationResult.OK
        stage = ReasoningTrace.FAILED if failed else ReasoningTrace.DONE
        # Each on its own: whoever waits for the goal must not suffer from a topic's trouble.
        with self._survived("while publishing the answer"):
            self.outputs.publish_answer(answer, composed)
        with self._survived("while closing the trace"):
            job.trace.close(stage)  # first, for a client drops feedback after the result
        with self._survived("while giving a goal its result"):
            if job.on_result is not None:
                job.on_result(msg)
        with self._survived("while beginning to follow the objects"):
            self._follow(job, answer)
        with self._survived("while telling the state"):
            if self._is_accepting and self.reporter.status.active_query_id == job.query.id:
                detail = "ready; the last query failed" if failed else "ready"
                if answer.scene_trouble:
                    detail += f"; no pose: {answer.scene_trouble}"
                self.reporter.tell(Status.READY, detail)

    def _follow(self, job: Job, answer: Answer) -> None:
        """Follow the objects of an answer; those of the one before are forgotten."""
        result, picture = answer.result, answer.picture
        if result is None or picture is None or answer.rgb is None:
            return  # what failed says nothing about the objects that are followed
        with self._gate:
            self._tracks.reset()
            of_the_camera = job.picture is None
            if self._is_accepting and of_the_camera and len(result.segmentation):
                label, masks = job.query.text, result.segmentation
                self._tracks.begin(Beginning(job.query.id, label, answer.rgb, masks, picture))

    def _failure(self, job: Job, code: int, reason: str, picture: Picture | None = None) -> Answer:
        msg = failure_to_msg(job, code, reason, picture)
        msg.model = self.config.model
        if picture is not None:
            job.trace.header = msg.header
        return Answer(msg, picture)

    # From any thread.

    def refuse(self, job: Job, code: int, reason: str) -> None:
        """Give a query that is not worked on its result."""
        picture = job.picture or self.ring.newest
        self._conclude(job, self._failure(job, code, reason, picture), [])

    def _on_late(self, job: Job) -> None:
        assert job.stopped is not None
        self.refuse(job, job.stopped.code, job.stopped.reason)

    def _on_hang(self, job: Job, count: int) -> None:
        """Go on without a model that does not stop; give up when it happens again."""
        assert job.stopped is not None
        grace_s = read_config(self).stop_grace_s
        what = (
            f"the model did not stop within {grace_s:g} s (stop_grace_s); its thread is abandoned"
        )
        self.get_logger().error(f"query {job.query.id}: {what}")
        self.health.failed(what)
        if count >= MAX_HANGS:
            self._fault = f"the model of {self.config.model} hung {count} times in a row"
            with self._gate:
                self._is_accepting = False
            self.reporter.tell(Status.ERROR, self._fault)
        self.refuse(job, job.stopped.code, f"{job.stopped.reason}; {what}")
        if count >= MAX_HANGS:
            self.begin_transitions(Transition.TRANSITION_DEACTIVATE)

    def _publish_trace(self, job: Job, trace: ReasoningTrace) -> None:
        self.outputs.publish_trace(trace)
        if job.on_trace is not None:
            job.on_trace(trace)

    @property
    def is_accepting(self) -> bool:
        """Whether queries are taken; already so when ~/status says READY."""
        return self._is_accepting

    @property
    def outstanding(self) -> int:
        """How many queries run, wait, or are goals whose result is not handed over yet."""
        worker = self._worker
        jobs = (worker.running, worker.pending) if worker is not None else ()
        return sum(job is not None for job in jobs) + self._goals.open_goals

    @property
    def newest_picture(self) -> Picture | None:
        """What the next query will be about."""
        return self.ring.newest

    def _facts(self) -> dict[str, Any]:
        """Say what the diagnostics tell beside the counters."""
        worker = self._worker
        return {
            "clock_jumps": self.ring.clock_jumps,
            "image_topic": self._inputs.image_topic,
            "lifecycle": self.state_label,
            "tracking": self._tracks.state,
            "abandoned_threads": worker.abandoned if worker is not None else 0,
        }

    def _on_mismatch(self, topic: str, lines: list[str]) -> None:
        advice = "; ".join(lines) or f"{topic}: a peer with incompatible QoS came and went"
        self.get_logger().warning(advice)
        self.health.mismatched(topic, advice)

    @contextlib.contextmanager
    def _survived(self, where: str) -> Iterator[None]:
        """Log what is raised inside and go on."""
        try:
            yield
        except Exception:
            self.log_defect(where)

    def log_defect(self, where: str) -> None:
        """Log the exception that is being handled."""
        self.get_logger().error(f"{where}: {traceback.format_exc()}")

    def close(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """End everything that runs, giving every query its result.

        Args:
            timeout_s: How long the answer that runs may take to notice it [s].

        Returns:
            Whether the model's threads have ended; a load may still run.
        """
        with self._gate:
            self._is_accepting = False
            worker = self._worker
            waiting = worker.take_pending() if worker else None
        reason = "the node is shutting down"
        if waiting is not None:
            self.refuse(waiting, SegmentationResult.INACTIVE, reason)
        if worker is not None:
            if (running := worker.running) is not None:
                running.stop(SegmentationResult.CANCELLED, reason)
            worker.stop(timeout_s)
            if running is not None:
                self.refuse(running, SegmentationResult.CANCELLED, f"{reason}; the model hangs")
        self._tracks.stop(timeout_s)
        self.outputs.close()
        self._core_log.close()
        return worker is None or not worker.is_alive
