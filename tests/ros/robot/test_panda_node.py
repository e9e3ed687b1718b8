"""An arm over ROS: what it says of itself, how motions end, and what a client hears of faults."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from std_msgs.msg import Header

from examples.pick_and_place.client import Client
from examples.pick_and_place.interfaces import Fault, Moved, RobotError
from examples.pick_and_place.libero_robot import image_of
from examples.pick_and_place.ros.calls import in_spinner, wait
from examples.pick_and_place.ros.panda_node import PandaNode
from examples.pick_and_place.ros.robot import Names, SimulatedRobot
from segzero_ros.action import MoveHand
from segzero_ros.srv import BeginEpisode
from tests.fake_cell import DOWN, FakeCell, FakeCells, FakeEyes
from tests.ros.conftest import Graph

PATIENCE_S = 20.0
IMPATIENT_S = 0.5
EPISODE = BeginEpisode.Request(suite="fake", task=0, state=0)


@pytest.fixture
def cell() -> FakeCell:
    return FakeCell()


class Arms:
    """A robot node, and clients of it."""

    def __init__(self, graph: Graph, cell: FakeCell) -> None:
        self._graph, self.cells = graph, FakeCells(cell)
        self.node = PandaNode(self.cells, context=graph.context)
        graph.spin(self.node)
        self._is_there = True

    def client(self, patience_s: float = PATIENCE_S, **names: Any) -> SimulatedRobot:
        node = Node("client", context=self._graph.context)
        robot = SimulatedRobot(node, Names(**names), patience_s)
        self._graph.spin(node)
        return robot

    def end(self) -> None:
        """End the node as its process would."""
        if self._is_there:
            self._is_there = False
            self._graph.end(self.node)


@pytest.fixture
def arms(graph: Graph, cell: FakeCell) -> Iterator[Arms]:
    arms = Arms(graph, cell)
    yield arms
    cell.gate.set()
    arms.end()


@pytest.fixture
def robot(arms: Arms) -> SimulatedRobot:
    robot = arms.client()
    assert robot.begin(EPISODE) == FakeCell.instruction
    return robot


def test_a_client_carries_out_an_order_over_ros_and_the_judge_agrees(
    robot: SimulatedRobot, cell: FakeCell
) -> None:
    outcome = Client(robot, FakeEyes(cell)).carry_out(cell.instruction)
    assert outcome.done, outcome
    end = robot.end()
    assert end.succeeded
    assert end.steps == cell.steps > 0


def test_image_hand_and_opening_are_those_of_the_cell(
    robot: SimulatedRobot, cell: FakeCell
) -> None:
    image, known = robot.look(), image_of(cell, "agentview")
    assert np.array_equal(image.color, known.color)
    assert np.array_equal(image.depth_m, known.depth_m, equal_nan=True)
    assert image.camera.k == pytest.approx(known.camera.k)
    assert image.rotation == pytest.approx(known.rotation, abs=1e-9)
    assert image.position_m == pytest.approx(known.position_m)
    assert robot.position_m() == pytest.approx([0.0, -0.10, 0.25])
    assert robot.rotation() == pytest.approx(DOWN, abs=1e-9)
    assert robot.opening_m() == pytest.approx(0.08)


def test_what_is_seen_after_a_motion_shows_its_end(robot: SimulatedRobot, cell: FakeCell) -> None:
    before = robot.look()
    goal = np.array([0.05, -0.05, 0.2])
    assert robot.move_to(goal, DOWN) is Moved.REACHED
    assert robot.position_m() == pytest.approx(goal, abs=0.005)
    cell.plate = cell.brick
    robot.close()
    assert robot.opening_m() == pytest.approx(0.0)
    assert not np.array_equal(robot.look().depth_m, before.depth_m)


def test_the_hands_camera_moves_with_it(robot: SimulatedRobot, arms: Arms) -> None:
    hand_camera = arms.client(camera="/hand")
    image = hand_camera.look()
    assert np.isfinite(image.depth_m).any()


def test_motions_end_blocked_or_out_of_reach_with_a_clear_word(
    robot: SimulatedRobot, cell: FakeCell
) -> None:
    cell.wall_x = 0.03
    assert robot.move_to(np.array([0.1, -0.1, 0.2]), DOWN) is Moved.BLOCKED
    steps = cell.steps
    assert robot.move_to(np.array([3.0, 0.0, 0.2]), DOWN) is Moved.OUT_OF_REACH
    assert cell.steps == steps


def test_an_episodes_steps_are_all_that_it_gets(robot: SimulatedRobot, cell: FakeCell) -> None:
    robot.begin(BeginEpisode.Request(suite="fake", max_steps=3))
    assert robot.move_to(np.array([0.1, 0.1, 0.1]), DOWN, slow=True) is Moved.STOPPED
    assert robot.out_of_time()
    assert cell.steps == 3
    robot.begin(EPISODE)
    assert not robot.out_of_time()


def far_goal(**changes: Any) -> MoveHand.Goal:
    pose = PoseStamped(header=Header(frame_id="world"))
    pose.pose.position.x, pose.pose.position.z, pose.pose.orientation.x = 0.2, 0.3, 1.0
    goal = MoveHand.Goal(pose=pose, speed=0.3)
    for name, value in changes.items():
        setattr(goal, name, value)
    return goal


def send(robot: SimulatedRobot, goal: MoveHand.Goal, on_feedback: Any = None) -> Any:
    actions = robot._motions
    assert actions.wait_for_server(timeout_sec=PATIENCE_S)
    sent = in_spinner(robot._node, lambda: actions.send_goal_async(goal, on_feedback))
    assert wait(sent, PATIENCE_S)
    return sent.result()


def result_of(robot: SimulatedRobot, handle: Any) -> tuple[int, MoveHand.Result]:
    future = in_spinner(robot._node, handle.get_result_async)
    assert wait(future, PATIENCE_S)
    return future.result().status, future.result().result


def test_a_cancelled_motion_ends_at_rest_and_says_so(
    robot: SimulatedRobot, cell: FakeCell
) -> None:
    heard: list[Any] = []
    moving = threading.Event()

    def hear(msg: Any) -> None:
        heard.append(msg.feedback)
        moving.set()

    handle = send(robot, far_goal(), hear)
    assert moving.wait(PATIENCE_S)
    cell.gate.clear()
    assert wait(in_spinner(robot._node, handle.cancel_goal_async), PATIENCE_S)
    cell.gate.set()
    status, result = result_of(robot, handle)
    assert (status, result.outcome) == (GoalStatus.STATUS_CANCELED, MoveHand.Result.CANCELLED)
    assert 0 < heard[0].remaining_m < 1
    assert heard[0].opening_m == pytest.approx(0.08)
    steps = cell.steps
    robot.look()
    assert cell.steps == steps


def test_a_second_motion_is_refused_while_one_runs(robot: SimulatedRobot, cell: FakeCell) -> None:
    cell.gate.clear()
    first = send(robot, far_goal())
    assert cell.stepping.wait(PATIENCE_S)
    status, result = result_of(robot, send(robot, far_goal()))
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, MoveHand.Result.REFUSED)
    assert "another motion" in result.message
    cell.gate.set()
    assert result_of(robot, first)[1].outcome == MoveHand.Result.REACHED


def elsewhere() -> PoseStamped:
    return PoseStamped(header=Header(frame_id="kitchen"))


def nowhere() -> PoseStamped:
    pose = PoseStamped(header=Header(frame_id="world"))
    pose.pose.position.x = float("nan")
    return pose


def unturned() -> PoseStamped:
    pose = PoseStamped(header=Header(frame_id="world"))
    pose.pose.orientation.w = 0.0
    return pose


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"speed": 1.5}, "speed is 1.5"),
        ({"speed": float("nan")}, "speed is nan"),
        ({"fingers": 7}, "fingers is 7"),
        ({"pose": elsewhere()}, "'kitchen'"),
        ({"pose": nowhere()}, "not finite"),
        ({"pose": unturned()}, "no quaternion"),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused_in_words(
    robot: SimulatedRobot, cell: FakeCell, changes: dict[str, Any], reason: str
) -> None:
    _, result = result_of(robot, send(robot, far_goal(**changes)))
    assert result.outcome == MoveHand.Result.REFUSED
    assert reason in result.message
    assert cell.steps == 0


def test_without_an_episode_nothing_moves(arms: Arms) -> None:
    robot = arms.client()
    with pytest.raises(RobotError, match="no episode runs"):
        robot.move_to(np.zeros(3), DOWN)
    with pytest.raises(RobotError, match="no episode runs"):
        robot.end()
    with pytest.raises(RobotError, match="unknown suite 'other'"):
        robot.begin(BeginEpisode.Request(suite="other"))


def test_a_step_that_fails_is_refused_and_the_next_motion_works(
    robot: SimulatedRobot, cell: FakeCell
) -> None:
    act = cell.act

    def fail(*_: Any) -> None:
        raise RuntimeError("the physics diverged")

    cell.act = fail  # type: ignore[method-assign]
    with pytest.raises(RobotError, match="the physics diverged"):
        robot.close()
    cell.act = act  # type: ignore[method-assign]
    robot.close()
    assert robot.opening_m() == pytest.approx(0.0)


def test_a_new_episode_ends_the_motion_under_way(robot: SimulatedRobot, cell: FakeCell) -> None:
    cell.gate.clear()
    handle = send(robot, far_goal())
    assert cell.stepping.wait(PATIENCE_S)
    beginning = threading.Thread(target=robot.begin, args=(EPISODE,))
    beginning.start()
    cell.gate.set()
    assert result_of(robot, handle)[1].outcome == MoveHand.Result.CANCELLED
    beginning.join(PATIENCE_S)
    assert cell.steps == 0


# What a client hears when the robot does not do its part.


def carry_out(robot: SimulatedRobot, cell: FakeCell) -> Any:
    return Client(robot, FakeEyes(cell)).carry_out(cell.instruction)


def test_an_arm_that_is_not_there_is_said_so(graph: Graph, cell: FakeCell) -> None:
    node = Node("client", context=graph.context)
    robot = SimulatedRobot(node, patience_s=IMPATIENT_S)
    graph.spin(node)
    with pytest.raises(RobotError, match="/panda is not there"):
        robot.begin(EPISODE)
    with pytest.raises(RobotError, match="/panda is not there"):
        robot.open()
    outcome = carry_out(robot, cell)
    assert outcome.fault is Fault.ROBOT
    assert "no transform from 'world' to 'panda_hand_tcp'" in outcome.about


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"camera": "/nowhere"}, "nothing new on /nowhere/color/image_raw"),
        ({"base": "kitchen"}, "no transform from 'kitchen' to 'panda_hand_tcp'"),
    ],
)
def test_a_camera_or_a_transform_that_is_missing_ends_the_task(
    arms: Arms, cell: FakeCell, names: dict[str, str], reason: str
) -> None:
    robot = arms.client(8.0, **names)
    robot.begin(EPISODE)
    outcome = carry_out(robot, cell)
    assert outcome.fault is Fault.ROBOT
    assert reason in outcome.about
    assert cell.steps == 0
    with pytest.raises(RobotError, match=r"camera stopped|'agentview_optical_frame'"):
        robot.look()


def test_a_hand_or_fingers_that_nobody_tells_of_are_missed(arms: Arms) -> None:
    robot = arms.client(1.0, hand="claw", fingers=("claw_joint",))
    robot.begin(EPISODE)
    with pytest.raises(RobotError, match="no transform from 'world' to 'claw'"):
        robot.position_m()
    with pytest.raises(RobotError, match="claw_joint"):
        robot.opening_m()


def test_an_arm_that_hangs_in_a_motion_is_given_up_and_the_goal_cancelled(
    arms: Arms, cell: FakeCell
) -> None:
    robot = arms.client(2.0)
    robot.begin(EPISODE)
    cell.gate.clear()
    with pytest.raises(RobotError, match="said nothing for 2 s"):
        robot.move_to(np.array([0.1, 0.0, 0.2]), DOWN)
    cell.gate.set()
    again = arms.client()
    wait_for = threading.Event()
    steps = -1
    while steps != cell.steps:  # the arm comes to rest
        steps = cell.steps
        wait_for.wait(0.5)
    assert again.position_m()[0] < 0.1


def test_an_arm_that_dies_in_a_motion_is_noticed(
    arms: Arms, cell: FakeCell, robot: SimulatedRobot
) -> None:
    cell.gate.clear()
    errors: list[str] = []

    def move() -> None:
        try:
            robot.move_to(np.array([0.1, 0.0, 0.2]), DOWN)
        except RobotError as error:
            errors.append(str(error))

    moving = threading.Thread(target=move)
    moving.start()
    assert cell.stepping.wait(PATIENCE_S)
    cell.gate.set()
    arms.end()
    moving.join(2 * PATIENCE_S)
    assert len(errors) == 1
    assert "ended" in errors[0] or "said nothing" in errors[0]
    assert arms.cells.is_closed
