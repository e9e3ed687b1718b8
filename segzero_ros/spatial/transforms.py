"""The camera's pose in the user's target frame, by TF at the image's stamp.

tf2_ros is imported when a target frame is first asked for, and quaternions are converted here
rather than by tf_transformations: the ROS wheels that `make demo` installs have neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from segzero_core.errors import SegZeroError


class TransformError(SegZeroError):
    """There is no transform to the target frame at the image's stamp."""


@dataclass(frozen=True, eq=False)
class CameraPose:
    """The camera's pose in a target frame: p_target = rotation · p_camera + position_m."""

    rotation: NDArray[np.float64]  # float64 [3, 3]
    position_m: NDArray[np.float64]  # float64 [3]

    def apply(self, points_m: NDArray[Any]) -> NDArray[np.float64]:
        """Return float64 [N, 3]: points of the camera frame in the target frame [m]."""
        return np.asarray(points_m @ self.rotation.T + self.position_m, np.float64)


def matrix_from_quaternion(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """Return the rotation matrix [3, 3] of a quaternion of any finite length but zero."""
    quaternion = np.array([x, y, z, w], np.float64)
    length = float(np.linalg.norm(quaternion))
    if not 0 < length < np.inf:
        raise TransformError(f"the transform's rotation is no quaternion: {quaternion.tolist()}")
    *axis, w = quaternion / length
    cross = np.cross(np.eye(3), axis)  # cross @ v is axis x v
    return np.asarray(np.eye(3) + 2 * w * cross + 2 * cross @ cross)


def quaternion_xyzw(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64 [4]: the quaternion of a rotation matrix, with w not negative."""
    r, trace = rotation, np.trace(rotation)
    # The symmetric matrix whose largest eigenvector is the quaternion: no case is singular.
    k = np.full((4, 4), trace)
    k[:3, :3] = r + r.T - trace * np.eye(3)
    k[3, :3] = k[:3, 3] = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
    _, vectors = np.linalg.eigh(k)
    quaternion = vectors[:, -1]
    return quaternion if quaternion[3] >= 0 else -quaternion


class Transforms:
    """Looks up transforms in the TF that a node receives; for the model's thread alone."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer: Any = None

    def listen(self) -> None:
        """Subscribe to /tf and /tf_static, for lookups to come; ImportError without tf2_ros."""
        if self._buffer is None:
            import tf2_ros

            self._buffer = tf2_ros.Buffer(node=self._node)
            self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def camera_pose(self, target_frame: str, header: Header, timeout_s: float) -> CameraPose:
        """Return the camera's pose at the stamp of its image; never at another time.

        Waits `timeout_s` [s] for the transform to arrive. An empty frame is the camera's own.

        Raises:
            TransformError: There is no such transform.
        """
        source = header.frame_id.lstrip("/")
        if target_frame in ("", source):
            return CameraPose(np.eye(3), np.zeros(3))
        if not source:
            raise TransformError(
                f"the image has no frame_id, so there is no transform to {target_frame!r}; set "
                "it in the camera's driver, or clear the parameter target_frame"
            )
        try:
            self.listen()
            found = self._buffer.lookup_transform(
                target_frame,
                source,
                Time.from_msg(header.stamp),
                timeout=Duration(seconds=timeout_s),
            )
        except ImportError as error:
            raise TransformError(
                f"target_frame is {target_frame!r}, and tf2_ros cannot be imported ({error}); "
                "install ros-${ROS_DISTRO}-tf2-ros-py, or clear target_frame"
            ) from error
        except Exception as error:  # the exceptions of tf2 have no common root in all versions
            stamp = f"{header.stamp.sec}.{header.stamp.nanosec:09d}"
            raise TransformError(
                f"no transform from {source!r} to {target_frame!r} at {stamp}: {error}"
            ) from error
        turn, shift = found.transform.rotation, found.transform.translation
        return CameraPose(
            matrix_from_quaternion(turn.x, turn.y, turn.z, turn.w),
            np.array([shift.x, shift.y, shift.z]),
        )
