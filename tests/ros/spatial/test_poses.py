"""Objects in space: poses, clouds and markers from paired depth, and why there are none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseArray, TransformStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from segzero_core.depth import camera_from_info
from segzero_core.errors import InputError
from segzero_core.testing.fakes import fake_segzero
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.msg import SegmentationResult
from segzero_ros.parameters import NodeConfig
from segzero_ros.spatial.transforms import (
    TransformError,
    Transforms,
    matrix_from_quaternion,
    quaternion_xyzw,
)
from tests.synthetic_depth import Brick, View, see

BRICK = Brick((0.0, 0.0), (0.09, 0.06, 0.05))


@pytest.fixture(scope="module")
def view() -> View:
    return see([BRICK])


def reply_of(view: View) -> str:
    """An answer whose box is the mask: the scripted model sees 100x100, and fills the box."""
    rows, columns = np.nonzero(view.mask())
    height, width = view.depth_m.shape
    box = [
        (columns.min() + 0.5) * 100 / width,
        (rows.min() + 0.5) * 100 / height,
        (columns.max() + 0.5) * 100 / width,
        (rows.max() + 0.5) * 100 / height,
    ]
    return (
        "<think>There.</think><answer>[{"
        f'"bbox_2d": {[int(each) for each in box]}, "point_2d": [50, 50]'
        "}]</answer>"
    )


def info_msg(view: View, header: Header, **changes: Any) -> CameraInfo:
    width, height = view.camera.size_wh
    values: dict[str, Any] = {"k": view.camera.k.ravel(), "width": width, "height": height}
    return CameraInfo(header=header, distortion_model="plumb_bob", d=[0.0] * 5, **values | changes)


def show(node: Any, client: Any, view: View, **changes: Any) -> Header:
    """Give the node a image with the depth and calibration of its moment."""
    width, height = view.camera.size_wh
    header = client.send_image(node, (width, height))
    depth_header = Header(stamp=header.stamp, frame_id=changes.get("frame", header.frame_id))
    depth = changes.get("depth", view.depth_m)
    node.images.add_depth(serialize_message(msg_from_array(depth, "32FC1", depth_header)))
    info = info_msg(view, header, **changes.get("info", {}))
    node.images.add_camera_info(serialize_message(info))
    return header


def hear(client: Any, node: Any, kind: Any, topic: str) -> None:
    client.node.create_subscription(
        kind, f"/segzero/{topic}", lambda msg: client.heard.add(topic, msg), 10
    )
    client.wait_until(lambda: node.count_subscribers(f"/segzero/{topic}"))


@pytest.fixture
def seeing(start_node: Callable[..., Any], client: Any, view: View) -> tuple[Any, Any]:
    node = start_node(fake_segzero(reply_of(view)))
    client.connect()
    return node, client


def test_a_result_tells_where_the_object_is_and_how_to_take_it(seeing: Any, view: View) -> None:
    node, client = seeing
    show(node, client, view)
    result = client.ask_and_wait("the brick", SegmentationResult.OK)
    (instance,) = result.instances
    assert instance.has_pose
    at, size = instance.pose.position, instance.size_m
    centre = view.to_world([[at.x, at.y, at.z]])[0]
    # The scripted mask is the box around the object, with table in its corners.
    assert centre == pytest.approx(BRICK.center_m, abs=0.012)
    assert size.z == pytest.approx(0.05, abs=0.004)
    assert instance.grasps
    best = instance.grasps[0]
    assert 0 < best.score <= 1
    assert best.width_m < NodeConfig().gripper_opening_m
    turn = best.pose.orientation
    approach = matrix_from_quaternion(turn.x, turn.y, turn.z, turn.w)[:, 2]
    assert view.rotation @ approach == pytest.approx([0, 0, -1], abs=0.02)


def test_the_pose_header_is_the_images_when_the_poses_are_in_the_cameras_frame(
    seeing: Any, view: View
) -> None:
    node, client = seeing
    header = show(node, client, view)
    result = client.ask_and_wait("the brick", SegmentationResult.OK)
    assert result.instances[0].has_pose
    assert result.pose_header == result.header == header


def test_poses_cloud_and_markers_carry_the_images_header(seeing: Any, view: View) -> None:
    node, client = seeing
    for kind, topic in (
        (PoseArray, "object_poses"),
        (PointCloud2, "object_cloud"),
        (MarkerArray, "markers"),
    ):
        hear(client, node, kind, topic)
    header = show(node, client, view)
    client.ask("the brick")
    poses = client.heard.wait("object_poses")
    cloud = client.heard.wait("object_cloud")
    markers = client.heard.wait("markers").markers
    assert poses.header == cloud.header == header
    assert len(poses.poses) == 1
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb"]
    points = np.frombuffer(cloud.data, np.float32).reshape(-1, 4)
    assert len(points) == cloud.width > 1000
    assert np.median(points[:, 2]) == pytest.approx(0.58, abs=0.05)
    assert set(points[:, 3].view(np.uint32)) == {0x5A5A5A}
    assert {"objects", "grasps"} <= {marker.ns for marker in markers}
    (edges,) = (marker for marker in markers if marker.ns == "objects")
    assert len(edges.points) == 24


def test_without_a_depth_camera_nothing_is_reported_and_nothing_is_wrong(seeing: Any) -> None:
    node, client = seeing
    client.send_image(node)
    result = client.ask_and_wait("the brick", SegmentationResult.OK)
    assert not result.instances[0].has_pose
    client.heard.wait("status", lambda msg: msg.detail == "ready")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"frame": "other"}, "depth is in the frame 'other'", id="other frame"),
        pytest.param({"depth": np.ones((24, 32), np.float32)}, "depth is 32x24", id="other size"),
        pytest.param(
            {"depth": np.full((240, 320), np.nan, np.float32)}, "no depth under", id="no depth"
        ),
        pytest.param({"info": {"k": [0.0] * 9}}, "is the camera calibrated", id="zero K"),
        pytest.param({"info": {"width": 640}}, "camera_info is for 640x240", id="other camera"),
    ],
)
def test_what_does_not_fit_is_a_reason_and_no_pose(
    seeing: Any, view: View, changes: dict[str, Any], complaint: str
) -> None:
    node, client = seeing
    client.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda msg: client.heard.add("diagnostics", msg), 10
    )
    show(node, client, view, **changes)
    result = client.ask_and_wait("the brick", SegmentationResult.OK)
    assert result.instances[0].area_px > 0
    assert not result.instances[0].has_pose
    assert not result.instances[0].grasps
    client.heard.wait("status", lambda msg: complaint in msg.detail)

    def warned(msg: DiagnosticArray) -> bool:
        (part,) = (each for each in msg.status if each.name == "segzero: depth")
        return part.level == DiagnosticStatus.WARN and complaint in part.message

    client.heard.wait("diagnostics", warned)


def test_depth_of_another_moment_is_not_used(seeing: Any, view: View) -> None:
    node, client = seeing
    show(node, client, view)
    client.send_image(node, view.camera.size_wh)  # a second later, without depth
    result = client.ask_and_wait("the brick", SegmentationResult.OK)
    assert not result.instances[0].has_pose
    client.heard.wait("status", lambda msg: "no depth image of the image's stamp" in msg.detail)


class Tf2Error(Exception):
    """Stands for tf2's."""


class FakeBuffer:
    """As much of tf2_ros.Buffer as the node uses: knows the camera's place at one stamp."""

    def __init__(self, view: View, stamp_ns: int | None = None) -> None:
        self._view = view
        self._stamp_ns = stamp_ns
        self.asked: list[tuple[str, str, int]] = []

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Any, timeout: Any
    ) -> TransformStamped:
        self.asked.append((target_frame, source_frame, time.nanoseconds))
        if self._stamp_ns is not None and time.nanoseconds != self._stamp_ns:
            raise Tf2Error("Lookup would require extrapolation into the past")
        found = TransformStamped()
        x, y, z, w = map(float, quaternion_xyzw(self._view.rotation))
        turn, shift = found.transform.rotation, found.transform.translation
        turn.x, turn.y, turn.z, turn.w = x, y, z, w
        shift.x, shift.y, shift.z = map(float, self._view.position_m)
        return found


def install_tf(monkeypatch: pytest.MonkeyPatch, buffer: Any) -> None:
    """Put a stand-in for tf2_ros in place, which is not among the wheels of the tests."""
    module = SimpleNamespace(Buffer=lambda **_: buffer, TransformListener=lambda *_: "listener")
    monkeypatch.setitem(sys.modules, "tf2_ros", module)


def test_in_a_target_frame_poses_are_reported_by_the_transform_at_the_images_stamp(
    start_node: Callable[..., Any], client: Any, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = FakeBuffer(view)
    install_tf(monkeypatch, buffer)
    node = start_node(fake_segzero(reply_of(view)), target_frame="table")
    client.connect()
    hear(client, node, PoseArray, "object_poses")
    header = show(node, client, view)
    result = client.ask_and_wait("the brick", SegmentationResult.OK)
    at = result.instances[0].pose.position
    assert [at.x, at.y, at.z] == pytest.approx(BRICK.center_m, abs=0.012)
    assert result.header == header
    poses = client.heard.wait("object_poses")
    assert poses.header == result.pose_header
    assert poses.header == Header(stamp=header.stamp, frame_id="table")
    stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
    assert buffer.asked == [("table", "camera_optical", stamp_ns)]


def test_a_transform_that_cannot_be_had_is_a_reason_and_never_the_latest(
    start_node: Callable[..., Any], client: Any, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = FakeBuffer(view, stamp_ns=5)
    install_tf(monkeypatch, buffer)
    node = start_node(fake_segzero(reply_of(view)), target_frame="table")
    client.connect()
    show(node, client, view)
    result = client.ask_and_wait("the brick", SegmentationResult.OK)
    assert not result.instances[0].has_pose
    assert len(buffer.asked) == 1
    client.heard.wait("status", lambda msg: "extrapolation into the past" in msg.detail)


def test_a_target_frame_without_tf2_ros_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, answering: Any
) -> None:
    node, _ = answering
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(TransformError, match="tf2_ros cannot be imported"):
        Transforms(node).camera_pose("base", Header(frame_id="camera"), 0.1)


def test_tf_is_asked_as_tf2_ros_documents_it(
    monkeypatch: pytest.MonkeyPatch, answering: Any
) -> None:
    node, _ = answering
    made: list[Any] = []

    def make_buffer(**arguments: Any) -> Any:
        made.append(arguments)
        return SimpleNamespace()

    def make_listener(buffer: Any, listening: Any) -> str:
        made.append((buffer, listening))
        return "listener"

    fake = SimpleNamespace(Buffer=make_buffer, TransformListener=make_listener)
    monkeypatch.setitem(sys.modules, "tf2_ros", fake)
    Transforms(node).listen()
    assert made[0] == {"node": node}
    assert made[1][1] is node


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 1), (1, 0, 0, 0), (0.5, -0.5, 0.5, 0.5)])
def test_quaternions_and_matrices_tell_the_same_turn(quaternion: tuple[float, ...]) -> None:
    again = quaternion_xyzw(matrix_from_quaternion(*quaternion))
    assert abs(float(again @ np.array(quaternion))) == pytest.approx(1)


def test_a_rotation_without_length_is_refused() -> None:
    with pytest.raises(TransformError, match="no quaternion"):
        matrix_from_quaternion(0, 0, 0, 0)


def test_binning_and_region_of_interest_change_the_calibration() -> None:
    info = CameraInfo(width=640, height=480, binning_x=2, binning_y=2)
    info.k = [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 20, 40, 320, 240
    camera = camera_from_info(info, rectified=False)
    assert camera.size_wh == (160, 120)
    assert camera.k.tolist() == [[250, 0, 150], [0, 250, 100], [0, 0, 1]]


def test_a_rectified_image_has_the_projection_matrix_and_no_distortion() -> None:
    info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[0.3, 0, 0, 0, 0])
    info.k = [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
    info.p = [60.0, 0.0, 30.0, 0.0, 0.0, 60.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert camera_from_info(info, rectified=True).k[0, 0] == 60
    assert camera_from_info(info, rectified=True).distortion == ()
    assert camera_from_info(info, rectified=False).distortion[0] == pytest.approx(0.3)


def test_an_unknown_distortion_model_is_refused_only_if_it_distorts() -> None:
    info = CameraInfo(width=64, height=48, distortion_model="fancy", d=[0.0] * 5)
    info.k = [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
    assert camera_from_info(info, rectified=False).distortion == ()
    info.d = [0.1] * 5
    with pytest.raises(InputError, match="'fancy' is none of"):
        camera_from_info(info, rectified=False)
