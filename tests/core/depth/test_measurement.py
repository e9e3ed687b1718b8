"""From mask and depth to cloud, support plane and box, on scenes with known ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segzero_core.config import GraspConfig
from segzero_core.depth import (
    CameraModel,
    ObjectCloud,
    SupportPlane,
    border_pixels,
    depth_in_meters,
    find_support_plane,
    measure_object,
    object_cloud,
    oriented_box,
)
from segzero_core.errors import InputError, ShapeError
from tests.synthetic_depth import Ball, Brick, View, see

K = [[300.0, 0.0, 159.5], [0.0, 300.0, 119.5], [0.0, 0.0, 1.0]]
BRICK = Brick((0.02, -0.03), (0.12, 0.07, 0.05), yaw=0.4)


@pytest.fixture(scope="module")
def view() -> View:
    return see([BRICK])


def measured(view: View, number: int = 1, **options: Any) -> Any:
    return measure_object(view.mask(number), view.depth_m, view.camera, **options)


# Depth


def test_millimetres_become_metres_and_zero_becomes_unknown() -> None:
    depth = np.array([[0, 1, 1500, 65535]], np.uint16)
    metres = depth_in_meters(depth, "16UC1")
    assert metres.dtype == np.float32
    assert np.isnan(metres[0, 0])
    assert metres[0, 1:].tolist() == pytest.approx([0.001, 1.5, 65.535])


def test_metres_that_are_no_distance_become_unknown() -> None:
    depth = np.array([[np.nan, np.inf, -np.inf, 0.0, -1.0, 0.5]], np.float32)
    metres = depth_in_meters(depth, "32FC1")
    assert np.isnan(metres[0, :5]).all()
    assert metres[0, 5] == 0.5
    assert np.isinf(depth[0, 1])  # the caller's array is not touched


def test_a_foreign_byte_order_is_read() -> None:
    assert depth_in_meters(np.array([[1500]], ">u2"), "16UC1")[0, 0] == pytest.approx(1.5)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(InputError, match="'rgb8' is none of 16UC1"):
        depth_in_meters(np.zeros((2, 2), np.uint16), "rgb8")


def test_depth_of_another_type_than_its_encoding_is_refused() -> None:
    with pytest.raises(ShapeError, match="uint16"):
        depth_in_meters(np.zeros((2, 2), np.float32), "16UC1")


# Camera


def test_pixels_that_are_not_square_keep_a_brick_in_shape() -> None:
    camera = CameraModel([[420, 0, 159.5], [0, 300, 119.5], [0, 0, 1]], (), (320, 240))
    found = measured(see([BRICK], camera=camera, distance_m=0.7))
    assert found.box.size_m == pytest.approx([0.12, 0.07, 0.05], rel=0.05)


def test_a_distorted_image_gives_the_same_box() -> None:
    camera = CameraModel(K, (-0.3, 0.1, 0.002, -0.001, 0.0), (320, 240))
    view = see([Brick((0.12, 0.06), (0.1, 0.07, 0.05))], camera=camera)
    found = measured(view)
    assert view.to_world(found.box.center_m) == pytest.approx([0.12, 0.06, 0.025], abs=0.004)
    ignored = measure_object(view.mask(), view.depth_m, CameraModel(K, (), (320, 240)))
    assert view.to_world(ignored.box.center_m) != pytest.approx([0.12, 0.06, 0.025], abs=0.004)


# Cloud


def test_the_cloud_lies_on_the_surface_and_knows_its_pixels(view: View) -> None:
    cloud = object_cloud(view.mask(), view.depth_m, view.camera)
    assert cloud.points_m.dtype == np.float32
    columns, rows = cloud.pixels_xy.T
    assert cloud.points_m[:, 2].tolist() == view.depth_m[rows, columns].tolist()
    assert view.camera.pixels(cloud.points_m) == pytest.approx(cloud.pixels_xy, abs=0.01)
    heights = view.to_world(cloud.points_m)[:, 2]
    assert heights.min() > -1e-3
    assert heights.max() == pytest.approx(0.05, abs=1e-3)


def test_the_edge_of_the_mask_is_taken_off_but_not_at_the_images_border() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[10:30, :20] = True
    camera = CameraModel([[50, 0, 30], [0, 50, 20], [0, 0, 1]], (), (60, 40))
    cloud = object_cloud(mask, np.ones((40, 60), np.float32), camera, erode_px=2)
    assert cloud.pixels_xy.min(axis=0).tolist() == [0, 12]
    assert cloud.pixels_xy.max(axis=0).tolist() == [17, 27]


def test_flying_pixels_between_object_and_background_are_left_out(view: View) -> None:
    depth = view.depth_m.copy()
    mask = view.mask()
    rows, columns = np.nonzero(mask)
    middle = rows == int(np.median(rows))
    for column in columns[middle][5:-5:6]:
        depth[int(np.median(rows)), column] += 0.06
    cloud = object_cloud(mask, depth, view.camera)
    heights = view.to_world(cloud.points_m)[:, 2]
    assert heights.min() > -1e-3
    assert len(cloud) > 0.8 * mask.sum()


def test_pixels_without_depth_are_left_out(view: View) -> None:
    depth = view.depth_m.copy()
    depth[::2] = np.nan
    depth[1::4] = view.depth_m[1::4]
    holes = view.depth_m.copy()
    holes[:, 100:120] = np.nan
    cloud = object_cloud(view.mask(), holes, view.camera)
    assert np.isfinite(cloud.points_m).all()
    assert not np.isin(cloud.pixels_xy[:, 0], np.arange(100, 120)).any()


EMPTY, TINY = np.zeros((240, 320), np.bool_), np.zeros((240, 320), np.bool_)
TINY[5:8, 5:8] = True


@pytest.mark.parametrize(
    ("mask", "depth", "complaint"),
    [
        pytest.param(EMPTY, None, "mask is empty", id="empty mask"),
        pytest.param(TINY, None, "too thin: 9 pixels, of which 1", id="tiny mask"),
        pytest.param(None, np.full((240, 320), np.nan, np.float32), "no depth", id="no depth"),
        pytest.param(None, np.ones((120, 160), np.float32), "depth is 160x120", id="depth size"),
        pytest.param(np.zeros((8, 8), np.bool_), None, "the image 8x8", id="mask size"),
        pytest.param(EMPTY.astype(np.uint8), None, "expected bool", id="mask type"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_reason(
    view: View, mask: Any, depth: Any, complaint: str
) -> None:
    mask = view.mask() if mask is None else mask
    depth = view.depth_m if depth is None else depth
    with pytest.raises(InputError, match=complaint):
        measure_object(mask, depth, view.camera)


def test_a_camera_of_another_size_is_refused(view: View) -> None:
    camera = CameraModel(K, (), (640, 480))
    with pytest.raises(InputError, match="camera_info is for 640x480 and the image is 320x240"):
        measure_object(view.mask(), view.depth_m, camera)


def test_random_depth_is_no_surface(view: View) -> None:
    noise = np.random.default_rng(0).uniform(0.3, 3.0, view.depth_m.shape).astype(np.float32)
    with pytest.raises(InputError, match="is no surface"):
        measure_object(view.mask(), noise, view.camera)


def test_an_object_that_the_border_cuts_has_no_box() -> None:
    view = see([Brick((-0.3, 0.0), (0.12, 0.07, 0.05))])
    assert border_pixels(view.mask()) > 3
    with pytest.raises(InputError, match="reaches over the image's border"):
        measured(view)
    assert len(object_cloud(view.mask(), view.depth_m, view.camera)) > 100


# Support


@pytest.mark.parametrize("elevation_deg", [25.0, 45.0, 70.0, 90.0])
def test_the_table_is_found_around_the_object(elevation_deg: float) -> None:
    view = see([BRICK], elevation_deg=elevation_deg)
    cloud = object_cloud(view.mask(), view.depth_m, view.camera)
    plane = find_support_plane(view.mask(), view.depth_m, view.camera, cloud=cloud)
    assert plane is not None
    assert plane.normal @ view.up == pytest.approx(1.0, abs=1e-4)
    assert plane.offset_m == pytest.approx(
        -view.up @ (view.rotation.T @ view.position_m), abs=1e-3
    )


def test_the_table_is_found_between_other_objects_and_with_noise() -> None:
    objects = [BRICK, Brick((0.13, -0.02), (0.08, 0.1, 0.09)), Ball((-0.12, 0.02), 0.05)]
    view = see(objects)
    noisy = view.depth_m + np.random.default_rng(0).normal(0, 0.0015, view.depth_m.shape)
    found = measure_object(view.mask(), noisy.astype(np.float32), view.camera)
    assert found.support is not None
    assert found.support.normal @ view.up > 0.9995
    assert view.to_world(found.box.center_m) == pytest.approx(BRICK.center_m, abs=0.006)


def test_a_wall_is_no_support_when_up_is_known(view: View) -> None:
    wall = np.full_like(view.depth_m, 0.9)
    depth = np.where(view.mask(), view.depth_m, wall)
    cloud = object_cloud(view.mask(), depth, view.camera)
    assert find_support_plane(view.mask(), depth, view.camera, cloud=cloud) is not None
    known = find_support_plane(view.mask(), depth, view.camera, cloud=cloud, up=view.up)
    assert known is None or known.normal @ view.up > 0.96


def test_without_surroundings_there_is_no_support_and_the_camera_looks_down_on_it(
    view: View,
) -> None:
    depth = np.where(view.mask(), view.depth_m, np.float32(np.nan))
    found = measure_object(view.mask(), depth, view.camera)
    assert found.support is None
    assert found.box.rotation[:, 2] @ found.box.center_m < 0
    upright = measure_object(view.mask(), depth, view.camera, up=view.up)
    assert view.to_world(upright.box.center_m) == pytest.approx(BRICK.center_m, abs=0.006)


# Box


@pytest.mark.parametrize("elevation_deg", [30.0, 45.0, 60.0, 90.0])
@pytest.mark.parametrize("yaw", [0.0, 0.4, 1.2])
def test_a_brick_is_boxed_whole_from_one_side(elevation_deg: float, yaw: float) -> None:
    brick = Brick((0.02, -0.03), (0.12, 0.07, 0.05), yaw)
    view = see([brick], elevation_deg=elevation_deg)
    box = measured(view).box
    assert view.to_world(box.center_m) == pytest.approx(brick.center_m, abs=0.004)
    assert box.size_m == pytest.approx([0.12, 0.07, 0.05], rel=0.05)
    axes = view.rotation @ box.rotation
    assert axes[2, 2] == pytest.approx(1, abs=1e-3)
    assert abs(axes[:2, 0] @ [np.cos(yaw), np.sin(yaw)]) > 0.998
    assert np.linalg.det(box.rotation) == pytest.approx(1)


@pytest.mark.parametrize("yaw", [0.4, 1.2, 2.0])
@pytest.mark.parametrize("lean", [(0.0, 0.05), (0.05, 0.0), (0.03, -0.04)])
def test_a_tall_box_that_leans_over_its_support_keeps_its_size(
    lean: tuple[float, float], yaw: float
) -> None:
    brick = Brick((0.0, 0.0), (0.09, 0.04, 0.17), yaw)
    view = see([brick])
    cloud = object_cloud(view.mask(), view.depth_m, view.camera)
    normal = np.array([*lean, 1.0]) @ view.rotation
    normal /= np.linalg.norm(normal)
    plane = SupportPlane(normal, float(-view.position_m @ view.rotation @ normal))
    box = oriented_box(cloud, plane)
    assert box.size_m == pytest.approx(brick.size_m, rel=0.13)
    assert view.to_world(box.center_m) == pytest.approx(brick.center_m, abs=0.005)
    assert box.rotation[:, 2] == pytest.approx(normal)
    assert (box.corners_m() @ normal).min() == pytest.approx(plane.offset_m)


@pytest.mark.parametrize("elevation_deg", [35.0, 50.0, 70.0])
def test_the_hidden_half_of_a_ball_is_counted_in(elevation_deg: float) -> None:
    ball = Ball((0.03, 0.02), 0.04)
    view = see([ball], elevation_deg=elevation_deg)
    found = measured(view)
    assert view.to_world(found.box.center_m) == pytest.approx(ball.center_m, abs=0.005)
    assert found.box.size_m == pytest.approx([0.08] * 3, rel=0.08)
    mean = view.to_world(found.cloud.points_m).mean(axis=0)
    assert np.linalg.norm(mean - ball.center_m) > 0.015  # which is why the mean is not taken


def test_a_box_has_its_corners_where_its_size_says(view: View) -> None:
    box = measured(view).box
    corners = (box.corners_m() - box.center_m) @ box.rotation
    assert np.ptp(corners, axis=0) == pytest.approx(box.size_m)


def test_a_mask_on_the_table_is_no_object() -> None:
    view = see([])
    mask = np.zeros((240, 320), np.bool_)
    mask[100:140, 140:180] = True
    cloud = object_cloud(mask, view.depth_m, view.camera)
    plane = find_support_plane(mask, view.depth_m, view.camera, cloud=cloud)
    with pytest.raises(InputError, match="does not rise above what it lies on"):
        oriented_box(cloud, plane)


@pytest.mark.parametrize("up", [(0.0, 0.0, 0.0), (0.0, np.nan, 1.0), (1.0, 0.0)])
def test_a_direction_that_is_none_is_refused(view: View, up: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="up"):
        measured(view, up=np.array(up))


def test_a_cloud_whose_arrays_do_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="pixels_xy"):
        ObjectCloud(np.zeros((4, 3), np.float32), np.zeros((3, 2), np.int32))


def test_measuring_twice_gives_the_same(view: View) -> None:
    one, other = (measured(view, grasping=GraspConfig()) for _ in range(2))
    assert one.box.center_m.tolist() == other.box.center_m.tolist()
    assert [each.score for each in one.grasps] == [each.score for each in other.grasps]
