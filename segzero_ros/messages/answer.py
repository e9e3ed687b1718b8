"""Builds every message about an answer, in one place and once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segzero_ros.conversions.images import mask_to_msg, msg_from_array
from segzero_ros.messages.detections import (
    Detection2DArray,
    detections_3d_to_msg,
    detections_to_msg,
)
from segzero_ros.messages.markers import markers_to_msg
from segzero_ros.messages.poses import cloud_to_msg, poses_to_msg
from segzero_ros.messages.result import result_to_msg
from segzero_ros.queries.answer import AnswerMessages

if TYPE_CHECKING:
    from collections.abc import Callable

    from segzero_ros.queries.answer import Answer


def answer_to_msgs(answer: Answer, is_subscribed: Callable[[str], bool]) -> AnswerMessages:
    """Build the messages about an answer; a failure has a result only.

    Args:
        answer: What came of the query.
        is_subscribed: Says whether somebody subscribes to a topic; what is costly is built only
            then.
    """
    messages = AnswerMessages(result_to_msg(answer))
    result, frame, others = answer.result, answer.frame, messages.others
    if result is None or frame is None:
        return messages
    header = frame.header
    others["mask"] = mask_to_msg(result.segmentation.union(), header)
    others["instances"] = msg_from_array(result.segmentation.instance_ids(), "mono16", header)
    if Detection2DArray is not None:
        others["detections"] = detections_to_msg(result, header)
        others["detections_3d"] = detections_3d_to_msg(result, header, answer.poses)
    if is_subscribed("markers"):
        others["markers"] = markers_to_msg(result, header, frame.camera_info, answer.poses)
    others["object_poses"] = poses_to_msg(answer.poses, header)
    if is_subscribed("object_cloud"):
        others["object_cloud"] = cloud_to_msg(answer.poses, answer.rgb, header)
    return messages
