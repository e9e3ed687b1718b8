"""Takes queries, has the model answer one at a time, and gives each exactly one result."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rclpy.impl.rcutils_logger import RcutilsLogger

from segzero_core.errors import InputError, OutOfMemoryError, SegZeroError
from segzero_core.prompt import clean_query
from segzero_core.reasoner.circuit_breaker import ReasonerHealth
from segzero_core.reasoner.server_reply import ServerError
from segzero_core.types import ModelIdentity, Segmentation
from segzero_ros.camera.image_buffer import CameraFrame, ImageBuffer, why_unusable
from segzero_ros.diagnostics.guard import Guard
from segzero_ros.diagnostics.health import Health
from segzero_ros.diagnostics.memory import release_memory
from segzero_ros.diagnostics.status import StatusReporter
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
from segzero_ros.parameters import NodeConfig
from segzero_ros.publishers import Publishers
from segzero_ros.queries.answer import Answer, Pipeline, answer_query
from segzero_ros.queries.job import Job, Query
from segzero_ros.queries.trace import TraceWriter
from segzero_ros.queries.worker import RESULT_GRACE_S, Worker
from segzero_ros.spatial.scene import ObjectPoses
from segzero_ros.tracking import TrackingWorker

WARNING_PERIOD_S: Final = 5.0
"""A warning that may come with every answer is logged at most this often."""
MARGIN_S: Final = 4.0
"""What the deactivation allows for giving a cancelled query its result, beside RESULT_GRACE_S."""


@dataclass(eq=False)
class QueryManager:
    """Owns the queries, the model and its thread. All methods are thread-safe."""

    config: Callable[[], NodeConfig]  # returns the present settings
    images: ImageBuffer  # the camera's images; taken as long as queries are
    # Measures the objects of an answer by depth.
    estimate_poses: Callable[[CameraFrame, Segmentation], ObjectPoses]
    tracking: TrackingWorker
    publishers: Publishers
    status: StatusReporter
    health: Health
    log: RcutilsLogger
    guard: Guard
    lifecycle_state: Callable[[], str]  # returns the node's state in words
    # Called with the reason, in the watching thread, when the model does not stop.
    on_hang: Callable[[str], None]

    def __post_init__(self) -> None:
        self._gate = threading.Lock()
        self.is_accepting = False  # whether queries are taken
        self._pipeline: Pipeline | None = None
        self._worker: Worker | None = None
        self.hang = ""  # why the model cannot be used any more; empty while it can
        self._ids = itertools.count(1)

    # The model's life, by the node's transitions.

    def start(self, pipeline: Pipeline) -> None:
        """Take a loaded model, with a thread and locks of its own."""
        self._pipeline, self.hang = pipeline, ""
        self._worker = Worker(
            self._work,
            self._on_late,
            self._give_up,
            lambda: self.config().stop_grace_s,
            self.guard,
        )

    def accept(self) -> None:
        """Take images and queries from now on."""
        self.images.open()
        with self._gate:
            self.is_accepting = True

    def stop_accepting(self, patience_s: float, reason: str) -> None:
        """Take no further query; let the running one finish for a while, then cancel it.

        Returns when every query has its result; the model may still be slow to stop.
        """
        with self._gate:
            self.is_accepting = False
            worker = self._worker
            waiting = worker.take_pending() if worker else None
        self.images.close()
        self.tracking.reset()
        if waiting is not None:
            self.refuse(waiting, SegmentationResult.INACTIVE, f"{reason} before its turn came")
        if worker is None or worker.wait_answered(patience_s):
            return
        if (running := worker.running) is not None:
            running.stop(SegmentationResult.CANCELLED, f"{reason} while it ran")
        worker.wait_answered(RESULT_GRACE_S + MARGIN_S)

    def end(self, timeout_s: float | None = None) -> bool:
        """Release the model, return whether its threads end; call `stop_accepting` before.

        Waits `timeout_s` [s] for them, by default `stop_grace_s`. One that hangs is left behind,
        with its model.
        """
        worker = self._worker
        if timeout_s is None:
            timeout_s = 0.0 if self.hang else self.config().stop_grace_s
        self._worker, self._pipeline, self.hang = None, None, ""
        return worker is None or worker.stop(timeout_s)

    @property
    def is_idle(self) -> bool:
        """Whether no query runs or waits."""
        worker = self._worker
        return worker is None or (worker.running is None and worker.pending is None)

    @property
    def pipeline(self) -> Pipeline:
        """The loaded model; an InputError where there is none."""
        if self._pipeline is None:
            raise InputError("no model is loaded")
        return self._pipeline

    @property
    def reasoners(self) -> tuple[ReasonerHealth, ...]:
        """How the model and its fallbacks have been doing."""
        return getattr(self._pipeline, "health", ())

    # Queries; topic and action go the same way.

    def ask(self, text: str) -> None:
        """Take a query of the topic."""
        job = self.new_job(text)
        refusal = self.why_refused(text)
        if refusal is not None:
            self.refuse(job, *refusal)
        else:
            self.submit(job)

    def new_job(self, text: str, *, timeout_s: float = 0.0, **options: Any) -> Job:
        """Give a query an id, a trace and a limit of time; see `Job`."""
        query = Query(str(next(self._ids)), text)
        job = Job(query, timeout_s=timeout_s or self.config().timeout_s, **options)

        def publish(trace: ReasoningTrace) -> None:
            self.publishers.publish("reasoning", trace)
            job.on_trace(trace)

        job.trace = TraceWriter(query.id, publish)
        return job

    def why_refused(self, text: str) -> tuple[int, str] | None:
        """Return why a query would be refused now, as an error code and a reason."""
        try:
            clean_query(text)
        except InputError as error:
            return SegmentationResult.INVALID_QUERY, str(error)
        worker = self._worker
        if self.hang:
            return SegmentationResult.MODEL_FAILURE, self.hang
        if not self.is_accepting or worker is None:
            return SegmentationResult.INACTIVE, (
                f"the node is {self.lifecycle_state()} ({self.status.status.detail}); ask again "
                "when ~/status says READY"
            )
        when_busy = self.config().when_busy
        if worker.would_refuse(when_busy):
            return SegmentationResult.BUSY, (
                f"another query runs and when_busy is {when_busy}; ask again when it is answered"
            )
        return None

    def submit(self, job: Job) -> None:
        """Queue a query, or give it its result if that cannot be done."""
        job.trace.add(ReasoningTrace.WAITING)
        with self._gate:
            worker = self._worker if self.is_accepting else None
            refused = worker.submit(job, self.config().when_busy) if worker else None
        if worker is None:
            refusal = self.why_refused(job.query.text)
            self.refuse(job, *(refusal or (SegmentationResult.INACTIVE, "the node was stopped")))
        elif refused is not None and refused.is_replaced:
            reason = f"replaced by the newer query {job.query.id}; ask again when it is answered"
            self.refuse(refused.job, SegmentationResult.CANCELLED, reason)
        elif refused is not None:
            self.refuse(job, SegmentationResult.BUSY, "another query came first")

    def cancel(self, job: Job, reason: str) -> None:
        """Stop a query, wherever it is."""
        job.stop(SegmentationResult.CANCELLED, reason)
        worker = self._worker
        if worker is not None and worker.take_pending(job) is not None:
            self.refuse(job, SegmentationResult.CANCELLED, reason)

    def cancel_all(self) -> str:
        """Stop the running and the waiting query; return a text about what was done."""
        worker = self._worker
        jobs = [job for job in (worker.pending, worker.running) if job] if worker else []
        for job in jobs:
            self.cancel(job, "cancelled by ~/cancel")
        ids = " and ".join(job.query.id for job in reversed(jobs))
        return f"cancelled query {ids}" if jobs else "no query runs or waits"

    def refuse(self, job: Job, code: int, reason: str) -> None:
        """Give a query its result if it is not, or no longer, worked on."""
        frame = job.frame or self.images.latest
        composed = self._composed(job, lambda: self._failure(job, code, reason, frame))
        self._conclude(job, *composed)

    # In the model's thread.

    def _work(self, job: Job) -> None:
        """Answer one query."""
        answer, messages = self._composed(job, lambda: self._with_poses(job, self._answer(job)))
        if isinstance(answer.error, OutOfMemoryError | MemoryError):
            release_memory()
        is_first = self._conclude(job, answer, messages)
        if self.is_accepting:
            failed = answer.code != SegmentationResult.OK or not is_first
            detail = "ready; the last query failed" if failed else "ready"
            if answer.pose_reason:
                detail += f"; no pose: {answer.pose_reason}"
            self.status.compare_and_set((Status.BUSY, job.query.id), Status.READY, detail)

    def _answer(self, job: Job) -> Answer:
        job.began_s = time.monotonic()
        frame, pipeline, config = job.frame or self.images.latest, self._pipeline, self.config()
        if job.stopped is not None or job.check_deadline():
            assert job.stopped is not None
            return self._failure(job, job.stopped.code, job.stopped.reason, frame)
        unusable = why_unusable(frame, 0.0 if job.frame is not None else config.max_image_age_s)
        if unusable is not None:
            return self._failure(job, *unusable, frame)
        if frame is None or pipeline is None:
            return self._failure(job, SegmentationResult.INACTIVE, "the model is gone", frame)
        self.status.compare_and_set((Status.READY, ""), Status.BUSY, "answering", job.query.id)
        return answer_query(pipeline, job, frame, config)

    def _with_poses(self, job: Job, answer: Answer) -> Answer:
        """Add poses, where a depth camera is there; whatever goes wrong, the masks stay."""
        frame, result = answer.frame, answer.result
        if frame is None or result is None:
            return answer
        expected = job.frame is None and self.images.has_depth
        if frame.serialized_depth is None and not expected:
            return answer
        measured = None
        try:
            measured = self.estimate_poses(frame, result.segmentation)
            reason = "; ".join(measured.reasons)
        except SegZeroError as error:
            reason = str(error)
        except Exception as error:  # a defect here must not cost the answer
            self.guard.report(f"while measuring the objects of query {job.query.id}", error)
            reason = f"{type(error).__name__}: {error}; see the node's log"
        if reason:
            self.log.warning(
                f"query {job.query.id}: no pose: {reason}", throttle_duration_sec=WARNING_PERIOD_S
            )
        self.health.measured(measured, reason)
        return dataclasses.replace(answer, poses=measured or answer.poses, pose_reason=reason)

    # In the watching thread.

    def _on_late(self, job: Job) -> None:
        assert job.stopped is not None
        busy, detail = (Status.BUSY, job.query.id), "waiting for the model to stop"
        self.status.compare_and_set(busy, Status.BUSY, detail, job.query.id)
        self.refuse(job, job.stopped.code, job.stopped.reason)

    def _give_up(self, job: Job) -> None:
        """Abandon a model that does not stop: its thread may hold any of its locks."""
        assert job.stopped is not None
        hang = (
            f"the model did not stop within {self.config().stop_grace_s:g} s (stop_grace_s) after"
            f" query {job.query.id}; clean up and configure the node to load it anew"
        )
        with self._gate:
            self.hang, self.is_accepting = hang, False
            waiting = self._worker.take_pending() if self._worker else None
        self.status.report(Status.ERROR, hang)
        self.health.failed(hang)
        self.refuse(job, job.stopped.code, f"{job.stopped.reason}; {hang}")
        if waiting is not None:
            self.refuse(waiting, SegmentationResult.MODEL_FAILURE, hang)
        self.on_hang(hang)

    def _composed(self, job: Job, make: Callable[[], Answer]) -> tuple[Answer, dict[str, Any]]:
        """Return an answer and its messages; whatever goes wrong becomes an INTERNAL_ERROR."""
        try:
            answer = make()
            return answer, self.publishers.compose(answer)
        except Exception as error:
            self.guard.report(f"while answering query {job.query.id}", error)
            reason = f"{type(error).__name__}: {error}; the node's log has the traceback"
            answer = self._failure(job, SegmentationResult.INTERNAL_ERROR, reason)
            return answer, self.publishers.compose(answer)

    def _failure(
        self, job: Job, code: int, reason: str, frame: CameraFrame | None = None
    ) -> Answer:
        if frame is not None:
            job.trace.header = frame.header
        return Answer(
            query=job.query,
            identity=ModelIdentity(self.config().model, "", ""),
            code=code,
            reason=reason,
            frame=frame,
            thinking=job.trace.thinking,
            wait_ms=job.wait_ms,
        )

    def _conclude(self, job: Job, answer: Answer, messages: dict[str, Any]) -> bool:
        """Give a query its one result; False if it had one already, which stays."""
        if not job.conclude():
            return False
        msg, failed = messages["result"], answer.code != SegmentationResult.OK
        if answer.result is not None:
            self.status.identity = answer.result.model
        is_defect = answer.error is not None and not isinstance(answer.error, ServerError)
        if answer.code == SegmentationResult.MODEL_FAILURE and is_defect:
            trace = "".join(traceback.format_exception(answer.error))
            self.log.error(f"query {job.query.id}: {trace}")
        elif failed:
            self.log.warning(
                f"query {job.query.id} failed (error code {answer.code}): {msg.error_msg}"
            )
        self.health.result_published(msg)
        stage = ReasoningTrace.FAILED if failed else ReasoningTrace.DONE
        # Each on its own: the failure of a topic must not cost a goal its result.
        for what, step in (
            ("publishing the answer", lambda: self.publishers.publish_answer(answer, messages)),
            # Before the goal's result: a client drops feedback after it.
            ("closing the trace", lambda: job.trace.close(stage)),
            ("giving a goal its result", lambda: job.on_result(msg)),
            ("beginning to track", functools.partial(self._track, job, answer)),
        ):
            with self.guard(f"while {what}"):
                step()
        job.finish()
        return True

    def _track(self, job: Job, answer: Answer) -> None:
        """Track the objects of an answer about the camera, in place of those before."""
        result = answer.result
        if result is None:
            return  # a failure says nothing about the objects that are tracked
        with self._gate:
            self.tracking.reset()
            if self.is_accepting and job.frame is None and len(result.segmentation):
                self.tracking.begin(dataclasses.replace(answer, poses=None))  # clouds are large
