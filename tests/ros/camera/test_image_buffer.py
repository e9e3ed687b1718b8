"""The image buffer: what belongs together, whatever order it comes in."""

from __future__ import annotations

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from segzero_core.errors import InputError
from segzero_ros.camera.image_buffer import ImageBuffer
from segzero_ros.camera.serialized import check_whole, stamp_ns


def serialized(stamp_s: float, kind: type = Image, **fields: object) -> bytes:
    msg = kind(**fields)
    msg.header.frame_id = "camera"
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(round(stamp_s * 1e9), 10**9)
    return serialize_message(msg)


@pytest.fixture
def buffer() -> ImageBuffer:
    buffer = ImageBuffer(size=3, tolerance_s=0.02)
    buffer.open()
    return buffer


@pytest.mark.parametrize("stamp_s", [0.0, 1.5, 1.7e9 + 0.125, -3.25])
def test_the_stamp_is_read_from_the_bytes(stamp_s: float) -> None:
    assert stamp_ns(serialized(stamp_s)) == round(stamp_s * 1e9)


def test_a_message_without_a_header_is_refused() -> None:
    with pytest.raises(InputError, match="too short"):
        stamp_ns(b"\0\1\0\0")


@pytest.mark.parametrize("kind", [Image, CompressedImage])
@pytest.mark.parametrize("frame_id", ["", "c", "ca", "cam", "camera", "kamera-ü"])
@pytest.mark.parametrize("data", [b"", b"1", b"12345"])
def test_what_can_be_deserialized_is_whole_and_nothing_else(
    kind: type, frame_id: str, data: bytes
) -> None:
    msg = kind(data=data)
    msg.header.frame_id = frame_id
    whole = serialize_message(msg)
    check_whole(whole, kind)
    for length in range(len(whole) - len(data)):
        with pytest.raises(InputError):
            check_whole(whole[:length], kind)


def test_a_damaged_image_is_refused_and_the_one_before_it_stays(buffer: ImageBuffer) -> None:
    good = buffer.add_image(serialized(1.0, data=b"12"), Image)
    broken = serialized(2.0, encoding="rgb8", data=b"12")
    for damaged in (broken[:20], broken[:-1], broken.replace(b"rgb8", b"rg\xff8")):
        with pytest.raises(InputError):
            buffer.add_image(damaged, Image)
    assert buffer.latest is good


@pytest.mark.parametrize("order", ["first", "last"])
def test_depth_and_calibration_find_their_image(buffer: ImageBuffer, order: str) -> None:
    depth, info = serialized(5.01, width=7), serialized(4.99, CameraInfo, width=9)
    if order == "first":
        buffer.add_depth(depth)
        buffer.add_camera_info(info)
    frame = buffer.add_image(serialized(5.0), Image)
    if order == "last":
        buffer.add_depth(depth)
        buffer.add_camera_info(info)
    assert frame.depth.width == 7
    assert frame.camera_info.width == 9


def test_the_nearest_depth_wins(buffer: ImageBuffer) -> None:
    frame = buffer.add_image(serialized(5.0), Image)
    for stamp_s, width in ((5.015, 1), (5.001, 2), (4.99, 3)):
        buffer.add_depth(serialized(stamp_s, width=width))
    assert frame.depth.width == 2


@pytest.mark.parametrize("apart_s", [0.0201, -0.5, 100.0])
def test_what_is_too_far_apart_is_not_paired(buffer: ImageBuffer, apart_s: float) -> None:
    frame = buffer.add_image(serialized(5.0), Image)
    buffer.add_depth(serialized(5.0 + apart_s))
    assert frame.depth is None


def test_nothing_is_paired_by_a_stamp_of_zero(buffer: ImageBuffer) -> None:
    frame = buffer.add_image(serialized(0.0), Image)
    buffer.add_depth(serialized(0.0))
    assert frame.depth is None


def test_an_image_that_was_pushed_out_keeps_its_depth(buffer: ImageBuffer) -> None:
    frame = buffer.add_image(serialized(5.0), Image)
    buffer.add_depth(serialized(5.0, width=7))
    for number in range(10):
        buffer.add_image(serialized(6.0 + number), Image)
    assert frame.depth.width == 7


def test_the_latest_image_is_the_last_that_came_even_if_the_clock_jumped_back(
    buffer: ImageBuffer,
) -> None:
    buffer.add_image(serialized(100.0), Image)
    buffer.add_depth(serialized(100.0))
    after = buffer.add_image(serialized(1.0), Image)
    buffer.add_depth(serialized(1.0, width=7))
    assert buffer.latest is after
    assert after.depth.width == 7
    assert buffer.clock_jumps == 1


def test_the_buffer_does_not_grow(buffer: ImageBuffer) -> None:
    first = buffer.add_image(serialized(1.0), Image)
    for number in range(2, 50):
        buffer.add_image(serialized(number), Image)
    buffer.add_depth(serialized(1.0))
    assert first.depth is None


def test_a_closed_buffer_forgets_and_takes_nothing(buffer: ImageBuffer) -> None:
    buffer.add_image(serialized(1.0), Image)
    buffer.close()
    assert buffer.add_image(serialized(2.0), Image) is None
    buffer.add_depth(serialized(2.0))
    assert (buffer.latest, buffer.has_depth) == (None, False)
