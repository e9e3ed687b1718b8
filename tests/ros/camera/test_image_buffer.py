"""The ring of pictures: what belongs together, whatever order it comes in."""

from __future__ import annotations

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from segzero_core.errors import InputError
from segzero_ros.camera.image_buffer import PictureRing, stamp_ns


def packed(stamp_s: float, kind: type = Image, **fields: object) -> bytes:
    msg = kind(**fields)
    msg.header.frame_id = "camera"
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(round(stamp_s * 1e9), 10**9)
    return serialize_message(msg)


@pytest.fixture
def ring() -> PictureRing:
    return PictureRing(size=3, tolerance_s=0.02)


@pytest.mark.parametrize("stamp_s", [0.0, 1.5, 1.7e9 + 0.125, -3.25])
def test_the_stamp_is_read_from_the_bytes(stamp_s: float) -> None:
    assert stamp_ns(packed(stamp_s)) == round(stamp_s * 1e9)


def test_a_message_without_a_header_is_refused() -> None:
    with pytest.raises(InputError, match="too short"):
        stamp_ns(b"\0\1\0\0")


@pytest.mark.parametrize("order", ["first", "last"])
def test_depth_and_calibration_find_their_picture(ring: PictureRing, order: str) -> None:
    depth, info = packed(5.01, width=7), packed(4.99, CameraInfo, width=9)
    if order == "first":
        ring.add_depth(depth)
        ring.add_camera_info(info)
    picture = ring.add_picture(packed(5.0), Image)
    if order == "last":
        ring.add_depth(depth)
        ring.add_camera_info(info)
    assert picture.depth.width == 7
    assert picture.camera_info.width == 9


def test_the_nearest_depth_wins(ring: PictureRing) -> None:
    picture = ring.add_picture(packed(5.0), Image)
    for stamp_s, width in ((5.015, 1), (5.001, 2), (4.99, 3)):
        ring.add_depth(packed(stamp_s, width=width))
    assert picture.depth.width == 2


@pytest.mark.parametrize("apart_s", [0.0201, -0.5, 100.0])
def test_what_is_too_far_apart_is_not_paired(ring: PictureRing, apart_s: float) -> None:
    picture = ring.add_picture(packed(5.0), Image)
    ring.add_depth(packed(5.0 + apart_s))
    assert picture.depth is None


def test_nothing_is_paired_by_a_stamp_of_zero(ring: PictureRing) -> None:
    picture = ring.add_picture(packed(0.0), Image)
    ring.add_depth(packed(0.0))
    assert picture.depth is None


def test_a_picture_that_was_pushed_out_keeps_its_depth(ring: PictureRing) -> None:
    picture = ring.add_picture(packed(5.0), Image)
    ring.add_depth(packed(5.0, width=7))
    for number in range(10):
        ring.add_picture(packed(6.0 + number), Image)
    assert picture.depth.width == 7


def test_the_newest_picture_is_the_last_that_came_even_if_the_clock_jumped_back(
    ring: PictureRing,
) -> None:
    ring.add_picture(packed(100.0), Image)
    ring.add_depth(packed(100.0))
    after = ring.add_picture(packed(1.0), Image)
    ring.add_depth(packed(1.0, width=7))
    assert ring.newest is after
    assert after.depth.width == 7
    assert ring.clock_jumps == 1


def test_the_ring_does_not_grow(ring: PictureRing) -> None:
    first = ring.add_picture(packed(1.0), Image)
    for number in range(2, 50):
        ring.add_picture(packed(number), Image)
    ring.add_depth(packed(1.0))
    assert first.depth is None
