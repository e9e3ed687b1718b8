"""The objects of an answer in space: from the paired depth to poses, grasps and clouds."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from segzero_core.depth import (
    CameraModel,
    Measurement,
    depth_in_meters,
    measure_object,
)
from segzero_core.errors import InputError, SegZeroError
from segzero_ros.conversions.images import array_from_msg
from segzero_ros.msg import GraspCandidate
from segzero_ros.spatial.transforms import CameraPlace, Frames, quaternion_xyzw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from sensor_msgs.msg import CameraInfo, Image

    from segzero_core.config import NodeConfig
    from segzero_core.types import RgbImage
    from segzero_ros.camera.image_buffer import Picture
    from segzero_ros.msg import ObjectInstance
    from segzero_ros.queries.answer import Answer

_POINT: Final = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


@dataclass(frozen=True, eq=False)
class Scene3D:
    """What is known in space about the objects of an answer.

    Attributes:
        header: The picture's stamp, and the frame that `place` leads to.
        place: From the camera's optical frame to that one.
        objects: One for each object of the answer; None where it could not be measured.
        reasons: Why not, one for each of those.
    """

    header: Header
    place: CameraPlace
    objects: tuple[Measurement | None, ...]
    reasons: tuple[str, ...]


def camera_from_info(info: CameraInfo, *, rectified: bool) -> CameraModel:
    """Read a calibration, with its binning and region of interest.

    Args:
        info: The message.
        rectified: The pictures were rectified with it: P holds, and nothing is distorted.

    Raises:
        InputError: It is none; K is zero where a camera is not calibrated.
    """
    matrix = np.reshape(info.p, (3, 4))[:, :3].copy() if rectified else np.reshape(info.k, (3, 3))
    matrix = np.array(matrix, np.float64)
    across, down = max(1, info.binning_x), max(1, info.binning_y)
    roi = info.roi
    width, height = (roi.width or info.width) // across, (roi.height or info.height) // down
    matrix[0, 2] -= roi.x_offset
    matrix[1, 2] -= roi.y_offset
    matrix[0] /= across
    matrix[1] /= down
    if rectified:
        return CameraModel(matrix, (), (width, height))
    model = info.distortion_model if any(info.d) else ""
    return CameraModel(matrix, tuple(info.d) if model else (), (width, height), model)


def depth_trouble(picture: Picture, depth: Image | None, info: CameraInfo | None) -> str:
    """Say why a picture has nothing to measure objects with; empty if it has."""
    frame = picture.header.frame_id
    if depth is None:
        return "no depth image of the picture's stamp (pair_tolerance_s) has arrived"
    if info is None:
        return "no camera_info of the picture's stamp (pair_tolerance_s) has arrived"
    for name, other in (("depth", depth.header.frame_id), ("camera_info", info.header.frame_id)):
        if other.lstrip("/") != frame.lstrip("/"):
            return (
                f"{name} is in the frame {other!r} and the picture in {frame!r}; publish depth "
                "that is registered to the colour camera"
            )
    return ""


def measure_answer(answer: Answer, config: NodeConfig, frames: Frames) -> Scene3D:
    """Measure the objects of an answer that has a picture with depth.

    Raises:
        SegZeroError: Nothing can be measured; the message says why. What is wrong with one object
            alone is told in `Scene3D.reasons`.
    """
    picture, result = answer.picture, answer.result
    assert picture is not None
    assert result is not None
    depth, info = picture.depth, picture.camera_info
    trouble = depth_trouble(picture, depth, info)
    if trouble or depth is None or info is None:
        raise InputError(trouble)
    camera = camera_from_info(info, rectified=config.rectified)
    depth_m = depth_in_meters(array_from_msg(depth), depth.encoding)
    place = frames.place(config.target_frame, picture.header, config.tf_timeout_s)
    # In the frame of a robot or a room, z is up (REP 103).
    up = place.rotation[2] if config.target_frame else None
    objects: list[Measurement | None] = []
    reasons = []
    for number, mask in enumerate(result.segmentation.masks, start=1):
        try:
            objects.append(measure_object(mask, depth_m, camera, up=up, grasping=config))
        except SegZeroError as error:
            objects.append(None)
            reasons.append(f"object {number}: {error}")
    frame_id = config.target_frame or picture.header.frame_id
    header = Header(stamp=picture.header.stamp, frame_id=frame_id)
    return Scene3D(header, place, tuple(objects), tuple(reasons))


def add_poses(instances: list[ObjectInstance], scene: Scene3D) -> None:
    """Fill in pose, size and grasps of the instances of a result."""
    for instance, found in zip(instances, scene.objects, strict=True):
        if found is None:
            continue
        box = found.box
        instance.pose = pose_to_msg(box.center_m, box.rotation, scene.place)
        instance.size_m = Vector3(**_named(box.size_m))
        instance.has_pose = True
        instance.grasps = [
            GraspCandidate(
                pose=pose_to_msg(grasp.position_m, grasp.rotation, scene.place),
                width_m=grasp.width_m,
                score=grasp.score,
            )
            for grasp in found.grasps
        ]


def pose_to_msg(
    position_m: NDArray[np.float64], rotation: NDArray[np.float64], place: CameraPlace
) -> Pose:
    """Build the pose of something in the camera frame, in the frame that `place` leads to."""
    x, y, z, w = map(float, quaternion_xyzw(place.rotation @ rotation))
    moved = place.moved(position_m[None])[0]
    return Pose(position=Point(**_named(moved)), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _named(vector: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip("xyz", map(float, vector), strict=True))


def poses_to_msg(scene: Scene3D | None, header: Header) -> PoseArray:
    """Build the poses of the objects that have one, in the answer's order.

    Args:
        scene: What was measured; None where nothing could be.
        header: Of the picture, for the message without poses.
    """
    if scene is None:
        return PoseArray(header=header)
    boxes = [found.box for found in scene.objects if found is not None]
    poses = [pose_to_msg(box.center_m, box.rotation, scene.place) for box in boxes]
    return PoseArray(header=scene.header, poses=poses)


def cloud_to_msg(scene: Scene3D | None, rgb: RgbImage | None, header: Header) -> PointCloud2:
    """Build the cloud of all objects: x, y, z [m] and rgb as RViz reads it.

    Args:
        scene: What was measured; None where nothing could be.
        rgb: uint8 [H, W, 3], the picture.
        header: Of the picture, for the message without points.
    """
    parts = list(_coloured(scene, rgb)) if scene is not None and rgb is not None else []
    points = np.concatenate(parts) if parts else np.zeros(0, _POINT)
    data = array.array("B")
    data.frombytes(points.tobytes())
    return PointCloud2(
        header=header if scene is None else scene.header,
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(("x", "y", "z", "rgb"))
        ],
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=_POINT.itemsize * len(points),
        data=data,
        is_dense=True,
    )


def _coloured(scene: Scene3D, rgb: RgbImage) -> Iterator[NDArray[Any]]:
    for found in scene.objects:
        if found is None:
            continue
        cloud = found.cloud
        points = np.zeros(len(cloud), _POINT)
        moved = scene.place.moved(cloud.points_m)
        for i, name in enumerate("xyz"):
            points[name] = moved[:, i]
        colour = rgb[cloud.pixels_xy[:, 1], cloud.pixels_xy[:, 0]].astype(np.uint32)
        points["rgb"] = (colour[:, 0] << 16) | (colour[:, 1] << 8) | colour[:, 2]
        yield points
