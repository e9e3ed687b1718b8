"""The measured objects of an answer as poses, grasps and a point cloud."""

from __future__ import annotations

import array
from typing import Any, Final

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

from segzero_core.depth import Grasp, Measurement, OrientedBox
from segzero_core.errors import InputError
from segzero_core.types import RgbImage
from segzero_ros.msg import GraspCandidate, ObjectInstance
from segzero_ros.spatial.scene import ObjectPoses
from segzero_ros.spatial.transforms import CameraPose, matrix_from_quaternion, quaternion_xyzw

_POINT: Final = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


def pose_fields(measured: Measurement, transform: CameraPose) -> dict[str, Any]:
    """Return the fields of an ObjectInstance that hold pose, size and grasps."""
    return {
        "pose": box_pose(measured, transform),
        "size_m": Vector3(**_named(measured.box.size_m)),
        "has_pose": True,
        "grasps": [
            GraspCandidate(
                pose=pose_to_msg(grasp.position_m, grasp.rotation, transform),
                width_m=grasp.width_m,
                score=grasp.score,
            )
            for grasp in measured.grasps
        ],
    }


def box_pose(measured: Measurement, transform: CameraPose) -> Pose:
    """Return the pose of the box around an object."""
    return pose_to_msg(measured.box.center_m, measured.box.rotation, transform)


def pose_to_msg(
    position_m: NDArray[np.float64], rotation: NDArray[np.float64], transform: CameraPose
) -> Pose:
    """Build a pose given in the camera frame, in the frame that `transform` leads to."""
    x, y, z, w = map(float, quaternion_xyzw(transform.rotation @ rotation))
    position = transform.apply(position_m[None])[0]
    return Pose(position=Point(**_named(position)), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _named(vector: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip("xyz", map(float, vector), strict=True))


def poses_to_msg(poses: ObjectPoses) -> PoseArray:
    """Build the poses of the objects that have one, in the answer's order."""
    found = [box_pose(each, poses.transform) for each in poses.objects if each is not None]
    return PoseArray(header=poses.header, poses=found)


def cloud_to_msg(poses: ObjectPoses, rgb: RgbImage) -> PointCloud2:
    """Build the cloud of all objects: x, y, z [m] and rgb as RViz reads it, of a uint8 image."""
    parts = [np.zeros(0, _POINT)]
    for measured in filter(None, poses.objects):
        cloud = measured.cloud
        part = np.zeros(len(cloud), _POINT)
        for name, values in zip("xyz", poses.transform.apply(cloud.points_m).T, strict=True):
            part[name] = values
        color = rgb[cloud.pixels_xy[:, 1], cloud.pixels_xy[:, 0]].astype(np.uint32)
        part["rgb"] = (color[:, 0] << 16) | (color[:, 1] << 8) | color[:, 2]
        parts.append(part)
    points = np.concatenate(parts)
    data = array.array("B")
    data.frombytes(points.tobytes())
    return PointCloud2(
        header=poses.header,
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


def points_from_msg(msg: PointCloud2) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the points of `cloud_to_msg`, [N, 3] [m], and their colors, [N, 3].

    Raises:
        InputError: It is another kind of cloud.
    """
    if msg.point_step != _POINT.itemsize or len(msg.data) != msg.width * _POINT.itemsize:
        raise InputError(f"a point cloud of {msg.point_step} bytes a point; expected x, y, z, rgb")
    values = np.frombuffer(bytes(msg.data), "<f4").reshape(-1, 4)
    return values[:, :3], values[:, 3:].copy().view(np.uint8)[:, 2::-1]


def space_from_msg(instance: ObjectInstance) -> tuple[OrientedBox, list[Grasp]] | None:
    """Return the box around an object and its grasps, best first; None where it has no pose."""
    if not instance.has_pose:
        return None
    size = instance.size_m
    return OrientedBox(*_placed(instance.pose), np.array([size.x, size.y, size.z])), [
        Grasp(*_placed(each.pose), float(each.width_m), float(each.score))
        for each in instance.grasps
    ]


def _placed(pose: Pose) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return position and rotation matrix."""
    at, turn = pose.position, pose.orientation
    return np.array([at.x, at.y, at.z]), matrix_from_quaternion(turn.x, turn.y, turn.z, turn.w)
