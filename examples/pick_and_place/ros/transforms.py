"""Where frames are, by /tf and /tf_static; without tf2_ros, which the ROS wheels lack."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from examples.pick_and_place.interfaces import Floats
from segzero_ros.spatial.transforms import matrix_from_quaternion, quaternion_xyzw

TF: Final = QoSProfile(depth=100)
TF_STATIC: Final = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_KEPT: Final = 500


@dataclass(frozen=True, eq=False)
class Pose:
    """A frame in another one: p_there = rotation · p + position_m."""

    rotation: Floats
    position_m: Floats

    def of(self, inner: Pose) -> Pose:
        """A pose that is given in this frame."""
        return Pose(
            self.rotation @ inner.rotation, self.rotation @ inner.position_m + self.position_m
        )


@dataclass(frozen=True, eq=False)
class _Link:
    stamp_ns: int
    parent: str
    pose: Pose


class Transforms:
    """Hears transforms; a time between two of them is interpolated, never extrapolated.

    Args:
        node: Spins elsewhere.
        changed: Notified whenever something was heard; held while it is kept and looked up.
    """

    def __init__(self, node: Node, changed: threading.Condition) -> None:
        self._changed = changed
        self._fixed: dict[str, _Link] = {}
        self._moving: dict[str, deque[_Link]] = {}
        node.create_subscription(TFMessage, "/tf", self._on_moving, TF)
        node.create_subscription(TFMessage, "/tf_static", self._on_fixed, TF_STATIC)

    def at(self, base: str, frame: str, stamp_ns: int) -> Pose | None:
        """A frame in the base at a moment; None as long as that is not known."""
        pose = Pose(np.eye(3), np.zeros(3))
        for _ in range(len(self._fixed) + len(self._moving) + 1):
            if frame == base:
                return pose
            link = self._fixed.get(frame) or _between(self._moving.get(frame, ()), stamp_ns)
            if link is None:
                return None
            pose, frame = link.pose.of(pose), link.parent
        return None  # the frames are a ring

    def newest_ns(self, frame: str) -> int:
        """The last moment for which a moving frame is known; 0 where nothing was heard."""
        links = self._moving.get(frame)
        return links[-1].stamp_ns if links else 0

    def _on_fixed(self, msg: TFMessage) -> None:
        with self._changed:
            self._fixed.update((each.child_frame_id, _link(each)) for each in msg.transforms)
            self._changed.notify_all()

    def _on_moving(self, msg: TFMessage) -> None:
        with self._changed:
            for each in msg.transforms:
                links = self._moving.setdefault(each.child_frame_id, deque(maxlen=_KEPT))
                link = _link(each)
                if links and link.stamp_ns < links[-1].stamp_ns:
                    links.clear()  # the clock was set back
                links.append(link)
            self._changed.notify_all()


def _between(links: Any, stamp_ns: int) -> _Link | None:
    """The link at a moment."""
    later = next((i for i, link in enumerate(links) if link.stamp_ns >= stamp_ns), None)
    if later is None:
        return None
    after = links[later]
    if after.stamp_ns == stamp_ns:
        return after
    if later == 0:
        return None
    before = links[later - 1]
    share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
    mixed = (1 - share) * before.pose.rotation + share * after.pose.rotation
    u, _, v = np.linalg.svd(mixed)  # the nearest rotation
    position = (1 - share) * before.pose.position_m + share * after.pose.position_m
    return _Link(stamp_ns, after.parent, Pose(u @ v, position))


def _link(msg: TransformStamped) -> _Link:
    return _Link(
        Time.from_msg(msg.header.stamp).nanoseconds,
        msg.header.frame_id,
        Pose(rotation_of(msg.transform.rotation), vector_of(msg.transform.translation)),
    )


def rotation_of(msg: Quaternion) -> Floats:
    """A rotation matrix [3, 3]; a TransformError where the quaternion is none."""
    return matrix_from_quaternion(msg.x, msg.y, msg.z, msg.w)


def vector_of(msg: Any) -> Floats:
    """The x, y and z of a message."""
    return np.array([msg.x, msg.y, msg.z], np.float64)


def quaternion_msg(rotation: Floats) -> Quaternion:
    """Build a quaternion."""
    x, y, z, w = map(float, quaternion_xyzw(rotation))
    return Quaternion(x=x, y=y, z=z, w=w)


def transform_msg(base: str, frame: str, pose: Pose, stamp: Any) -> TransformStamped:
    """Build the transform of a frame in the base."""
    msg = TransformStamped(header=Header(stamp=stamp, frame_id=base), child_frame_id=frame)
    msg.transform.rotation = quaternion_msg(pose.rotation)
    x, y, z = map(float, pose.position_m)
    msg.transform.translation = Vector3(x=x, y=y, z=z)
    return msg
