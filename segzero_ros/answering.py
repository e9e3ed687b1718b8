"""One query, from a picture to the messages of the answer. Knows no topics and no threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from segzero_core.errors import ReasoningError, SegZeroError
from segzero_core.events import AnswerDelta, Finished, PromptFound, ThinkingDelta
from segzero_ros.conversions import rgb_from_compressed_msg, rgb_from_msg
from segzero_ros.msg import ReasoningTrace, SegmentationResult
from segzero_ros.results import (
    Query,
    add_identity,
    add_reply,
    failure_code,
    failure_to_msg,
    result_to_msg,
)

if TYPE_CHECKING:
    import threading

    from segzero_core.events import Event
    from segzero_core.types import ModelIdentity, Result, RgbImage
    from segzero_ros.traces import TraceWriter


class Pipeline(Protocol):
    """What the node needs of `segzero_core.SegZero`."""

    identity: ModelIdentity

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[Event]:
        """Yield what happens while the query is answered."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A message of the camera.

    Attributes:
        msg: As it came; converted only when a query needs it.
        arrived_s: When, on the monotonic clock [s]. Not the stamp: a bag's is years old, and
            two machines' clocks differ.
    """

    msg: Image | CompressedImage
    arrived_s: float = field(default_factory=time.monotonic)

    def rgb(self) -> RgbImage:
        """Convert to uint8 [H, W, 3].

        Raises:
            InputError: It cannot be read.
        """
        if isinstance(self.msg, CompressedImage):
            return rgb_from_compressed_msg(self.msg)
        return rgb_from_msg(self.msg)


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a query.

    Attributes:
        msg: For ~/result.
        picture: The picture answered about, uint8 [H, W, 3], where there is an answer.
        result: The answer itself, where there is one.
        error: What went wrong, where something did.
    """

    msg: SegmentationResult
    picture: RgbImage | None = None
    result: Result | None = None
    error: Exception | None = None


def header_of(picture: Picture | None) -> Header:
    """Return the picture's header, or an empty one."""
    return picture.msg.header if picture is not None else Header()


def picture_trouble(picture: Picture | None, max_age_s: float) -> tuple[int, str] | None:
    """Say why a picture cannot be asked about, as an error code and a reason."""
    if picture is None:
        return SegmentationResult.NO_IMAGE, (
            "no picture has arrived yet; is the camera running, and is `image` remapped to its "
            "topic?"
        )
    age_s = time.monotonic() - picture.arrived_s
    if max_age_s and age_s > max_age_s:
        return SegmentationResult.STALE_IMAGE, (
            f"the newest picture arrived {age_s:.1f} s ago, at most {max_age_s:g} s are allowed "
            "(max_image_age_s); does the camera still run?"
        )
    return None


def answer_query(
    pipeline: Pipeline,
    query: Query,
    picture: Picture,
    trace: TraceWriter,
    cancel: threading.Event,
    answered_by: str,
) -> Answer:
    """Ask the pipeline and tell the trace what happens meanwhile.

    Never raises: whatever goes wrong becomes a result with an error code.
    """
    trace.header = picture.msg.header
    try:
        rgb = picture.rgb()
        trace.add(ReasoningTrace.THINKING)
        result = _follow(pipeline.stream(rgb, query.text, cancel=cancel), trace)
        msg = result_to_msg(query, result, picture.msg.header)
        answer = Answer(msg, rgb, result)
    except Exception as error:  # the border: a defect of any model must not end the node
        reason = str(error) or type(error).__name__
        if not isinstance(error, SegZeroError):
            reason = f"{type(error).__name__}: {reason}; the node's log has the traceback"
        msg = failure_to_msg(query, failure_code(error), reason, picture.msg.header)
        completion = error.completion if isinstance(error, ReasoningError) else ""
        add_reply(msg, trace.thinking, completion)
        answer = Answer(msg, error=error)
    add_identity(msg, pipeline.identity, answered_by)
    return answer


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
