"""The benchmark's simulated Panda as a ROS 2 robot: the process that alone touches the simulator.

    python -m examples.pick_and_place.ros.panda_node

docs/libero.md has its topics, its action and its services. Stamps are of the wall clock. Physics
goes on only while a motion runs, so an image that is published at rest shows the moment of its
stamp, however long ago it was drawn.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future as Outcome
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np
import rclpy
from builtin_interfaces.msg import Time as TimeMsg
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from examples.pick_and_place.interfaces import Floats, Moved
from examples.pick_and_place.libero_robot import LiberoRobot, intrinsic_matrix
from examples.pick_and_place.ros.robot import MOVED, PARTS, Names
from examples.pick_and_place.ros.transforms import (
    TF,
    TF_STATIC,
    Pose,
    rotation_of,
    transform_msg,
    vector_of,
)
from segzero_core.errors import SegZeroError
from segzero_ros.action import MoveHand
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.executor import ExecutorThread, wake
from segzero_ros.srv import BeginEpisode, EndEpisode
from worlds.common.camera_pose import IMAGE_SIZE_WH
from worlds.libero.benchmark.suites import BenchmarkError, Task, open_suite
from worlds.libero.package import LiberoMissingError
from worlds.libero.robot.cell import CAMERAS, CameraView, Cell

IMAGE_RATE_HZ: Final = 5.0
"""At rest; a camera is drawn anew when something has moved, and only if somebody listens."""
_REST_STEPS: Final = 2
_NO_LIMIT: Final = sys.maxsize
_OUTCOMES: Final = {
    moved: outcome for outcome, moved in MOVED.items() if moved is not Moved.STOPPED
}
FIXED: Final = "agentview"
"""The camera that stands still."""


class StoppedError(Exception):
    """The motion under way is to end."""


class Cells:
    """Builds the cells of tasks; the last one is used again for other states of its task."""

    def __init__(self) -> None:
        self._cell: Cell | None = None

    def __call__(self, suite: str, index: int, state: int) -> Cell:
        """The cell of a task at an initial state.

        Raises:
            BenchmarkError: There is no such task or state.
        """
        task = find_task(suite, index, state)
        if self._cell is None or (self._cell.task.suite, self._cell.task.index) != (suite, index):
            self.close()
            self._cell = Cell(task)
        self._cell.task = task
        self._cell.begin(state)
        return self._cell

    def close(self) -> None:
        """Give the last one back."""
        if self._cell is not None:
            self._cell.close()
            self._cell = None


@lru_cache(maxsize=4)
def find_task(suite: str, index: int, state: int) -> Task:
    """A task of a suite; a BenchmarkError where there is none."""
    for task in open_suite(suite, state + 1)[0]:
        if task.index == index:
            return task
    raise BenchmarkError(f"{suite} has no task {index} with a file and initial states")


class PandaNode(Node):
    """A Panda: MoveHand, two cameras, TF, the gripper's joint states, and episodes.

    Args:
        cells: Begins episodes, and is closed in the end.
        context: Of rclpy.
    """

    def __init__(self, cells: Cells, context: Any = None) -> None:
        super().__init__("panda", context=context)
        self._cells, self._names = cells, Names()
        self._cell: Any = None
        self._robot: LiberoRobot | None = None
        self._goal: ServerGoalHandle | None = None
        self._give_up = threading.Event()
        self._views: dict[str, tuple[int, CameraView]] = {}
        self._drawing: Outcome[None] | None = None
        # A thread of its own: a renderer belongs to the thread that opened it.
        self._simulator = ThreadPoolExecutor(1, "simulator")
        self._tf = self.create_publisher(TFMessage, "/tf", TF)
        self._tf_static = self.create_publisher(TFMessage, "/tf_static", TF_STATIC)
        self._joints = self.create_publisher(JointState, "joint_states", QoSProfile(depth=10))
        self._cameras = {
            name: {
                part: self.create_publisher(kind, f"{name}/{part}", QoSProfile(depth=1))
                for part, kind in PARTS.items()
            }
            for name in CAMERAS
        }
        group = ReentrantCallbackGroup()
        self._server = ActionServer(
            self,
            MoveHand,
            "~/move_hand",
            self._execute,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=group,
            result_timeout=10,
        )
        for kind, name, job in (
            (BeginEpisode, "~/begin_episode", self._begin),
            (EndEpisode, "~/end_episode", self._end),
        ):
            serve = partial(self._serve, job)
            self.create_service(kind, name, serve, callback_group=group)
        self.create_timer(1.0 / IMAGE_RATE_HZ, self._on_timer)

    def destroy_node(self) -> None:
        """Stop the arm, and let go of the simulator; the executor must not spin any more."""
        self._give_up.set()
        self._server.destroy()
        self._simulator.submit(self._cells.close)
        self._simulator.shutdown()
        super().destroy_node()

    def _in_simulator(self, job: Callable[[], Any]) -> Future:
        """Do something in the simulator's thread; to be awaited."""
        future = Future(executor=self.executor)

        def tell(outcome: Outcome[Any]) -> None:
            if error := outcome.exception():
                future.set_exception(error)
            else:
                future.set_result(outcome.result())
            wake(self.executor)

        self._simulator.submit(job).add_done_callback(tell)
        return future

    async def _serve(self, job: Callable[[Any, Any], None], request: Any, response: Any) -> Any:
        self._give_up.set()  # whatever moves
        try:
            await self._in_simulator(lambda: job(request, response))
        except Exception as error:
            known = (BenchmarkError, LiberoMissingError)
            if not isinstance(error, known):
                self.get_logger().error(f"an episode's service failed: {error!r}")
            response.message = str(error) if isinstance(error, known) else repr(error)
        return response

    def _begin(self, request: BeginEpisode.Request, response: BeginEpisode.Response) -> None:
        self._robot, self._cell = None, None
        self._views.clear()
        cell = self._cells(request.suite, request.task, request.state)
        self._give_up.clear()
        self._cell = cell
        self._robot = LiberoRobot(cell, request.max_steps or _NO_LIMIT)
        cell.on_step = self._on_step
        stamp = self._publish_state()
        view = cell.camera_pose(FIXED)
        pose = Pose(view.rotation, view.position_m)
        fixed = transform_msg(self._names.base, optical_frame(FIXED), pose, stamp)
        self._tf_static.publish(TFMessage(transforms=[fixed]))
        response.begun, response.instruction, response.stamp = True, cell.instruction, stamp

    def _end(self, _: EndEpisode.Request, response: EndEpisode.Response) -> None:
        if self._cell is None:
            raise BenchmarkError("no episode runs; begin one")
        response.ended, response.steps = True, self._cell.steps
        response.succeeded = self._cell.succeeded()
        self._robot, self._cell = None, None

    async def _execute(self, handle: ServerGoalHandle) -> MoveHand.Result:
        if self._goal is not None:
            handle.abort()
            return _refusal("another motion is under way")
        self._goal = handle
        try:
            result = await self._in_simulator(lambda: self._move(handle))
        except Exception as error:
            self.get_logger().error(f"a motion failed: {error!r}")
            result = _refusal(f"the motion failed: {error!r}")
        finally:
            self._goal = None
        if result.outcome == MoveHand.Result.REACHED:
            handle.succeed()
        elif result.outcome == MoveHand.Result.CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _move(self, handle: ServerGoalHandle) -> MoveHand.Result:
        robot, goal = self._robot, handle.request
        if robot is None:
            return _refusal("no episode runs; begin one")
        try:
            pose = self._pose_of(goal)
        except ValueError as error:
            return _refusal(str(error))
        try:
            moved = robot.drive(*pose, _speed(goal)) if pose else Moved.REACHED
            if goal.fingers == MoveHand.Goal.OPEN:
                robot.open()
            elif goal.fingers == MoveHand.Goal.CLOSE:
                robot.close()
        except StoppedError:
            self._cell.on_step = self._publish_state
            robot.rest(_REST_STEPS)
            self._cell.on_step = self._on_step
            moved = Moved.STOPPED
        outcome = _OUTCOMES.get(moved, MoveHand.Result.CANCELLED)
        if robot.out_of_time():
            outcome = MoveHand.Result.OUT_OF_TIME
        return MoveHand.Result(outcome=outcome, message=moved.value, stamp=self._publish_state())

    def _pose_of(self, goal: MoveHand.Goal) -> tuple[Floats, Floats] | None:
        """Position and rotation of a goal, if it has one; a ValueError says what is wrong."""
        frame = goal.pose.header.frame_id
        if not 0 <= goal.speed <= 1:
            raise ValueError(f"speed is {goal.speed:g}; above 0 to 1 are possible, and 0 means 1")
        if goal.fingers > MoveHand.Goal.CLOSE:
            raise ValueError(f"fingers is {goal.fingers}; KEEP, OPEN and CLOSE are possible")
        if not frame:
            return None
        if frame != self._names.base:
            raise ValueError(f"the pose is in {frame!r}; {self._names.base!r} is possible")
        position = vector_of(goal.pose.pose.position)
        if not np.isfinite(position).all():
            raise ValueError(f"the position is not finite: {position.tolist()}")
        try:
            return position, rotation_of(goal.pose.pose.orientation)
        except SegZeroError as error:
            raise ValueError(str(error)) from error

    def _on_step(self) -> None:
        """After every step of the controller."""
        handle = self._goal
        self._publish_state()
        if handle is None:
            return
        if handle.is_cancel_requested or self._give_up.is_set():
            raise StoppedError
        assert self._robot is not None
        feedback: Any = MoveHand.Feedback(opening_m=self._robot.opening_m())
        if goal := self._pose_of(handle.request):
            feedback.remaining_m = float(np.linalg.norm(goal[0] - self._robot.position_m()))
        handle.publish_feedback(feedback)

    def _publish_state(self) -> TimeMsg:
        """Publish the hand, its camera and its fingers; returns the stamp."""
        stamp = self.get_clock().now().to_msg()
        robot, base = self._robot, self._names.base
        assert robot is not None
        poses = {self._names.hand: Pose(robot.rotation(), robot.position_m())}
        for name in CAMERAS:
            if name != FIXED:
                camera = self._cell.camera_pose(name)
                poses[optical_frame(name)] = Pose(camera.rotation, camera.position_m)
        transforms = [transform_msg(base, frame, pose, stamp) for frame, pose in poses.items()]
        self._tf.publish(TFMessage(transforms=transforms))
        fingers = self._names.fingers
        each_m = robot.opening_m() / len(fingers)
        header = Header(stamp=stamp, frame_id=base)
        joints = JointState(header=header, name=fingers, position=[each_m] * len(fingers))
        self._joints.publish(joints)
        return stamp

    def _on_timer(self) -> None:
        if self._goal is None and (self._drawing is None or self._drawing.done()):
            self._drawing = self._simulator.submit(self._publish_images)

    def _publish_images(self) -> None:
        if self._robot is None:
            return
        for name, publishers in self._cameras.items():
            if any(each.get_subscription_count() for each in publishers.values()):
                view = self._look(name)
                header = Header(stamp=self._publish_state(), frame_id=optical_frame(name))
                color, depth, info = publishers.values()
                # Depth and calibration first: they are there when the image comes.
                depth.publish(msg_from_array(view.depth_mm, "16UC1", header))
                info.publish(_calibration(view, header))
                color.publish(msg_from_array(view.color, "rgb8", header))

    def _look(self, name: str) -> CameraView:
        steps, view = self._views.get(name, (-1, None))
        if view is None or steps != self._cell.steps:
            view = self._cell.look(name)
            self._views[name] = self._cell.steps, view
        return view


def optical_frame(camera: str) -> str:
    """The frame of a camera's images: x right, y down, z forward."""
    return f"{camera}_optical_frame"


def _speed(goal: MoveHand.Goal) -> float:
    return float(goal.speed) or 1.0


def _refusal(message: str) -> MoveHand.Result:
    return MoveHand.Result(outcome=MoveHand.Result.REFUSED, message=message)


def _calibration(view: CameraView, header: Header) -> CameraInfo:
    k = intrinsic_matrix(view.pose)
    width, height = IMAGE_SIZE_WH
    return CameraInfo(
        header=header,
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack((k, np.zeros((3, 1)))).ravel(),
    )


def run_process(cells: Cells, argv: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit code."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    node = PandaNode(cells)
    spinner = ExecutorThread(node)
    ended.wait()
    spinner.stop()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(run_process(Cells()))
