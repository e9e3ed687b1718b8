"""What a client hears when a process dies, answers late or not at all; and the benchmark's arm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from examples.pick_and_place.interfaces import Image, Moved, RobotError, Sight
from examples.pick_and_place.ros.eyes import RosEyes
from examples.pick_and_place.ros.panda_node import Cells, PandaNode
from examples.pick_and_place.ros.robot import SimulatedRobot
from examples.pick_and_place.ros.transforms import TF
from segzero_core.depth import CameraModel
from segzero_core.testing.fakes import fake_segzero
from segzero_ros.srv import BeginEpisode
from tests.fake_cell import DOWN, FakeCell
from tests.ros.conftest import Graph
from tests.ros.scripted import NOTHING, SIZE_WH, THINKING, TWO_OBJECTS, GatedReasoner, pipeline_of
from worlds.libero.package import COMMAND, missing_modules

PATIENCE_S = 30.0


def spun(graph: Graph, name: str = "client") -> Node:
    node = Node(name, context=graph.context)
    graph.spin(node)
    return node


@pytest.fixture
def image() -> Image:
    width, height = SIZE_WH
    camera = CameraModel(np.array([[90.0, 0, 50], [0, 90.0, 50], [0, 0, 1]]), (), SIZE_WH)
    color = np.full((height, width, 3), 90, np.uint8)
    depth_m = np.ones((height, width), np.float32)
    return Image(color, depth_m, camera, np.eye(3), np.zeros(3))


def test_the_nodes_masks_come_back_whole(
    graph: Graph, start_node: Callable[..., Any], image: Image
) -> None:
    start_node(fake_segzero(TWO_OBJECTS))
    sight = RosEyes(spun(graph), patience_s=PATIENCE_S).find("the mugs", image)
    assert (sight.error, sight.thinking) == ("", THINKING)
    assert sight.masks.shape == (2, *image.depth_m.shape)
    rows, columns = np.nonzero(sight.masks[0])
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (10, 10, 30, 40)


def test_nothing_found_is_an_answer_without_masks(
    graph: Graph, start_node: Callable[..., Any], image: Image
) -> None:
    start_node(fake_segzero(NOTHING))
    sight = RosEyes(spun(graph), patience_s=PATIENCE_S).find("the fruit", image)
    assert (sight.error, len(sight.masks)) == ("", 0)


def test_a_node_that_is_not_there_is_said_so(graph: Graph, image: Image) -> None:
    assert "/segzero is not there" in RosEyes(spun(graph), patience_s=0.5).find("it", image).error


def test_an_answer_that_is_late_is_not_waited_for(
    graph: Graph, start_node: Callable[..., Any], image: Image
) -> None:
    reasoner = GatedReasoner()
    node = start_node(pipeline_of(reasoner))
    sight = RosEyes(spun(graph), patience_s=1.0).find("the mug", image)
    assert sight.error
    assert not len(sight.masks)
    reasoner.gate.set()
    graph.wait_until(lambda: node.queries.is_accepting)


def test_a_node_that_ends_while_it_answers_is_noticed(
    graph: Graph, start_node: Callable[..., Any], image: Image
) -> None:
    reasoner = GatedReasoner()
    node = start_node(pipeline_of(reasoner))
    eyes, sights = RosEyes(spun(graph), patience_s=PATIENCE_S), []
    asking = threading.Thread(target=lambda: sights.append(eyes.find("the mug", image)))
    asking.start()
    assert reasoner.waiting.wait(PATIENCE_S)
    reasoner.gate.set()
    graph.end(node)
    asking.join(2 * PATIENCE_S)
    (sight,) = sights
    assert isinstance(sight, Sight)
    assert sight.error or len(sight.masks)  # it may just have been done


@pytest.fixture
def arm() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "tests.ros.robot.fake_arm"], env=os.environ)
    yield process
    process.kill()
    process.wait()


def begun(graph: Graph) -> SimulatedRobot:
    robot = SimulatedRobot(spun(graph), patience_s=PATIENCE_S)
    robot.begin(BeginEpisode.Request(suite="fake"))
    return robot


@pytest.mark.slow
def test_an_arm_that_is_killed_in_a_motion_is_noticed(
    graph: Graph, arm: subprocess.Popen[bytes]
) -> None:
    began_m = begun(graph).position_m()
    robot, node = SimulatedRobot(spun(graph, "impatient"), patience_s=8.0), spun(graph, "killer")

    def kill(msg: TFMessage) -> None:
        if abs(msg.transforms[0].transform.translation.x - began_m[0]) > 0.01:
            arm.kill()

    node.create_subscription(TFMessage, "/tf", kill, TF)
    with pytest.raises(RobotError, match=r"has ended|said nothing"):
        robot.move_to(np.array([0.3, -0.1, 0.2]), DOWN, slow=True)
    with pytest.raises(RobotError, match=r"is not there|did not take a goal"):
        robot.open()


@pytest.mark.slow
def test_an_arm_that_is_interrupted_ends_cleanly(
    graph: Graph, arm: subprocess.Popen[bytes]
) -> None:
    robot = begun(graph)
    assert robot.move_to(np.array([0.05, -0.1, 0.25]), DOWN) is Moved.REACHED
    arm.send_signal(signal.SIGINT)
    assert arm.wait(PATIENCE_S) == 0


def carry_out(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "examples.pick_and_place", "--patience", "10", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)


@pytest.mark.slow
def test_the_command_says_in_one_line_who_is_missing(arm: subprocess.Popen[bytes]) -> None:
    ended = carry_out("--episode", "fake", "0", "0")
    assert (ended.returncode, ended.stderr) == (1, "")
    order, why, judged = ended.stdout.splitlines()
    assert order == f"“{FakeCell.instruction}”"
    assert "/segzero is not there" in why
    assert judged == "the task's goal does not hold"
    ended = carry_out("--episode", "other", "0", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "pick_and_place: error: unknown suite 'other'\n"


@pytest.mark.slow
def test_the_command_without_an_arm_cannot_try() -> None:
    ended = carry_out("--episode", "fake", "0", "0", "--patience", "1")
    assert ended.returncode == 2
    assert ended.stderr.startswith("pick_and_place: error: /panda is not there")


@pytest.mark.libero
@pytest.mark.slow
@pytest.mark.skipif(
    bool(missing_modules()), reason=f"the extra libero is not installed: {COMMAND}"
)
def test_the_benchmarks_arm_sees_moves_and_is_judged_over_ros(graph: Graph) -> None:
    graph.spin(PandaNode(Cells(), context=graph.context))
    robot = SimulatedRobot(spun(graph), patience_s=60.0)
    suite = "libero_object_swap"
    with pytest.raises(RobotError, match="has no task 99"):
        robot.begin(BeginEpisode.Request(suite=suite, task=99))
    assert "basket" in robot.begin(BeginEpisode.Request(suite=suite))
    image, hand, turned = robot.look(), robot.position_m(), robot.rotation()
    assert 0.3 < np.nanmedian(image.depth_m) < 3
    assert turned[2, 2] == pytest.approx(-1, abs=0.01)
    assert robot.opening_m() > 0.07
    goal = hand + np.array([0.0, 0.05, 0.05])
    assert robot.move_to(goal, turned) is Moved.REACHED
    assert robot.position_m() == pytest.approx(goal, abs=0.006)
    robot.close()
    assert robot.opening_m() < 0.01
    assert robot.move_to(hand + np.array([2.0, 0.0, 0.0]), turned) is Moved.OUT_OF_REACH
    end = robot.end()
    assert not end.succeeded
    assert end.steps > 12
    robot.begin(BeginEpisode.Request(suite=suite, state=1))
    assert robot.position_m() == pytest.approx(hand, abs=0.01)
