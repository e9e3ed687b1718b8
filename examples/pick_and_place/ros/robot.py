"""An arm behind ROS 2 as the client's robot: MoveHand, TF, a gripper's joint states, a camera.

docs/libero.md has the interface; `panda_node` offers it for the simulated Panda.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from geometry_msgs.msg import Point, PoseStamped
from geometry_msgs.msg import Pose as PoseMsg
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from examples.pick_and_place.interfaces import SLOW, Floats, Image, Moved, RobotError
from examples.pick_and_place.ros.calls import NoAnswerError, call, run_goal
from examples.pick_and_place.ros.transforms import Pose, Transforms, quaternion_msg
from segzero_core.depth import camera_from_info, depth_in_meters
from segzero_core.errors import SegZeroError
from segzero_core.images.encodings import array_from_msg
from segzero_ros import qos
from segzero_ros.action import MoveHand
from segzero_ros.conversions.images import rgb_from_msg
from segzero_ros.srv import BeginEpisode, EndEpisode

PARTS: Final = {
    "color/image_raw": ImageMsg,
    "depth/image_raw": ImageMsg,
    "color/camera_info": CameraInfo,
}
"""Topics of a camera. Depth is registered to the color image; all three have one stamp."""
_KEPT: Final = 8
_BUILD_S: Final = 180.0
"""Building a scene takes seconds, on a busy machine many."""
MOVED: Final = {
    MoveHand.Result.REACHED: Moved.REACHED,
    MoveHand.Result.BLOCKED: Moved.BLOCKED,
    MoveHand.Result.OUT_OF_REACH: Moved.OUT_OF_REACH,
    MoveHand.Result.CANCELLED: Moved.STOPPED,
    MoveHand.Result.OUT_OF_TIME: Moved.STOPPED,
}


@dataclass(frozen=True)
class Names:
    """Of the arm on the graph.

    Attributes:
        arm: The node that has `~/move_hand`.
        camera: Namespace of the topics of `PARTS`.
        joint_states: Whose positions add up to the gripper's opening.
        fingers: The gripper's joints.
        base: The robot's base frame, z up.
        hand: The frame between the fingertips: z is the approach, x the closing axis.
    """

    arm: str = "/panda"
    camera: str = "/agentview"
    joint_states: str = "/joint_states"
    fingers: tuple[str, ...] = ("panda_finger_joint1", "panda_finger_joint2")
    base: str = "world"
    hand: str = "panda_hand_tcp"


class RosRobot:
    """See `examples.pick_and_place.interfaces.Robot`.

    Args:
        node: Spins in another thread.
        names: Of the arm's topics and frames.
        patience_s: For an image, a transform, or any sign of a motion under way.
    """

    def __init__(self, node: Node, names: Names | None = None, patience_s: float = 20.0) -> None:
        self._node, self._names, self._patience_s = node, names or Names(), patience_s
        self._changed = threading.Condition()
        self._transforms = Transforms(node, self._changed)
        self._heard: dict[str, deque[Any]] = {part: deque(maxlen=_KEPT) for part in PARTS}
        self._opening: tuple[int, float] | None = None
        self._rest_ns, self._is_late = 0, False
        self._motions = ActionClient(node, MoveHand, f"{self._names.arm}/move_hand")
        for part, kind in PARTS.items():
            topic = f"{self._names.camera}/{part}"
            hear = partial(self._hear, self._heard[part])
            node.create_subscription(kind, topic, hear, qos.CAMERA)
        states = self._names.joint_states
        node.create_subscription(JointState, states, self._on_joints, QoSProfile(depth=10))

    def look(self) -> Image:
        """See `Robot`."""
        return self._wait(self._image, self._what_is_missing)

    def position_m(self) -> Floats:
        """See `Robot`."""
        return self._hand().position_m

    def rotation(self) -> Floats:
        """See `Robot`."""
        return self._hand().rotation

    def opening_m(self) -> float:
        """See `Robot`."""
        return self._wait(
            lambda: self._opening and self._opening[0] >= self._rest_ns and self._opening,
            lambda: f"{self._names.joint_states} tells nothing new of {self._names.fingers}",
        )[1]

    def move_to(self, position_m: Floats, rotation: Floats, *, slow: bool = False) -> Moved:
        """See `Robot`."""
        x, y, z = map(float, position_m)
        pose = PoseMsg(position=Point(x=x, y=y, z=z), orientation=quaternion_msg(rotation))
        stamped = PoseStamped(header=Header(frame_id=self._names.base), pose=pose)
        return self._move(MoveHand.Goal(pose=stamped, speed=SLOW if slow else 1.0))

    def open(self) -> None:
        """See `Robot`."""
        self._move(MoveHand.Goal(fingers=MoveHand.Goal.OPEN))

    def close(self) -> None:
        """See `Robot`."""
        self._move(MoveHand.Goal(fingers=MoveHand.Goal.CLOSE))

    def out_of_time(self) -> bool:
        """See `Robot`."""
        return self._is_late

    def _move(self, goal: MoveHand.Goal) -> Moved:
        arm = self._names.arm
        try:
            result = run_goal(self._node, self._motions, goal, arm, self._patience_s)
        except NoAnswerError as error:
            raise RobotError(str(error)) from error
        self._began(result.stamp)
        self._is_late = result.outcome == MoveHand.Result.OUT_OF_TIME
        if result.outcome not in MOVED:
            raise RobotError(f"{arm} refused a motion: {result.message}")
        return MOVED[result.outcome]

    def _began(self, stamp: Any) -> None:
        """What shows an earlier moment is old from now on."""
        self._rest_ns = Time.from_msg(stamp).nanoseconds

    def _hand(self) -> Pose:
        """The hand at the last moment that is known, since it came to rest."""
        base, hand = self._names.base, self._names.hand

        def find() -> Pose | None:
            newest_ns = self._transforms.newest_ns(hand)
            return (
                self._transforms.at(base, hand, newest_ns) if newest_ns >= self._rest_ns else None
            )

        return self._wait(find, lambda: f"no transform from {base!r} to {hand!r}")

    def _image(self) -> Image | None:
        """The newest image since the hand came to rest whose parts and transform are there."""
        for color in reversed(self._heard["color/image_raw"]):
            stamp_ns = _ns(color)
            if stamp_ns < self._rest_ns:
                return None
            depth, info = (self._part(part, stamp_ns) for part in list(PARTS)[1:])
            pose = self._transforms.at(self._names.base, color.header.frame_id, stamp_ns)
            if depth and info and pose:
                return _image(color, depth, info, pose)
        return None

    def _part(self, part: str, stamp_ns: int) -> Any:
        return next((msg for msg in self._heard[part] if _ns(msg) == stamp_ns), None)

    def _what_is_missing(self) -> str:
        for part, heard in self._heard.items():
            if not heard or _ns(heard[-1]) < self._rest_ns:
                return f"nothing new on {self._names.camera}/{part}: the camera stopped"
        frame = self._heard["color/image_raw"][-1].header.frame_id
        return (
            f"no transform from {self._names.base!r} to {frame!r} at an image's stamp, or color, "
            "depth and camera_info of different stamps"
        )

    def _wait(self, find: Callable[[], Any], what: Callable[[], str]) -> Any:
        """Wait for something that is heard; a RobotError says what did not come."""
        with self._changed:
            try:
                if found := self._changed.wait_for(find, self._patience_s):
                    return found
            except SegZeroError as error:  # an image or a transform that cannot be read
                raise RobotError(str(error)) from error
            raise RobotError(f"{what()}, within {self._patience_s:g} s")

    def _hear(self, heard: deque[Any], msg: Any) -> None:
        with self._changed:
            heard.append(msg)
            self._changed.notify_all()

    def _on_joints(self, msg: JointState) -> None:
        found = dict(zip(msg.name, msg.position, strict=False))
        if all(name in found for name in self._names.fingers):
            with self._changed:
                self._opening = _ns(msg), sum(found[name] for name in self._names.fingers)
                self._changed.notify_all()


class SimulatedRobot(RosRobot):
    """An arm of `panda_node`, with episodes of the benchmark."""

    def __init__(self, node: Node, names: Names | None = None, patience_s: float = 20.0) -> None:
        super().__init__(node, names, patience_s)
        arm = self._names.arm
        self._begin = node.create_client(BeginEpisode, f"{arm}/begin_episode")
        self._end = node.create_client(EndEpisode, f"{arm}/end_episode")

    def begin(self, request: BeginEpisode.Request) -> str:
        """Begin an episode and return its instruction.

        Raises:
            RobotError: There is no such episode, or no answer.
        """
        response = self._call(self._begin, request, max(self._patience_s, _BUILD_S))
        if not response.begun:
            raise RobotError(response.message)
        self._is_late = False
        self._began(response.stamp)
        return str(response.instruction)

    def end(self) -> EndEpisode.Response:
        """End the episode, and hear whether it succeeded.

        Raises:
            RobotError: None runs, or no answer.
        """
        response = self._call(self._end, EndEpisode.Request(), self._patience_s)
        if not response.ended:
            raise RobotError(response.message)
        return response

    def _call(self, client: Any, request: Any, answer_s: float) -> Any:
        try:
            return call(client, request, self._names.arm, self._patience_s, answer_s)
        except NoAnswerError as error:
            raise RobotError(str(error)) from error


def _ns(msg: Any) -> int:
    return int(Time.from_msg(msg.header.stamp).nanoseconds)


def _image(color: ImageMsg, depth: ImageMsg, info: CameraInfo, pose: Pose) -> Image:
    """Build the client's image; an InputError where a message cannot be read."""
    return Image(
        rgb_from_msg(color),
        depth_in_meters(array_from_msg(depth), depth.encoding),
        camera_from_info(info, rectified=False),
        pose.rotation,
        pose.position_m,
    )
