"""`segzero view`: what a real node publishes is found in the recording."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from segzero_cli.demo.clip import find_clip, read_clip
from segzero_core.errors import InputError
from segzero_core.testing.fakes import fake_segzero
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.msg import ObjectInstance, SegmentationResult
from tests.recordings import has_layout, image_of, lines, plane_of, read_recording, values
from tests.ros.conftest import wait_until
from tests.ros.scripted import SIZE_WH, THINKING

ROOT = Path(__file__).parents[2]


@pytest.fixture
def view(graph: Any, tmp_path: Path) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    """Follow `/segzero` in this process: who follows, how it starts, and its end.

    The end returns what was recorded.
    """
    from segzero_cli.recording import Recording
    from segzero_cli.view.follower import Follower

    node = Node("viewer", context=graph.context)
    out = tmp_path / "view.rrd"
    recording = Recording("arrived", with_space=True, path=out)
    follower = Follower(node, "/segzero", recording, rate_hz=1000.0)

    def start() -> Any:
        graph.spin(node)
        return follower

    def end() -> Any:
        graph.end(node)
        recording.__exit__()
        return read_recording(out)

    return follower, start, end


def test_image_masks_boxes_and_trace_of_a_node_are_recorded(
    answering: tuple[Any, Any], view: Any
) -> None:
    node, client = answering
    follower, start, end = view
    start()
    wait_until(lambda: "/image" in follower._seen)
    wait_until(lambda: client.node.count_subscribers("/segzero/reasoning") == 2)
    wait_until(lambda: client._images.get_subscription_count() == 2)
    header = client.send_image(node, SIZE_WH)
    wait_until(lambda: follower._frames)
    result = client.ask_and_wait("the mugs", SegmentationResult.OK)
    wait_until(lambda: follower.answers == 1)
    found = end()

    stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
    (image,) = found["/world/camera/image"]
    assert (image_of(image) == 90).all()
    assert image["stamp"].value == stamp_ns
    (masks,) = found["/world/camera/instances"]
    ids = plane_of(masks, "SegmentationImage")
    assert [(ids == n).sum() for n in (1, 2)] == [each.area_px for each in result.instances]
    assert (masks["stamp"].value, ids[20, 15], ids[80, 70]) == (stamp_ns, 1, 2)
    (boxes,) = found["/world/camera/boxes"]
    assert boxes["Boxes2D:centers"] == [[20, 25], [70, 77.5]]
    assert " ".join(lines(found, "thinking")) == THINKING
    assert lines(found, "answer") == ["2 found: the mugs"]
    assert any("arrived" in row and "stamp" in row for row in found["/trace/thinking"])
    assert "ready" in lines(found, "status")
    assert "/world/camera/depth" not in found  # and no failure for want of it


def test_a_query_without_an_answer_is_a_line_with_the_reason(
    answering: tuple[Any, Any], view: Any
) -> None:
    _, client = answering
    follower, start, end = view
    start()
    wait_until(lambda: client.node.count_subscribers("/segzero/result") == 2)
    client.ask_and_wait("the mugs", SegmentationResult.NO_IMAGE)
    wait_until(lambda: follower.answers == 1)
    found = end()

    assert lines(found, "answer")[0].startswith("no answer to 'the mugs' (error 1): no image")
    assert "/world/camera/boxes" not in found


def test_an_answer_about_an_image_that_did_not_come_is_said_and_not_drawn(
    answering: tuple[Any, Any], view: Any
) -> None:
    node, client = answering
    follower, start, end = view
    follower._seen.add("/image")  # so that it does not subscribe
    start()
    wait_until(lambda: client.node.count_subscribers("/segzero/result") == 2)
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", SegmentationResult.OK)
    wait_until(lambda: follower.answers == 1)
    found = end()

    assert lines(found, "answer") == ["2 found: the mugs"]
    assert "is not drawn: its image did not come here" in lines(found, "notes")[0]
    assert "/world/camera/boxes" not in found


@pytest.mark.parametrize("offset", [(-1, 0), (0, 95), (200, 0)])
def test_a_mask_outside_of_the_image_is_refused(offset: tuple[int, int]) -> None:
    from segzero_cli.view.follower import objects_of

    mask = msg_from_array(np.full((10, 10), 255, np.uint8), "mono8", Header())
    x, y = offset
    instance = ObjectInstance(
        box_xyxy=np.array([0, 0, 5, 5], np.int32),
        mask=mask,
        mask_x_offset=x,
        mask_y_offset=y,
        area_px=100,
    )
    with pytest.raises(InputError, match="outside of the image"):
        objects_of(SegmentationResult(instances=[instance]), (100, 100))


def test_depth_and_objects_in_space_are_recorded(
    start_node: Callable, client: Any, view: Any
) -> None:
    clip = find_clip("tabletop")
    assert clip is not None
    shot = read_clip(clip)[0]
    box = next(each.box_xyxy for each in shot.scene.objects if each.id in shot.question.ids)
    width, height = shot.scene.image_size_wh
    seen = [round(edge * 100 / size) for edge, size in zip(box, (width, height) * 2, strict=True)]
    reply = json.dumps([{"bbox_2d": seen, "point_2d": [1, 1]}])
    node = start_node(fake_segzero(f"<think>.</think><answer>{reply}</answer>"))
    kinds = {
        "color": ("/image", Image),
        "depth": ("/depth/image", Image),
        "info": ("/camera_info", CameraInfo),
    }
    publishers = {
        key: client.node.create_publisher(kind, topic, 1) for key, (topic, kind) in kinds.items()
    }
    follower, start, end = view
    clouds, write_cloud = [], follower._recording.cloud
    follower._recording.cloud = lambda *cloud: (write_cloud(*cloud), clouds.append(cloud))
    start()
    for key in kinds:
        wait_until(lambda key=key: publishers[key].get_subscription_count() == 2)
    wait_until(lambda: node.output.is_subscribed("object_cloud"))
    wait_until(lambda: node.queries.is_accepting)
    for key in ("info", "depth", "color"):
        publishers[key].publish(shot.camera[key])
    wait_until(lambda: (new := node.images.latest) and new.depth and new.camera_info)
    wait_until(lambda: (new := follower._buffer.latest) and new.depth and new.camera_info)
    client.ask_and_wait(shot.question.text, SegmentationResult.OK)
    wait_until(lambda: follower.answers == 1 and clouds)
    found = end()

    assert (plane_of(found["/world/camera/depth"][-1], "DepthImage") == shot.depth_mm).all()
    (matrix,) = values(found, "/world/camera", "Pinhole:image_from_camera")[-1:]
    assert np.isclose(matrix[0], shot.scene.intrinsics["fx"])
    (boxes,) = found["/world/objects/boxes"]
    size = 2 * np.array(boxes["Boxes3D:half_sizes"][0])
    assert ((size > 0.01) & (size < 0.4)).all()
    (grasps,) = found["/world/objects/grasps"]
    assert len(grasps["LineStrips3D:strips"]) == 4
    cloud = np.array(found["/world/objects/cloud"][-1]["Points3D:positions"])
    assert len(cloud) > 100
    assert abs(np.median(cloud[:, 2]) - boxes["Boxes3D:centers"][0][2]) < 0.1


def test_the_command_records_until_it_is_interrupted(
    answering: tuple[Any, Any], tmp_path: Path
) -> None:
    _, client = answering
    out = tmp_path / "robot.rrd"
    command = [sys.executable, "-m", "segzero_cli", "view", "--save", out, "--patience", "60"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as viewer:
        try:
            assert viewer.stdout is not None
            assert "following /segzero" in viewer.stdout.readline()
            wait_until(lambda: client.node.count_subscribers("/segzero/result") == 2)
            client.ask_and_wait("the mugs", SegmentationResult.NO_IMAGE)
            assert viewer.stdout.readline() == "query 1: error 1\n"
        finally:
            viewer.send_signal(signal.SIGINT)
            said = viewer.stdout.read()
            assert viewer.wait(60) == 0
    assert said == f"0 images, 1 answers: {out}\n"
    assert has_layout(out)
    assert lines(read_recording(out), "answer")[0].startswith("no answer to 'the mugs'")


@pytest.fixture
def own_signals() -> Iterator[None]:
    """The command takes the signals of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--patience", "0.1"), "no node /segzero within 0.1 s; is it started"),
        (("--node", "a b"), "'/a b' is no full name of a node"),
        (("--rate", "0"), "expected more than 0 Hz"),
        (("--save", "."), "is a folder"),
    ],
)
def test_what_cannot_be_followed_is_one_line(
    own_domain: None,
    own_signals: None,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    from segzero_cli.main import main

    saved = () if "--save" in arguments else ("--save", str(tmp_path / "view.rrd"))
    assert main(["view", *arguments, *saved]) == 2
    said = capsys.readouterr().err
    assert said.startswith("segzero: error: ")
    assert complaint in said
    assert not (tmp_path / "view.rrd").exists()
