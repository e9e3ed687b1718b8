"""Detections, with stand-ins for the messages of vision_msgs where that package is missing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from std_msgs.msg import Header

from segzero_core.testing.fakes import fake_segzero
from segzero_ros.messages import detections
from tests.ros.scripted import TWO_OBJECTS


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
            "Detection2D",
            "Detection2DArray",
            "ObjectHypothesisWithPose",
        ):
            monkeypatch.setattr(detections, name, Record, raising=False)


def test_a_detection_has_the_box_of_its_mask_and_the_header_of_the_picture(
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


@pytest.mark.skipif(
    detections.Detection2DArray is None,
    reason="vision_msgs is not installed: on a machine with ROS, ros-jazzy-vision-msgs brings it",
)
def test_the_node_publishes_detections_with_the_pictures_header(answering: Any) -> None:
    node, client = answering
    client.node.create_subscription(
        detections.Detection2DArray,
        "/segzero/detections",
        lambda msg: client.heard.add("detections", msg),
        10,
    )
    client.wait_until(lambda: node.count_subscribers("/segzero/detections"))
    header = client.send_picture(node)

    result = client.ask_and_wait("the mugs")

    msg = client.heard.wait("detections")
    assert msg.header == header
    assert [each.id for each in msg.detections] == ["1", "2"]
    assert all(each.header == header for each in msg.detections)
    assert len(result.instances) == 2
