"""Where the camera was when it took a picture, in a frame of the user's, by TF.

tf2_ros is imported when a target frame is first asked for: without one, the node does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.duration import Duration
from rclpy.time import Time

from segzero_core.errors import SegZeroError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from rclpy.node import Node
    from std_msgs.msg import Header


class FrameError(SegZeroError):
    """There is no transform to the target frame at the picture's stamp."""


@dataclass(frozen=True, eq=False)
class CameraPlace:
    """A frame as seen from another: p_target = rotation · p_camera + position_m.

    Attributes:
        rotation: float64 [3, 3].
        position_m: float64 [3].
    """

    rotation: NDArray[np.float64]
    position_m: NDArray[np.float64]

    @classmethod
    def here(cls) -> CameraPlace:
        """Return the camera's own frame."""
        return cls(np.eye(3), np.zeros(3))

    def moved(self, points_m: NDArray[Any]) -> NDArray[np.float64]:
        """Return float64 [N, 3]: points of the camera frame in the target frame [m]."""
        return np.asarray(points_m @ self.rotation.T + self.position_m, np.float64)


def matrix_from_quaternion(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """Return the rotation matrix [3, 3] of a quaternion of any length but zero.

    Raises:
        FrameError: Its length is zero or not finite.
    """
    quaternion = np.array([x, y, z, w], np.float64)
    length = float(np.linalg.norm(quaternion))
    if not 0 < length < np.inf:
        raise FrameError(f"the transform's rotation is no quaternion: {quaternion.tolist()}")
    x, y, z, w = quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_xyzw(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64 [4]: the quaternion of a rotation matrix, with w not negative."""
    r = rotation
    # The symmetric matrix whose largest eigenvector is the quaternion: no case is singular.
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2], r[2, 1] - r[1, 2]],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    _, vectors = np.linalg.eigh(k)
    quaternion = vectors[:, -1]
    return quaternion if quaternion[3] >= 0 else -quaternion


def listening_buffer(node: Node) -> Any:
    """Return a buffer of tf2_ros that hears /tf and /tf_static from now on.

    Raises:
        ImportError: tf2_ros is not installed.
    """
    import tf2_ros

    buffer = tf2_ros.Buffer(node=node)
    buffer.segzero_listener = tf2_ros.TransformListener(buffer, node)  # lives as long
    return buffer


class Frames:
    """Looks up transforms; used by the model's thread alone.

    Args:
        node: That hears TF.
        make_buffer: Makes the buffer when it is first needed.
    """

    def __init__(self, node: Node, make_buffer: Callable[[Node], Any] = listening_buffer) -> None:
        self._node = node
        self._make_buffer = make_buffer
        self._buffer: Any = None

    def listen(self) -> None:
        """Begin to hear TF, so that the first lookup finds it; a lack of tf2_ros is told later."""
        if self._buffer is None:
            try:
                self._buffer = self._make_buffer(self._node)
            except ImportError:
                return

    def place(self, target_frame: str, header: Header, timeout_s: float) -> CameraPlace:
        """Return where a picture's camera was at its stamp; never at another time.

        Args:
            target_frame: Empty is the camera's own.
            header: Of the picture.
            timeout_s: How long to wait for the transform to arrive [s].

        Raises:
            FrameError: It cannot be had.
        """
        source = header.frame_id.lstrip("/")
        if target_frame in ("", source):
            return CameraPlace.here()
        if not source:
            raise FrameError(
                f"the picture has no frame_id, so there is no transform to {target_frame!r}; set "
                "it in the camera's driver, or clear the parameter target_frame"
            )
        try:
            if self._buffer is None:
                self._buffer = self._make_buffer(self._node)
            found = self._buffer.lookup_transform(
                target_frame,
                source,
                Time.from_msg(header.stamp),
                timeout=Duration(seconds=timeout_s),
            )
        except ImportError as error:
            raise FrameError(
                f"target_frame is {target_frame!r}, and tf2_ros cannot be imported ({error}); "
                "install ros-${ROS_DISTRO}-tf2-ros-py, or clear target_frame"
            ) from error
        except Exception as error:  # the exceptions of tf2 have no common root in all versions
            stamp = f"{header.stamp.sec}.{header.stamp.nanosec:09d}"
            raise FrameError(
                f"no transform from {source!r} to {target_frame!r} at {stamp}: {error}"
            ) from error
        turn, shift = found.transform.rotation, found.transform.translation
        return CameraPlace(
            matrix_from_quaternion(turn.x, turn.y, turn.z, turn.w),
            np.array([shift.x, shift.y, shift.z]),
        )
