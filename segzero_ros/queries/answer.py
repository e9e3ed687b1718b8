"""Answers one query and collects all data for its messages, without any topic."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from segzero_core.ambiguity import is_ambiguous
from segzero_core.errors import (
    AnswerParseError,
    CancelledError,
    InputError,
    OutOfMemoryError,
    ReasoningError,
    SegZeroError,
    TruncatedReplyError,
)
from segzero_core.events import AnswerDelta, Event, Finished, PromptFound, ThinkingDelta
from segzero_core.types import ModelIdentity, Result, RgbImage
from segzero_ros.camera.image_buffer import CameraFrame
from segzero_ros.msg import ReasoningTrace, SegmentationResult
from segzero_ros.parameters import NodeConfig
from segzero_ros.queries.job import Job, Query
from segzero_ros.queries.trace import TraceWriter
from segzero_ros.spatial.scene import ObjectPoses

if TYPE_CHECKING:
    from segzero_core.tracking.tracker import Tracker


class Pipeline(Protocol):
    """What the node needs of `segzero_core.SegZero`."""

    @property
    def identity(self) -> ModelIdentity:
        """Which weights answer."""

    def stream(
        self,
        image: RgbImage,
        query: str,
        *,
        cancel: threading.Event | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Event]:
        """Yield what happens while the query is answered."""

    def new_tracker(self) -> Tracker:
        """Return a tracker for the objects of an answer."""


def load_pipeline(config: NodeConfig) -> Pipeline:
    """Load the model that the parameters name; takes seconds to minutes."""
    from segzero_core import SegZero

    return SegZero.load(
        config.model,
        fallbacks=config.fallbacks,
        segmenter=config.segmenter or None,
        device=config.device,
        template=config.template or None,
        max_new_tokens=config.max_new_tokens or None,
        backend=config.backend,
        encoder_precision=config.encoder_precision,
        precision=config.precision,
        grammar=config.grammar,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """The answer to a query, or why there is none."""

    query: Query  # the question
    identity: ModelIdentity  # of the model that answered, or would have
    code: int = SegmentationResult.OK  # a constant of SegmentationResult
    reason: str = ""  # of a failure: what was wrong, what was found, what to do
    frame: CameraFrame | None = None  # the image answered about, where there is one
    rgb: RgbImage | None = None  # its pixels, uint8 [H, W, 3]
    result: Result | None = None  # the core's answer, where there is one
    ambiguous: bool = False  # one object was asked for, and near-equal ones were found
    thinking: str = ""  # what the model thought aloud
    completion: str = ""  # the model's whole text
    error: Exception | None = None  # what was raised, where something was
    poses: ObjectPoses | None = None  # the objects in space; None of a failure
    pose_reason: str = ""  # why they, or some of them, could not
    wait_ms: float = 0.0  # from the query's arrival until work on it began


def answer_query(pipeline: Pipeline, job: Job, frame: CameraFrame, config: NodeConfig) -> Answer:
    """Ask the pipeline and write the job's trace meanwhile.

    Never raises: whatever goes wrong becomes an answer with an error code.
    """
    trace = job.trace
    try:
        trace.header = frame.header
        rgb = frame.rgb(config.max_image_px)
        trace.add(ReasoningTrace.THINKING)
        left_s = job.seconds_left() if job.timeout_s else None
        events = pipeline.stream(rgb, job.query.text, cancel=job.cancel, timeout_s=left_s)
        result = _follow(events, trace)
        return Answer(
            query=job.query,
            identity=result.model,
            frame=frame,
            rgb=rgb,
            result=result,
            ambiguous=is_ambiguous(result, config.ambiguity_margin),
            poses=ObjectPoses.unmeasured(frame.header, len(result.segmentation)),
            thinking=result.reasoning.thinking,
            completion=result.reasoning.completion,
            wait_ms=job.wait_ms,
        )
    except Exception as error:  # a defect of any model must not end the node
        code, reason = failure_code(error), str(error) or type(error).__name__
        if job.stopped is not None and isinstance(error, CancelledError):
            code, reason = job.stopped.code, job.stopped.reason
        elif not isinstance(error, SegZeroError):
            reason = f"{type(error).__name__}: {reason}; the node's log has the traceback"
        return Answer(
            query=job.query,
            identity=pipeline.identity,
            code=code,
            reason=reason,
            frame=frame,
            thinking=trace.thinking,
            completion=error.completion if isinstance(error, ReasoningError) else "",
            error=error,
            wait_ms=job.wait_ms,
        )


def failure_code(error: BaseException) -> int:
    """Return the code of SegmentationResult that an exception means to a client."""
    if isinstance(error, OutOfMemoryError | MemoryError):
        return int(SegmentationResult.OUT_OF_MEMORY)
    if isinstance(error, CancelledError):
        return int(SegmentationResult.CANCELLED)
    if isinstance(error, TruncatedReplyError | AnswerParseError):
        return int(SegmentationResult.UNUSABLE_ANSWER)
    if isinstance(error, InputError):
        return int(SegmentationResult.INVALID_IMAGE)
    return int(SegmentationResult.MODEL_FAILURE)


def _follow(events: Iterator[Event], trace: TraceWriter) -> Result:
    """Write each event to the trace and return the result."""
    for event in events:
        if isinstance(event, ThinkingDelta):
            trace.add(ReasoningTrace.THINKING, event.text)
        elif isinstance(event, AnswerDelta):
            trace.add(ReasoningTrace.ANSWERING, event.text)
        elif isinstance(event, PromptFound):
            trace.add(ReasoningTrace.SEGMENTING)
        elif isinstance(event, Finished):
            return event.result
    raise RuntimeError("the pipeline ended without a result")
