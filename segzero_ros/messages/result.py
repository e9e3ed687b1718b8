"""Answers of the core as messages, and failures as codes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from geometry_msgs.msg import Point as PointMsg
from sensor_msgs.msg import CompressedImage

from segzero_core.errors import (
    AnswerParseError,
    CancelledError,
    InputError,
    OutOfMemoryError,
    TruncatedReplyError,
)
from segzero_ros.conversions.images import mask_to_msg, msg_from_array
from segzero_ros.msg import ObjectInstance, SegmentationResult

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from segzero_core.types import ModelIdentity, ObjectPrompt, Result
    from segzero_ros.camera.image_buffer import Picture
    from segzero_ros.queries.job import Job

MAX_ECHOED_CHARS: Final = 200
"""A refused query is quoted in its result, but not all 100,000 characters of it."""


def failure_code(error: BaseException) -> int:
    """Name the failure that an exception means to a client."""
    if isinstance(error, OutOfMemoryError | MemoryError):
        return int(SegmentationResult.OUT_OF_MEMORY)
    if isinstance(error, CancelledError):
        return int(SegmentationResult.CANCELLED)
    if isinstance(error, TruncatedReplyError | AnswerParseError):
        return int(SegmentationResult.UNUSABLE_ANSWER)
    if isinstance(error, InputError):
        return int(SegmentationResult.INVALID_IMAGE)
    return int(SegmentationResult.MODEL_FAILURE)


def failure_to_msg(
    job: Job, code: int, reason: str, picture: Picture | None
) -> SegmentationResult:
    """Build the result of a query that cannot be answered.

    Args:
        job: The query.
        code: A constant of SegmentationResult.
        reason: What was wrong, what was found, what to do.
        picture: That the answer would have been about, where there is one.
    """
    text = job.query.text
    if len(text) > MAX_ECHOED_CHARS:
        text = text[:MAX_ECHOED_CHARS] + "…"
    msg = SegmentationResult(
        query_id=job.query.id,
        query=valid_text(text),
        error_code=code,
        error_msg=valid_text(reason),
        wait_ms=job.wait_ms,
        total_ms=job.query.age_ms(),
    )
    if picture is not None:
        msg.header = picture.header
        if not isinstance(picture.msg, CompressedImage):  # whose size only decoding tells
            msg.image_width, msg.image_height = picture.msg.width, picture.msg.height
    return msg


def add_reply(msg: SegmentationResult, thinking: str, completion: str) -> None:
    """Keep what the model said in the result of a query that failed nevertheless."""
    msg.thinking = valid_text(thinking)
    msg.completion = valid_text(completion)


def add_identity(msg: SegmentationResult, identity: ModelIdentity) -> None:
    """Say which weights answered."""
    msg.model = identity.name
    msg.model_hash = identity.weights_hash
    msg.encoder_backend = identity.encoder_backend


def result_to_msg(
    job: Job, result: Result, header: Header, *, ambiguous: bool
) -> SegmentationResult:
    """Build the result of an answered query; its total time ends now."""
    query, timings = job.query, result.timings
    width, height = result.size_wh
    return SegmentationResult(
        header=header,
        query_id=query.id,
        query=query.text,
        error_code=SegmentationResult.OK,
        thinking=valid_text(result.reasoning.thinking),
        completion=valid_text(result.reasoning.completion),
        ambiguous=ambiguous,
        instances=_instances(query.text, result, header),
        image_width=width,
        image_height=height,
        wait_ms=job.wait_ms,
        first_token_ms=timings.first_token_ms,
        reasoner_ms=timings.reasoner_ms,
        encoder_ms=timings.encoder_ms,
        decoder_ms=timings.decoder_ms,
        total_ms=query.age_ms(),
        tokens=timings.tokens,
    )


def _instances(label: str, result: Result, header: Header) -> list[ObjectInstance]:
    objects = zip(
        result.reasoning.prompts,
        result.segmentation.masks,
        result.segmentation.scores,
        strict=True,
    )
    return [
        _instance(index, label, prompt, mask, float(score), header)
        for index, (prompt, mask, score) in enumerate(objects, start=1)
    ]


def _instance(
    index: int,
    label: str,
    prompt: ObjectPrompt,
    mask: NDArray[np.bool_],
    score: float,
    header: Header,
) -> ObjectInstance:
    box = prompt.box
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = (rows[0], rows[-1] + 1) if rows.size else (0, 0)
    left, right = (columns[0], columns[-1] + 1) if columns.size else (0, 0)
    return ObjectInstance(
        id=index,
        label=label,
        box_xyxy=np.array(
            [
                math.floor(box.x_min),
                math.floor(box.y_min),
                math.ceil(box.x_max),
                math.ceil(box.y_max),
            ],
            np.int32,
        ),
        points=[PointMsg(x=point.x, y=point.y) for point in prompt.points],
        mask=mask_to_msg(mask[top:bottom, left:right], header),
        mask_x_offset=int(left),
        mask_y_offset=int(top),
        score=score,
        area_px=int(mask.sum()),
    )


def instances_to_msg(result: Result, header: Header) -> Image:
    """Build the mono16 label image: 0 is background, k is instance k."""
    return msg_from_array(result.segmentation.instance_ids(), "mono16", header)


def valid_text(text: str) -> str:
    """Drop what no ROS string can carry: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")
