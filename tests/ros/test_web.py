"""`segzero web --node`: the page's questions go to a real node by its action."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from segzero_cli.demo.clip import find_clip, read_clip
from segzero_cli.web.answers import Question
from segzero_cli.web.robot import Robot, RobotError
from segzero_cli.web.uploads import encode_image
from segzero_core.errors import CancelledError, InputError
from segzero_core.testing.fakes import fake_segzero
from segzero_ros import qos
from segzero_ros.msg import Status
from tests.ros.conftest import wait_until
from tests.ros.scripted import NOTHING, SIZE_WH, THINKING, TWO_OBJECTS, GatedReasoner, pipeline_of


@pytest.fixture
def robot(own_domain: None) -> Iterator[Robot]:
    robot = Robot("/segzero", "/image")
    yield robot
    robot.close()


@pytest.fixture
def serve(start_node: Callable, client: Any, robot: Robot) -> Callable[..., Any]:
    """Start an active node whose camera the robot's page sees too."""

    def start(pipeline: Any) -> Any:
        node = start_node(pipeline)
        client.connect()
        wait_until(lambda: client._images.get_subscription_count() == 2)
        # Again and again: what is sent before the robot's side has seen the camera is lost.
        wait_until(lambda: client.send_image(node, SIZE_WH) and robot._camera._latest)
        wait_until(lambda: robot.state == "ready")
        return node

    return start


def ask(robot: Robot, image: bytes | None = None) -> dict[str, list[dict[str, Any]]]:
    events: dict[str, list[dict[str, Any]]] = {}
    for name, data in robot.answer(Question("the mugs", image), threading.Event()):
        events.setdefault(name, []).append(data)
    return events


def test_the_answer_is_about_the_image_that_the_node_saw(
    serve: Callable, robot: Robot, client: Any
) -> None:
    serve(fake_segzero(TWO_OBJECTS))
    events = ask(robot)

    assert "".join(data["text"] for data in events["thinking"]) == THINKING
    (image,) = events["image"]
    assert image["is_same"]
    jpeg = PilImage.open(io.BytesIO(base64.b64decode(image["jpeg"])))
    assert jpeg.size == SIZE_WH
    assert [each["box_xyxy"] for each in events["object"]] == [[10, 10, 30, 40], [50, 60, 90, 95]]
    assert [each["area_px"] for each in events["mask"]] == [600, 1400]
    assert events["mask"][1]["offset_xy"] == [50, 60]
    (done,) = events["done"]
    assert (done["query"], done["size_wh"]) == ("the mugs", list(SIZE_WH))
    assert done["model"]["name"] == "scripted"


def test_nothing_found_is_an_answer(serve: Callable, robot: Robot) -> None:
    serve(fake_segzero(NOTHING))

    assert ask(robot)["done"][0]["objects"] == []


def test_an_uploaded_image_goes_with_the_goal(serve: Callable, robot: Robot) -> None:
    serve(fake_segzero(TWO_OBJECTS))
    events = ask(robot, encode_image(np.zeros((50, 200, 3), np.uint8)))

    assert events["done"][0]["size_wh"] == [200, 50]
    assert "image" not in events  # the page has it


def test_the_live_view_is_the_cameras_newest_image(
    serve: Callable, robot: Robot, client: Any
) -> None:
    with pytest.raises(InputError, match="start the camera"):
        robot.camera_jpeg()
    node = serve(fake_segzero(NOTHING))

    def size() -> tuple[int, int]:
        return PilImage.open(io.BytesIO(robot.camera_jpeg())).size

    client.send_image(node, (60, 40))
    wait_until(lambda: size() == (60, 40))


def test_a_cancelled_question_cancels_the_goal(serve: Callable, robot: Robot, client: Any) -> None:
    reasoner = GatedReasoner()
    serve(pipeline_of(reasoner))
    cancel = threading.Event()
    answer = robot.answer(Question("the mugs", None), cancel)
    while next(answer)[0] != "thinking":
        pass
    cancel.set()
    with pytest.raises(CancelledError):
        list(answer)
    message = client.heard.wait("result").error_msg
    reasoner.gate.set()

    assert "cancelled by the client" in message


def test_the_page_outlives_a_node_that_ends_and_starts_again(
    serve: Callable, robot: Robot, graph: Any
) -> None:
    with pytest.raises(RobotError, match="start it in this ROS_DOMAIN_ID"):
        ask(robot)
    node = serve(fake_segzero(TWO_OBJECTS))
    assert "done" in ask(robot)
    graph.end(node)
    wait_until(lambda: "not there" in robot.state)
    with pytest.raises(RobotError, match="not there"):
        ask(robot)
    serve(fake_segzero(NOTHING))

    assert ask(robot)["done"][0]["objects"] == []


def test_a_node_that_restarts_during_an_answer_is_a_sentence(
    serve: Callable, robot: Robot, graph: Any
) -> None:
    reasoner = GatedReasoner()
    serve(pipeline_of(reasoner))
    answer = robot.answer(Question("the mugs", None), threading.Event())
    while next(answer)[0] != "thinking":
        pass
    other = Node("starts_again", context=graph.context)
    publisher = other.create_publisher(Status, "/segzero/status", qos.LATCHED)
    wait_until(lambda: publisher.get_subscription_count() >= 1)
    publisher.publish(Status(state=Status.LOADING))
    with pytest.raises(RobotError, match="ended before it answered"):
        list(answer)
    reasoner.gate.set()
    other.destroy_node()


def test_a_refused_question_says_why(start_node: Callable, client: Any, robot: Robot) -> None:
    start_node(fake_segzero(TWO_OBJECTS), autostart=False)
    wait_until(lambda: "not there" not in robot.state)
    with pytest.raises(RobotError, match="does not take the question; it says: not configured"):
        ask(robot)


def test_a_failure_of_the_node_is_its_sentence(
    start_node: Callable, client: Any, robot: Robot
) -> None:
    start_node(fake_segzero(TWO_OBJECTS))
    wait_until(lambda: robot.state == "ready")
    with pytest.raises(RobotError, match="no image"):
        ask(robot)


def test_poses_and_points_of_the_node_reach_the_page(
    start_node: Callable, client: Any, robot: Robot
) -> None:
    clip = find_clip("tabletop")
    assert clip is not None
    shot = read_clip(clip)[0]
    (x_min, y_min, x_max, y_max) = next(
        each.box_xyxy for each in shot.scene.objects if each.id in shot.question.ids
    )
    width, height = shot.scene.image_size_wh
    box = [x_min * 100 / width, y_min * 100 / height, x_max * 100 / width, y_max * 100 / height]
    objects = [{"bbox_2d": [round(edge) for edge in box], "point_2d": [1, 1]}]
    node = start_node(fake_segzero(f"<think>.</think><answer>{json.dumps(objects)}</answer>"))
    kinds = {
        "color": ("/image", Image),
        "depth": ("/depth/image", Image),
        "info": ("/camera_info", CameraInfo),
    }
    publishers = {
        key: client.node.create_publisher(kind, topic, 1) for key, (topic, kind) in kinds.items()
    }
    for key, expected in (("color", 2), ("depth", 1), ("info", 2)):
        wait_until(lambda key=key, n=expected: publishers[key].get_subscription_count() == n)
    wait_until(lambda: node.queries.is_accepting and robot.state == "ready")
    for key in ("info", "depth", "color"):
        publishers[key].publish(shot.camera[key])
    wait_until(lambda: (new := node.images.latest) and new.depth and new.camera_info)
    wait_until(lambda: robot._camera.model() is not None)
    wait_until(lambda: node.count_subscribers("/segzero/object_cloud"))
    events = ask(robot)

    (space,) = events["space"]
    assert space["frame"] == ""
    assert 0.02 < space["size_m"][0] < 0.3
    drawn = np.array(space["box_lines_px"])
    assert (drawn.min(axis=0) < (x_max, y_max)).all()
    assert (drawn.max(axis=0) > (x_min, y_min)).all()
    points = np.frombuffer(base64.b64decode(events["cloud"][0]["points_mm"]), "<i2").reshape(-1, 3)
    assert len(points) > 100
    assert abs(np.median(points[:, 2]) / 1000 - space["center_m"][2]) < 0.1
