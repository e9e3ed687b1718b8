"""An answer as vision_msgs/Detection2DArray and Detection3DArray, where they are installed."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Vector3
from std_msgs.msg import Header

from segzero_core.geometry import box_from_mask
from segzero_core.types import Result
from segzero_ros.messages.poses import box_pose
from segzero_ros.spatial.scene import ObjectPoses

try:
    from vision_msgs.msg import (
        BoundingBox2D,
        BoundingBox3D,
        Detection2D,
        Detection2DArray,
        Detection3D,
        Detection3DArray,
        ObjectHypothesisWithPose,
    )
except ImportError:
    Detection2DArray = Detection3DArray = None


def detections_to_msg(result: Result, header: Header) -> Any:
    """Build the 2-D detections; their ids are the values in ~/instances.

    The box is that of the mask, in pixels. The score is the mask IoU that the segmenter predicts
    for itself; a reasoner gives none.
    """
    detections = []
    objects = zip(result.segmentation.masks, result.segmentation.scores, strict=True)
    for index, (mask, score) in enumerate(objects, start=1):
        if (around := box_from_mask(mask)) is None:
            continue
        box = BoundingBox2D()
        box.center.position.x = (around.x_min + around.x_max) / 2
        box.center.position.y = (around.y_min + around.y_max) / 2
        box.size_x, box.size_y = around.x_max - around.x_min, around.y_max - around.y_min
        results = [_hypothesis(result.query, float(score))]
        detections.append(Detection2D(header=header, id=str(index), bbox=box, results=results))
    return Detection2DArray(header=header, detections=detections)


def detections_3d_to_msg(result: Result, poses: ObjectPoses) -> Any:
    """Build the 3-D detections of the objects that have a pose; ids are as in ~/instances."""
    detections = []
    objects = zip(poses.objects, result.segmentation.scores, strict=True)
    for index, (measured, score) in enumerate(objects, start=1):
        if measured is None:
            continue
        x, y, z = map(float, measured.box.size_m)
        pose = box_pose(measured, poses.transform)
        box = BoundingBox3D(center=pose, size=Vector3(x=x, y=y, z=z))
        hypothesis = _hypothesis(result.query, float(score))
        hypothesis.pose.pose = pose
        detections.append(
            Detection3D(header=poses.header, id=str(index), bbox=box, results=[hypothesis])
        )
    return Detection3DArray(header=poses.header, detections=detections)


def _hypothesis(label: str, score: float) -> Any:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = label
    hypothesis.hypothesis.score = score
    return hypothesis
