"""Put an answer's objects and grasps into MoveIt 2's planning scene, to be copied.

    ros2 run segzero_ros ask "the red mug"        # the node answers on /segzero/result
    python examples/moveit_planning_scene.py

It hears `~/result` and publishes each object that has a pose as a box (a CollisionObject) to
`/planning_scene`, under the names `segzero_1`, `segzero_2` …; what the answer before put there is
taken away. The first object's grasps go out as MoveIt's own `Grasp` messages, which MoveIt Task
Constructor's stages and older pick pipelines read.

Run the node with `target_frame` set to the planning frame, or to any frame of the robot with z up:
then poses and grasps are in that frame, and the boxes stand upright. The frame is read from the
result's `pose_header`.

MoveIt is imported only when a message is made, so this file can be read, imported and tested
without it. It was not run with MoveIt where it was written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from segzero_ros.msg import ObjectInstance, SegmentationResult

PREFIX: Final = "segzero_"
PADDING_M: Final = 0.005
"""Boxes are made so much larger on every side: a plan keeps off by it."""
PRE_GRASP_M: Final = 0.12
LIFT_M: Final = 0.20
FINGER_JOINTS: Final = ("panda_finger_joint1", "panda_finger_joint2")


def collision_object(instance: ObjectInstance, frame_id: str, stamp: Any) -> Any:
    """Build moveit_msgs/CollisionObject: the box around an object.

    Args:
        instance: Of a result, with a pose.
        frame_id: Of the result's `pose_header`.
        stamp: Of the same.

    Raises:
        ImportError: moveit_msgs is not installed.
        ValueError: The object has no pose.
    """
    from moveit_msgs.msg import CollisionObject
    from shape_msgs.msg import SolidPrimitive

    if not instance.has_pose:
        raise ValueError(f"object {instance.id} has no pose; the node's ~/status tells why")
    size = instance.size_m
    box = SolidPrimitive(
        type=SolidPrimitive.BOX,
        dimensions=[side + 2 * PADDING_M for side in (size.x, size.y, size.z)],
    )
    made = CollisionObject(id=f"{PREFIX}{instance.id}", operation=CollisionObject.ADD)
    made.header.frame_id, made.header.stamp = frame_id, stamp
    made.primitives, made.primitive_poses = [box], [instance.pose]
    return made


def removal(number: int, frame_id: str) -> Any:
    """Build the CollisionObject that takes an object of an earlier answer away.

    Raises:
        ImportError: moveit_msgs is not installed.
    """
    from moveit_msgs.msg import CollisionObject

    made = CollisionObject(id=f"{PREFIX}{number}", operation=CollisionObject.REMOVE)
    made.header.frame_id = frame_id
    return made


def planning_scene(result: SegmentationResult, known: int) -> Any:
    """Build the moveit_msgs/PlanningScene difference that shows an answer.

    Args:
        result: The answer.
        known: How many objects the last answer put there.

    Raises:
        ImportError: moveit_msgs is not installed.
    """
    from moveit_msgs.msg import PlanningScene

    scene = PlanningScene(is_diff=True)
    scene.robot_state.is_diff = True
    shown = [each for each in result.instances if each.has_pose]
    frame_id, stamp = result.pose_header.frame_id, result.pose_header.stamp
    objects = [collision_object(each, frame_id, stamp) for each in shown]
    numbers = {each.id for each in shown}
    objects += [removal(n, frame_id) for n in range(1, known + 1) if n not in numbers]
    scene.world.collision_objects = objects
    return scene


def moveit_grasps(
    instance: ObjectInstance,
    frame_id: str,
    stamp: Any,
    finger_joints: Sequence[str] = FINGER_JOINTS,
) -> list[Any]:
    """Build moveit_msgs/Grasp of an object, best first.

    A grasp's pose is that of segzero's gripper frame (z the approach, x the closing axis, origin
    between the tips). Where the robot's end effector has other axes, or its origin at the wrist,
    multiply the pose by that constant transform here.

    Args:
        instance: Of a result.
        frame_id: As for `collision_object`.
        stamp: As for `collision_object`.
        finger_joints: Of the gripper; each moves by half the opening.

    Raises:
        ImportError: moveit_msgs is not installed.
    """
    from moveit_msgs.msg import Grasp, GripperTranslation
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    def fingers(width_m: float) -> Any:
        point = JointTrajectoryPoint(positions=[width_m / 2] * len(finger_joints))
        point.time_from_start.sec = 1
        return JointTrajectory(joint_names=list(finger_joints), points=[point])

    def straight(x: float, y: float, z: float, frame: str, way_m: float) -> Any:
        made = GripperTranslation(desired_distance=way_m, min_distance=way_m / 2)
        made.direction.header.frame_id = frame
        made.direction.vector.x, made.direction.vector.y, made.direction.vector.z = x, y, z
        return made

    grasps = []
    for number, candidate in enumerate(instance.grasps, start=1):
        made = Grasp(id=f"{PREFIX}{instance.id}_{number}", grasp_quality=float(candidate.score))
        made.grasp_pose.header.frame_id = frame_id
        made.grasp_pose.header.stamp = stamp
        made.grasp_pose.pose = candidate.pose
        made.pre_grasp_posture = fingers(candidate.width_m)
        made.grasp_posture = fingers(0.0)
        axis = _approach(candidate.pose.orientation)
        made.pre_grasp_approach = straight(*axis, frame_id, PRE_GRASP_M)
        made.post_grasp_retreat = straight(0.0, 0.0, 1.0, frame_id, LIFT_M)
        made.allowed_touch_objects = [f"{PREFIX}{instance.id}"]
        grasps.append(made)
    return grasps


def _approach(turn: Any) -> tuple[float, float, float]:
    """Return the z axis of an orientation."""
    x, y, z, w = turn.x, turn.y, turn.z, turn.w
    return 2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)


class SceneKeeper:
    """Shows every answer of the node in the planning scene.

    Args:
        node: Of rclpy; it must be spun.
        on_grasps: Called with the grasps of each answer's first object that has any.
    """

    def __init__(self, node: Any, on_grasps: Callable[[list[Any]], object]) -> None:
        from moveit_msgs.msg import PlanningScene

        from segzero_ros import qos
        from segzero_ros.msg import SegmentationResult

        self._on_grasps, self._known = on_grasps, 0
        self._scenes = node.create_publisher(PlanningScene, "/planning_scene", 10)
        node.create_subscription(SegmentationResult, "/segzero/result", self._show, qos.RESULT)

    def _show(self, result: SegmentationResult) -> None:
        if result.error_code:
            return  # what was known before still stands there
        self._scenes.publish(planning_scene(result, self._known))
        self._known = max([self._known, *(each.id for each in result.instances)])
        for instance in result.instances:
            if instance.grasps:
                header = result.pose_header
                self._on_grasps(moveit_grasps(instance, header.frame_id, header.stamp))
                return


def main(argv: Sequence[str] | None = None) -> int:
    """Keep the planning scene until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    import rclpy

    rclpy.init()
    node = rclpy.create_node("segzero_planning_scene")
    try:
        keeper = SceneKeeper(node, lambda grasps: print(f"{len(grasps)} grasps"))
        assert keeper is not None  # it lives as long as the node is spun
        rclpy.spin(node)
    except ImportError as error:
        print(f"moveit_planning_scene: MoveIt 2 is needed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
