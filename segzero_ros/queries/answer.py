"""One query, from a picture to the messages of the answer. Knows no topics and no threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from segzero_core.ambiguity import is_ambiguous
from segzero_core.errors import CancelledError, ReasoningError, SegZeroError
from segzero_core.events import AnswerDelta, Finished, PromptFound, ThinkingDelta
from segzero_ros.msg import ReasoningTrace, SegmentationResult
from segzero_ros.messages.result import (
    add_identity,
    add_reply,
    failure_code,
    failure_to_msg,
    result_to_msg,
)

if TYPE_CHECKING:
    import threading

    from segzero_core.events import Event
    from segzero_core.tracking.tracker import Tracker
    from segzero_core.types import ModelIdentity, Result, RgbImage
    from segzero_ros.camera.image_buffer import Picture
    from segzero_ros.messages.poses import Scene3D
    from segzero_ros.queries.job import Job
    from segzero_ros.queries.trace import TraceWriter


class Pipeline(Protocol):
    """What the node needs of `segzero_core.SegZero`."""

    identity: ModelIdentity

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[Event]:
        """Yield what happens while the query is answered."""

    def new_tracker(self) -> Tracker:
        """Return what follows the objects of an answer."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a query.

    Attributes:
        msg: For ~/result.
        picture: The picture answered about, where there is an answer.
        rgb: Its pixels, uint8 [H, W, 3].
        result: The answer itself, where there is one.
        error: What went wrong, where something did.
        scene: The objects in space, where they could be measured.
        scene_trouble: Why they, or some of them, could not.
    """

    msg: SegmentationResult
    picture: Picture | None = None
    rgb: RgbImage | None = None
    result: Result | None = None
    error: Exception | None = None
    scene: Scene3D | None = None
    scene_trouble: str = ""


def answer_query(
    pipeline: Pipeline,
    job: Job,
    picture: Picture,
    trace: TraceWriter,
    margin: float,
) -> Answer:
    """Ask the pipeline and tell the trace what happens meanwhile.

    Never raises: whatever goes wrong becomes a result with an error code.

    Args:
        pipeline: The model.
        job: The query, and whether it is to stop.
        picture: What it is about.
        trace: Told every piece of text.
        margin: Of scores that are near-equal; see `is_ambiguous`.
    """
    identity = pipeline.identity
    try:
        trace.header = picture.header
        rgb = picture.rgb()
        trace.add(ReasoningTrace.THINKING)
        result = _follow(pipeline.stream(rgb, job.query.text, cancel=job.cancel), trace)
        ambiguous = is_ambiguous(result, margin)
        msg = result_to_msg(job, result, picture.header, ambiguous=ambiguous)
        answer = Answer(msg, picture, rgb, result)
        identity = result.model
    except Exception as error:  # the border: a defect of any model must not end the node
        answer = _failure(job, picture, trace, error)
    add_identity(answer.msg, identity)
    return answer


def _failure(job: Job, picture: Picture, trace: TraceWriter, error: Exception) -> Answer:
    code, reason = failure_code(error), str(error) or type(error).__name__
    if job.stopped is not None and isinstance(error, CancelledError):
        code, reason = job.stopped.code, job.stopped.reason
    elif not isinstance(error, SegZeroError):
        reason = f"{type(error).__name__}: {reason}; the node's log has the traceback"
    msg = failure_to_msg(job, code, reason, picture)
    add_reply(msg, trace.thinking, error.completion if isinstance(error, ReasoningError) else "")
    return Answer(msg, picture, error=error)


def _follow(events: Iterator[Event], trace: TraceWriter) -> Result:
    """Tell the trace each event and return the result."""
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
