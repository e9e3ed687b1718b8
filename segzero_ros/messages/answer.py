"""Builds every message about an answer, in one place and once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segzero_core.images.palette import choose_colors
from segzero_ros.conversions.images import mask_to_msg, msg_from_array
from segzero_ros.messages.detections import (
    Detection2DArray,
    detections_3d_to_msg,
    detections_to_msg,
)
from segzero_ros.messages.markers import markers_to_msg
from segzero_ros.messages.poses import cloud_to_msg, poses_to_msg
from segzero_ros.messages.result import result_to_msg
from segzero_ros.queries.answer import Answer


def answer_to_msgs(answer: Answer, is_subscribed: Callable[[str], bool]) -> dict[str, Any]:
    """Build the messages about an answer by topic, the result last; a failure has nothing else.

    What is costly is built only if its topic has a subscriber.
    """
    last = {"result": result_to_msg(answer)}
    result, frame, poses, others = answer.result, answer.frame, answer.poses, {}
    if result is None or frame is None or poses is None:
        return last
    header = frame.header
    others["mask"] = mask_to_msg(result.segmentation.union(), header)
    others["instances"] = msg_from_array(result.segmentation.instance_ids(), "mono16", header)
    if Detection2DArray is not None:
        others["detections"] = detections_to_msg(result, header)
        others["detections_3d"] = detections_3d_to_msg(result, poses)
    if is_subscribed("markers"):
        assert answer.rgb is not None
        colors = choose_colors(answer.rgb, result.segmentation.masks)
        others["markers"] = markers_to_msg(result, header, frame.camera_info, poses, colors)
    others["object_poses"] = poses_to_msg(poses)
    if is_subscribed("object_cloud"):
        assert answer.rgb is not None
        others["object_cloud"] = cloud_to_msg(poses, answer.rgb)
    return others | last
