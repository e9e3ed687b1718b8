"""Estimates the pose, size and grasps of an answer's objects from the image's depth."""

from __future__ import annotations

from collections.abc import Callable

from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from segzero_core.depth import (
    Measurement,
    camera_from_info,
    depth_in_meters,
    measure_object,
)
from segzero_core.errors import InputError, SegZeroError
from segzero_core.images.encodings import array_from_msg
from segzero_core.types import Segmentation
from segzero_ros.camera.image_buffer import CameraFrame
from segzero_ros.parameters import NodeConfig
from segzero_ros.spatial.scene import ObjectPoses
from segzero_ros.spatial.transforms import Transforms


def estimate_poses(
    transforms: Transforms,
    settings: Callable[[], NodeConfig],
    frame: CameraFrame,
    segmentation: Segmentation,
) -> ObjectPoses:
    """Measure the objects of an answer about one image.

    Raises:
        SegZeroError: Nothing can be measured; the message says why. A reason that concerns one
            object alone is kept in `ObjectPoses.reasons`.
    """
    config = settings()
    depth, info = _depth_and_calibration(frame)
    camera = camera_from_info(info, rectified=config.rectified)
    depth_m = depth_in_meters(array_from_msg(depth), depth.encoding)
    transform = transforms.camera_pose(config.target_frame, frame.header, config.tf_timeout_s)
    # In the frame of a robot or a room, z is up (REP 103).
    up = transform.rotation[2] if config.target_frame else None
    objects: list[Measurement | None] = []
    reasons = []
    for number, mask in enumerate(segmentation.masks, start=1):
        try:
            objects.append(measure_object(mask, depth_m, camera, up=up, grasping=config))
        except SegZeroError as error:
            objects.append(None)
            reasons.append(f"object {number}: {error}")
    frame_id = config.target_frame or frame.header.frame_id
    header = Header(stamp=frame.header.stamp, frame_id=frame_id)
    return ObjectPoses(header, transform, tuple(objects), tuple(reasons))


def _depth_and_calibration(frame: CameraFrame) -> tuple[Image, CameraInfo]:
    """Return the messages of the image's moment; an InputError where one does not fit."""
    depth, info = frame.depth, frame.camera_info
    if depth is None:
        raise InputError("no depth image of the image's stamp (pair_tolerance_s) has arrived")
    if info is None:
        raise InputError("no camera_info of the image's stamp (pair_tolerance_s) has arrived")
    own = frame.header.frame_id
    for name, other in (("depth", depth.header.frame_id), ("camera_info", info.header.frame_id)):
        if other.lstrip("/") != own.lstrip("/"):
            raise InputError(
                f"{name} is in the frame {other!r} and the image in {own!r}; publish depth "
                "that is registered to the color camera"
            )
    return depth, info
