"""Detections, with stand-ins for the messages of vision_msgs where that package is missing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from std_msgs.msg import Header

from segzero_core.depth import measure_object
from segzero_core.testing.fakes import fake_segzero
from segzero_ros.messages import detections
from segzero_ros.spatial.scene import ObjectPoses
from segzero_ros.spatial.transforms import CameraPose
from tests.ros.scripted import TWO_OBJECTS
from tests.synthetic_depth import Brick, see


@dataclasses.dataclass
class Record:
    """A message whose fields are made when they are first touched."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        value = Record()
        setattr(self, name, value)
        return value


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> None:
    if detections.Detection2DArray is None:
        for name in (
            "BoundingBox2D",
            "BoundingBox3D",
            "Detection2D",
            "Detection2DArray",
            "Detection3D",
            "Detection3DArray",
            "ObjectHypothesisWithPose",
        ):
            monkeypatch.setattr(detections, name, Record, raising=False)


def test_a_detection_has_the_box_of_its_mask_and_the_header_of_the_image(
    messages: None,
) -> None:
    result = fake_segzero(TWO_OBJECTS).segment(np.zeros((100, 100, 3), np.uint8), "the mugs")
    header = Header(frame_id="camera")
    msg = detections.detections_to_msg(result, header)
    assert msg.header is header
    first, second = msg.detections
    assert (first.id, second.id) == ("1", "2")
    assert first.header is header
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (20.0, 25.0)
    assert (second.bbox.size_x, second.bbox.size_y) == (40.0, 35.0)
    hypothesis = first.results[0].hypothesis
    assert (hypothesis.class_id, hypothesis.score) == ("the mugs", 1.0)


def test_a_3d_detection_has_the_box_and_the_frame_of_the_pose(messages: None) -> None:
    result = fake_segzero(TWO_OBJECTS).segment(np.zeros((100, 100, 3), np.uint8), "the mugs")
    view = see([Brick((0.0, 0.0), (0.09, 0.06, 0.05))])
    measured = measure_object(view.mask(), view.depth_m, view.camera)
    transform = CameraPose(np.eye(3), np.array([0.0, 0.0, 1.0]))
    frame = Header(frame_id="base")
    poses = ObjectPoses(frame, transform, (None, measured), ("object 1: no depth",))
    msg = detections.detections_3d_to_msg(result, poses)
    assert msg.header is frame
    (second,) = msg.detections
    assert (second.header, second.id) == (frame, "2")
    x, y, z = measured.box.center_m
    center = second.bbox.center.position
    assert (center.x, center.y, center.z) == pytest.approx((x, y, z + 1.0))
    size = second.bbox.size
    assert (size.x, size.y, size.z) == pytest.approx(tuple(measured.box.size_m))
    assert second.results[0].pose.pose == second.bbox.center
    assert second.results[0].hypothesis.class_id == "the mugs"


def test_without_poses_there_are_no_3d_detections(messages: None) -> None:
    result = fake_segzero(TWO_OBJECTS).segment(np.zeros((100, 100, 3), np.uint8), "the mugs")
    poses = ObjectPoses.unmeasured(Header(frame_id="camera"), 2)
    msg = detections.detections_3d_to_msg(result, poses)
    assert (msg.header.frame_id, msg.detections) == ("camera", [])


@pytest.mark.skipif(
    detections.Detection2DArray is None,
    reason="vision_msgs is not installed: on a machine with ROS, ros-jazzy-vision-msgs brings it",
)
def test_the_node_publishes_detections_with_the_images_header(answering: Any) -> None:
    node, client = answering
    client.node.create_subscription(
        detections.Detection2DArray,
        "/segzero/detections",
        lambda msg: client.heard.add("detections", msg),
        10,
    )
    client.wait_until(lambda: node.count_subscribers("/segzero/detections"))
    header = client.send_image(node)

    result = client.ask_and_wait("the mugs")

    msg = client.heard.wait("detections")
    assert msg.header == header
    assert [each.id for each in msg.detections] == ["1", "2"]
    assert all(each.header == header for each in msg.detections)
    assert len(result.instances) == 2
