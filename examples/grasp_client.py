"""Ask segzero for a thing and let a gripper lift it. This file is there to be copied.

    python examples/grasp_client.py "the red mug" --camera-pose 0.6 0 0.5 -0.65 0.65 -0.27 0.27
    python examples/grasp_client.py "the red mug" --base-frame base_link        # the pose by TF

Run so, it asks the node for real and only prints what the gripper would do. For a robot, write a
`Gripper` and give it to `pick`; nothing else changes. `examples/grasp_cell.py` does that with a
simulated one, and `benchmarks/grasp.py` counts how often it works.

The rules: an error is reported and nothing moves; nothing found: nothing moves; an ambiguous
answer asks back, and nothing moves; else the best grasp of the best object is carried out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from std_msgs.msg import Header

    from segzero_ros.msg import SegmentationResult

ABOVE_M: Final = 0.12
"""The pre-grasp pose is so far back along the approach."""
LIFT_M: Final = 0.20
MAX_TRIES: Final = 2
"""Grasps of one answer that are tried while the gripper comes up empty."""
SLOW_M_S, FAST_M_S = 0.15, 0.5
_APPROACH: Final = 2
"""The column of a grasp's rotation that is the direction of approach."""


@dataclass(frozen=True, eq=False)
class GraspPose:
    """Where the gripper closes: origin between the tips, z the approach, x the closing axis."""

    # float64 [3], in the frame of the moment (camera, then base) [m].
    position_m: NDArray[np.float64]
    rotation: NDArray[np.float64]  # float64 [3, 3], columns are the gripper's axes in that frame
    width_m: float  # how far to open first [m]
    score: float  # 0 to 1


@dataclass(frozen=True, eq=False)
class Found:
    """One object of an answer: its score, and its grasps, best first."""

    score: float
    grasps: tuple[GraspPose, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a result says to a gripper."""

    error: str  # why there is no answer; empty if there is one
    ambiguous: bool  # one thing was asked for and near-equal ones were found
    objects: tuple[Found, ...]  # in the answer's order


@dataclass(frozen=True, eq=False)
class Place:
    """A frame as seen from another: p_base = rotation · p + position_m."""

    rotation: NDArray[np.float64]
    position_m: NDArray[np.float64]

    def of(self, grasp: GraspPose) -> GraspPose:
        """Return a grasp of this frame in the base's."""
        return replace(
            grasp,
            position_m=self.rotation @ grasp.position_m + self.position_m,
            rotation=self.rotation @ grasp.rotation,
        )


class Gripper(Protocol):
    """What the client needs of a robot; every call returns when the motion has ended."""

    def move_to(self, position_m: NDArray[Any], rotation: NDArray[Any], speed_m_s: float) -> bool:
        """Bring the point between the tips to a pose in the base frame; False if it is blocked."""

    def open(self, width_m: float) -> None:
        """Open the fingers to a width."""

    def close(self) -> bool:
        """Close with the gripper's force; False if nothing is between the fingers."""


class Step(Enum):
    """What to do about an answer, and how it went."""

    FAILED = "the question failed"
    NOTHING = "nothing matches; the gripper stays where it is"
    ASK = "several things fit equally well; which one is meant?"
    NO_GRASP = "the gripper cannot take it"
    GRASP = "grasp"
    HELD = "held"
    BLOCKED = "the way to the object is blocked"
    EMPTY = "the gripper closed on nothing"
    SLIPPED = "it slipped out"


@dataclass(frozen=True, eq=False)
class Decision:
    """What to do about an answer."""

    step: Step  # FAILED, NOTHING, ASK, NO_GRASP or GRASP
    # For GRASP: of one object, best first, in the frame of the answer.
    grasps: tuple[GraspPose, ...] = ()
    index: int = -1  # for GRASP: which object of the answer
    detail: str = ""  # more, for people


def decide(answer: Answer) -> Decision:
    """Choose what to do; only GRASP moves the robot."""
    if answer.error:
        return Decision(Step.FAILED, detail=answer.error)
    if not answer.objects:
        return Decision(Step.NOTHING)
    if answer.ambiguous:
        return Decision(Step.ASK, detail=f"{len(answer.objects)} objects")
    # Of several (all the tools) any will do: the one that the segmenter is surest of.
    order = sorted(range(len(answer.objects)), key=lambda i: -answer.objects[i].score)
    for index in order:
        if answer.objects[index].grasps:
            return Decision(Step.GRASP, answer.objects[index].grasps, index)
    return Decision(Step.NO_GRASP)


def pick(gripper: Gripper, grasps: Sequence[GraspPose]) -> Step:
    """Carry out the best grasp; another one where the gripper is blocked or comes up empty.

    Args:
        gripper: The robot.
        grasps: In the base frame (z up), best first.

    Returns:
        HELD, BLOCKED, EMPTY or SLIPPED.
    """
    step = Step.NO_GRASP
    for grasp in grasps[:MAX_TRIES]:
        step = pick_once(gripper, grasp)
        if step in (Step.HELD, Step.SLIPPED):  # a thing that fell lies elsewhere now: ask again
            return step
    return step


def pick_once(gripper: Gripper, grasp: GraspPose) -> Step:
    """Move above, open, go down, close, lift."""
    target, turn = grasp.position_m, grasp.rotation
    above = target - ABOVE_M * turn[:, _APPROACH]
    gripper.move_to(above, turn, FAST_M_S)
    gripper.open(grasp.width_m)
    if not gripper.move_to(target, turn, SLOW_M_S):
        gripper.move_to(above, turn, SLOW_M_S)
        return Step.BLOCKED
    if not gripper.close():
        gripper.open(grasp.width_m)
        gripper.move_to(above, turn, SLOW_M_S)
        return Step.EMPTY
    gripper.move_to(target + np.array([0.0, 0.0, LIFT_M]), turn, SLOW_M_S)
    # Closing again tells whether it is still there.
    return Step.HELD if gripper.close() else Step.SLIPPED


# From here on: ROS.


def answer_from_msg(result: SegmentationResult) -> Answer:
    """Read what the node says; grasps are in the frame of the result's `pose_header`."""
    error = f"error {result.error_code}: {result.error_msg}" if result.error_code else ""
    objects = tuple(
        Found(each.score, tuple(_grasp_from_msg(grasp) for grasp in each.grasps))
        for each in result.instances
    )
    return Answer(error, bool(result.ambiguous), objects)


def camera_place(result: SegmentationResult, camera_pose: Sequence[float]) -> Place:
    """Return the pose x, y, z [m], qx, qy, qz, qw of the camera in the base.

    Raises:
        RuntimeError: The grasps are in another frame than the camera's.
    """
    if (frame := result.pose_header.frame_id) != result.header.frame_id:
        raise RuntimeError(f"the grasps are in the node's target_frame {frame!r}: --base-frame")
    x, y, z, *turn = camera_pose
    return Place(rotation_of(*turn), np.array([x, y, z]))


def _grasp_from_msg(grasp: Any) -> GraspPose:
    position, turn = grasp.pose.position, grasp.pose.orientation
    return GraspPose(
        np.array([position.x, position.y, position.z]),
        rotation_of(turn.x, turn.y, turn.z, turn.w),
        float(grasp.width_m),
        float(grasp.score),
    )


def rotation_of(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """Return the rotation matrix [3, 3] of a quaternion of any length but zero.

    Raises:
        ValueError: Its length is zero.
    """
    length = float(np.linalg.norm([x, y, z, w]))
    if not length > 0:
        raise ValueError("a quaternion of length zero is no rotation")
    x, y, z, w = x / length, y / length, z / length, w / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


class Client:
    """Asks the node; a node of its own, which spins while it waits.

    Args:
        target: Full name of the node to ask.
        context: Of rclpy; None is the default one.
    """

    def __init__(self, target: str = "/segzero", context: Any = None) -> None:
        from rclpy.action import ActionClient
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        from segzero_ros.action import Segment

        self.node = Node("grasp_client", context=context)
        self._executor = SingleThreadedExecutor(context=self.node.context)
        self._executor.add_node(self.node)
        self._goal = Segment.Goal
        self._actions = ActionClient(self.node, Segment, f"{target}/segment")
        self._tf: Any = None

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()

    def ask(
        self, query: str, on_thinking: Callable[[str], object], patience_s: float = 30.0
    ) -> SegmentationResult:
        """Ask, and hear the thinking meanwhile.

        Args:
            query: What to find.
            on_thinking: Called with each new piece of the reasoning.
            patience_s: For the node to be there and to take the goal [s].

        Raises:
            RuntimeError: The node is not there or does not take the question.
        """
        shown = 0

        def on_feedback(msg: Any) -> None:
            nonlocal shown
            on_thinking(msg.feedback.thinking[shown:])
            shown = max(shown, len(msg.feedback.thinking))

        if not self._actions.wait_for_server(timeout_sec=patience_s):
            raise RuntimeError("segzero is not there; is it started, and in this ROS_DOMAIN_ID?")
        handle = self._wait(
            self._actions.send_goal_async(self._goal(query=query), on_feedback), patience_s
        )
        if not handle.accepted:
            raise RuntimeError("segzero does not take the question; ~/status tells why")
        result = self._wait(handle.get_result_async(), None).result.result
        on_thinking(result.thinking[shown:])
        return result

    def _wait(self, future: Any, timeout_s: float | None) -> Any:
        self._executor.spin_until_future_complete(future, timeout_s)
        if not future.done():
            raise RuntimeError("segzero did not answer in time")
        return future.result()

    def listen_to_tf(self) -> None:
        """Hear TF from now on; call it some time before the first question.

        Raises:
            ImportError: tf2_ros is not installed.
        """
        import tf2_ros

        self._tf = tf2_ros.Buffer(node=self.node)
        self._listener = tf2_ros.TransformListener(self._tf, self.node)

    def place(self, base_frame: str, header: Header) -> Place:
        """Look up where the frame of `pose_header` was **at the image's stamp**, not now.

        Raises:
            Exception: What tf2_ros raises where there is no such transform at that stamp.
        """
        found = self._tf.lookup_transform(base_frame, header.frame_id, header.stamp).transform
        shift, turn = found.translation, found.rotation
        return Place(
            rotation_of(turn.x, turn.y, turn.z, turn.w), np.array([shift.x, shift.y, shift.z])
        )


class DryRun:
    """A gripper that only tells what it would do."""

    def move_to(self, position_m: NDArray[Any], rotation: NDArray[Any], speed_m_s: float) -> bool:
        """Tell it."""
        x, y, z = (round(float(each), 3) for each in position_m)
        print(f"move to x {x} y {y} z {z} m at {speed_m_s} m/s")
        return True

    def open(self, width_m: float) -> None:
        """Tell it."""
        print(f"open to {1000 * width_m:.0f} mm")

    def close(self) -> bool:
        """Tell it."""
        print("close")
        return True


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, and print the motions; returns 0 if there is a grasp, 1 if not, 2 on failure."""
    import rclpy

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("query", help="what to pick up")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--camera-pose",
        type=float,
        nargs=7,
        metavar=("X", "Y", "Z", "QX", "QY", "QZ", "QW"),
        help="of the optical frame in the robot's base [m]",
    )
    where.add_argument("--base-frame", help="the grasps brought there by TF, at the image's stamp")
    arguments = parser.parse_args(argv)
    rclpy.init()
    client = Client()
    try:
        if arguments.base_frame:
            client.listen_to_tf()
        result = client.ask(arguments.query, lambda text: print(text, end="", flush=True))
        print()
        decision = decide(answer_from_msg(result))
        if decision.step is not Step.GRASP:
            print(f"{decision.step.value} {decision.detail}".rstrip())
            return 2 if decision.step is Step.FAILED else 1
        if arguments.base_frame:
            place = client.place(arguments.base_frame, result.pose_header)
        else:
            place = camera_place(result, arguments.camera_pose)
        pick(DryRun(), [place.of(grasp) for grasp in decision.grasps])
    except RuntimeError as error:
        print(f"grasp_client: {error}", file=sys.stderr)
        return 2
    finally:
        client.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
