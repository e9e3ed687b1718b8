"""The objects of an answer as segzero_ros/ObjectInstance."""

from __future__ import annotations

import math

import numpy as np
from geometry_msgs.msg import Point as PointMsg
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from segzero_core.geometry import box_from_mask
from segzero_core.types import Result
from segzero_ros.conversions.images import mask_to_msg
from segzero_ros.messages.poses import pose_fields
from segzero_ros.msg import ObjectInstance
from segzero_ros.spatial.scene import ObjectPoses


def instances_to_msg(result: Result, header: Header, poses: ObjectPoses) -> list[ObjectInstance]:
    """Build one message for each object, numbered from 1; `header` is the image's."""
    objects = zip(
        result.reasoning.prompts,
        result.segmentation.masks,
        result.segmentation.scores,
        poses.objects,
        strict=True,
    )
    messages = []
    for index, (prompt, mask, score, measured) in enumerate(objects, start=1):
        box = prompt.box
        corners = [*map(math.floor, box.xyxy[:2]), *map(math.ceil, box.xyxy[2:])]
        spatial = {} if measured is None else pose_fields(measured, poses.transform)
        messages.append(
            ObjectInstance(
                id=index,
                label=result.query,
                box_xyxy=np.array(corners, np.int32),
                points=[PointMsg(x=point.x, y=point.y) for point in prompt.points],
                score=float(score),
                area_px=int(mask.sum()),
                **cropped_mask(mask, header),
                **spatial,
            )
        )
    return messages


def cropped_mask(mask: NDArray[np.bool_], header: Header) -> dict[str, Image | int]:
    """Return the fields of a message that hold a mask, cut to its box; an empty one is 0x0."""
    box = box_from_mask(mask)
    left, top, right, bottom = map(int, box.xyxy) if box is not None else (0, 0, 0, 0)
    return {
        "mask": mask_to_msg(mask[top:bottom, left:right], header),
        "mask_x_offset": left,
        "mask_y_offset": top,
    }
