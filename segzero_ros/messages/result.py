"""An answer, or a failure, as segzero_ros/SegmentationResult."""

from __future__ import annotations

from typing import Final

from sensor_msgs.msg import CompressedImage

from segzero_ros.conversions.text import valid_text
from segzero_ros.messages.instances import instances_to_msg
from segzero_ros.msg import SegmentationResult
from segzero_ros.queries.answer import Answer

MAX_ECHOED_CHARS: Final = 200
"""A refused query is quoted in its result, but not all 100,000 characters of it."""


def result_to_msg(answer: Answer) -> SegmentationResult:
    """Build the result of a query; its total time ends now."""
    query, frame, result, identity = answer.query, answer.frame, answer.result, answer.identity
    msg = SegmentationResult(
        query_id=query.id,
        error_code=answer.code,
        error_msg=valid_text(answer.reason),
        thinking=valid_text(answer.thinking),
        completion=valid_text(answer.completion),
        model=identity.name,
        model_hash=identity.weights_hash,
        encoder_backend=identity.encoder_backend,
        wait_ms=answer.wait_ms,
    )
    if frame is not None:
        msg.header = msg.pose_header = frame.header
    if result is None:
        text = query.text
        if len(text) > MAX_ECHOED_CHARS:
            text = text[:MAX_ECHOED_CHARS] + "…"
        msg.query = valid_text(text)
        # The size of a compressed image is known only once it is decoded.
        if frame is not None and not isinstance(frame.msg, CompressedImage):
            msg.image_width, msg.image_height = frame.msg.width, frame.msg.height
    elif answer.poses is not None:
        timings = result.timings
        msg.pose_header = answer.poses.header
        msg.query = query.text
        msg.answered_by = valid_text(result.answered_by)
        msg.ambiguous = answer.ambiguous
        msg.instances = instances_to_msg(result, msg.header, answer.poses)
        msg.image_width, msg.image_height = result.size_wh
        msg.first_token_ms = timings.first_token_ms
        msg.reasoner_ms = timings.reasoner_ms
        msg.encoder_ms = timings.encoder_ms
        msg.decoder_ms = timings.decoder_ms
        msg.tokens = timings.tokens
    msg.total_ms = query.age_ms()
    return msg
