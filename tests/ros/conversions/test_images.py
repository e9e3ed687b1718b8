"""Every encoding there and back, with odd steps, foreign byte order and wrong numbers."""

from __future__ import annotations

import array
import io
import sys
import types

import numpy as np
import pytest
from PIL import Image as PilImage
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from segzero_core.errors import InputError
from segzero_core.images.encodings import ENCODINGS, array_from_msg, rgb_from_compressed_msg
from segzero_ros.conversions.images import mask_to_msg, msg_from_array, rgb_from_msg

HEIGHT, WIDTH = 5, 7


def pixels_of(encoding: str) -> np.ndarray:
    """Different values everywhere, over the whole range of the type."""
    layout = ENCODINGS[encoding]
    shape = (HEIGHT, WIDTH) + ((layout.channels,) if layout.channels > 1 else ())
    rng = np.random.default_rng(7)
    if layout.dtype == "f4":
        return rng.uniform(0.2, 9.0, shape).astype(np.float32)
    return rng.integers(0, np.iinfo(layout.dtype).max + 1, shape).astype(layout.dtype)


def message_of(
    pixels: np.ndarray, encoding: str, *, padding: int = 0, big_endian: bool = False
) -> Image:
    """Build a message by hand, row by row, as a foreign driver would."""
    order = ">" if big_endian else "<"
    rows = [
        row.astype(row.dtype.newbyteorder(order)).tobytes() + b"\xee" * padding for row in pixels
    ]
    return Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=len(rows[0]),
        data=array.array("B", b"".join(rows)),
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_array_survives_the_way_there_and_back(encoding: str) -> None:
    pixels = pixels_of(encoding)
    header = Header(frame_id="camera")
    header.stamp.sec = 42
    msg = msg_from_array(pixels, encoding, header)
    assert msg.header == header
    assert msg.step * msg.height == len(msg.data)
    np.testing.assert_array_equal(array_from_msg(msg), pixels)


@pytest.mark.parametrize("padding", [1, 3, 16], ids=lambda n: f"{n} bytes of padding")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_padding_at_the_end_of_rows_is_not_read(encoding: str, padding: int) -> None:
    pixels = pixels_of(encoding)
    msg = message_of(pixels, encoding, padding=padding)
    np.testing.assert_array_equal(array_from_msg(msg), pixels)
    np.testing.assert_array_equal(rgb_from_msg(msg), rgb_from_msg(message_of(pixels, encoding)))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_byte_order_of_the_sender_is_honoured(encoding: str) -> None:
    pixels = pixels_of(encoding)
    msg = message_of(pixels, encoding, big_endian=True, padding=1)
    np.testing.assert_array_equal(array_from_msg(msg), pixels)
    np.testing.assert_array_equal(rgb_from_msg(msg), rgb_from_msg(message_of(pixels, encoding)))


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2]), ("bgra8", [2, 1, 0])],
)
def test_colours_come_out_red_first(encoding: str, order: list[int]) -> None:
    pixels = pixels_of(encoding)
    rgb = rgb_from_msg(message_of(pixels, encoding))
    np.testing.assert_array_equal(rgb, pixels[..., order])
    assert rgb.flags.c_contiguous


def test_gray_becomes_three_equal_channels() -> None:
    pixels = pixels_of("mono8")
    rgb = rgb_from_msg(message_of(pixels, "mono8"))
    for channel in range(3):
        np.testing.assert_array_equal(rgb[..., channel], pixels)


def test_sixteen_bit_gray_keeps_its_high_byte() -> None:
    pixels = pixels_of("mono16")
    rgb = rgb_from_msg(message_of(pixels, "mono16", big_endian=True))
    np.testing.assert_array_equal(rgb[..., 1], pixels >> 8)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_a_image_without_fixed_range_is_stretched_from_black_to_white(encoding: str) -> None:
    rgb = rgb_from_msg(message_of(pixels_of(encoding), encoding))
    assert (rgb.min(), rgb.max()) == (0, 255)


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, 3.0], ids=["all NaN", "all infinite", "all the same"]
)
def test_a_image_without_contrast_is_black(value: float) -> None:
    pixels = np.full((HEIGHT, WIDTH), value, np.float32)
    assert not rgb_from_msg(message_of(pixels, "32FC1")).any()


def test_invalid_pixels_do_not_disturb_the_stretching() -> None:
    pixels = pixels_of("32FC1")
    pixels[0, :3] = np.nan, np.inf, -np.inf
    rgb = rgb_from_msg(message_of(pixels, "32FC1"))
    assert rgb[1:].max() == 255 or rgb[0, 3:].max() == 255


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_reading_a_message_copies_nothing(encoding: str) -> None:
    msg = message_of(pixels_of(encoding), encoding, padding=2)
    assert np.shares_memory(array_from_msg(msg), np.frombuffer(msg.data, np.uint8))


def test_an_rgb8_message_without_padding_reaches_the_model_uncopied() -> None:
    msg = message_of(pixels_of("rgb8"), "rgb8")
    assert np.shares_memory(rgb_from_msg(msg), np.frombuffer(msg.data, np.uint8))


def test_an_array_of_a_message_cannot_be_written_to() -> None:
    msg = message_of(pixels_of("rgb8"), "rgb8")
    with pytest.raises(ValueError, match="read-only"):
        rgb_from_msg(msg)[0, 0, 0] = 1


def test_a_slice_that_is_not_contiguous_is_sent_right() -> None:
    wide = np.arange(HEIGHT * 20, dtype=np.uint8).reshape(HEIGHT, 20)
    msg = msg_from_array(wide[:, 3:10], "mono8", Header())
    np.testing.assert_array_equal(array_from_msg(msg), wide[:, 3:10])


def test_an_array_of_foreign_byte_order_is_sent_little_endian() -> None:
    pixels = pixels_of("16UC1")
    msg = msg_from_array(pixels.astype(">u2").view(">u2"), "16UC1", Header())
    assert not msg.is_bigendian
    np.testing.assert_array_equal(array_from_msg(msg), pixels)


def test_a_mask_is_sent_as_0_and_255() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[1:3, 2] = True
    msg = mask_to_msg(mask, Header())
    assert msg.encoding == "mono8"
    np.testing.assert_array_equal(array_from_msg(msg), np.where(mask, 255, 0))


def test_a_mask_without_pixels_can_be_sent() -> None:
    msg = mask_to_msg(np.zeros((0, 0), np.bool_), Header())
    assert (msg.width, msg.height, len(msg.data)) == (0, 0, 0)


def change(msg: Image, **fields: object) -> Image:
    for name, value in fields.items():
        setattr(msg, name, value)
    return msg


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        pytest.param({"step": 20}, "step: 20 bytes, but 7 pixels of rgb8 take 21", id="step"),
        pytest.param({"step": 22}, "data: 105 bytes, but step 22 times height 5", id="too long"),
        pytest.param({"height": 6}, "data: 105 bytes", id="too few rows"),
        pytest.param({"height": 4}, "data: 105 bytes", id="too many rows"),
        pytest.param({"data": array.array("B")}, "data: 0 bytes", id="no data"),
        pytest.param({"width": 0}, "0x5 pixels", id="no width"),
        pytest.param({"height": 0}, "7x0 pixels", id="no height"),
        pytest.param({"encoding": "rgba8"}, "take 28", id="another encoding's step"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(fields: dict[str, object], complaint: str) -> None:
    msg = change(message_of(pixels_of("rgb8"), "rgb8"), **fields)
    with pytest.raises(InputError, match=complaint):
        rgb_from_msg(msg)


@pytest.mark.parametrize("encoding", ["", "yuv422", "bayer_rggb8", "8UC3", "RGB8", "16SC1"])
def test_another_encoding_without_cv_bridge_names_both(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # as if it were not installed
    msg = change(message_of(pixels_of("rgb8"), "rgb8"), encoding=encoding)
    with pytest.raises(InputError, match=f"{encoding!r} is none of .*rgb8.* cv_bridge"):
        rgb_from_msg(msg)


def fake_cv_bridge(monkeypatch: pytest.MonkeyPatch, convert: object) -> None:
    class CvBridge:
        def imgmsg_to_cv2(self, msg: Image, desired_encoding: str) -> np.ndarray:
            assert desired_encoding == "rgb8"
            return convert(msg)

    module = types.ModuleType("cv_bridge")
    module.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


def test_another_encoding_goes_to_cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pixels_of("rgb8")
    fake_cv_bridge(monkeypatch, lambda _: expected)
    msg = change(message_of(expected, "rgb8"), encoding="yuv422")
    np.testing.assert_array_equal(rgb_from_msg(msg), expected)


def test_what_cv_bridge_refuses_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Image) -> np.ndarray:
        raise RuntimeError("Unrecognized image encoding")

    fake_cv_bridge(monkeypatch, refuse)
    msg = change(message_of(pixels_of("rgb8"), "rgb8"), encoding="nonsense")
    with pytest.raises(InputError, match=r"'nonsense'.*Unrecognized image encoding"):
        rgb_from_msg(msg)


@pytest.mark.parametrize(
    ("pixels", "encoding"),
    [
        pytest.param(np.zeros((2, 2), np.uint8), "rgb8", id="no channels"),
        pytest.param(np.zeros((2, 2, 4), np.uint8), "rgb8", id="too many channels"),
        pytest.param(np.zeros((2, 2), np.float32), "mono8", id="another type"),
        pytest.param(np.zeros(4, np.uint8), "mono8", id="no image"),
        pytest.param(np.zeros((2, 2), np.uint8), "8UC1", id="another encoding"),
    ],
)
def test_an_array_that_does_not_fit_its_encoding_is_refused(
    pixels: np.ndarray, encoding: str
) -> None:
    with pytest.raises(InputError, match=encoding):
        msg_from_array(pixels, encoding, Header())


def compressed(image: PilImage.Image, image_format: str) -> CompressedImage:
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    return CompressedImage(format=image_format.lower(), data=array.array("B", buffer.getvalue()))


def test_a_png_message_is_decoded_exactly() -> None:
    pixels = pixels_of("rgb8")
    msg = compressed(PilImage.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(rgb_from_compressed_msg(msg), pixels)


def test_a_jpeg_message_is_decoded_nearly() -> None:
    pixels = np.full((16, 16, 3), (200, 90, 30), np.uint8)
    rgb = rgb_from_compressed_msg(compressed(PilImage.fromarray(pixels), "JPEG"))
    np.testing.assert_allclose(rgb.astype(int), pixels, atol=4)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_other_kinds_of_png_become_rgb(mode: str) -> None:
    image = PilImage.fromarray(pixels_of("rgb8")).convert(mode)
    assert rgb_from_compressed_msg(compressed(image, "PNG")).shape == (HEIGHT, WIDTH, 3)


def test_a_sixteen_bit_png_keeps_its_high_byte() -> None:
    pixels = pixels_of("mono16")
    msg = compressed(PilImage.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(rgb_from_compressed_msg(msg)[..., 2], pixels >> 8)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no image at all", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0", id="a PNG cut off at once"),
        pytest.param(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", id="another format"),
    ],
)
def test_broken_compressed_images_are_refused(data: bytes) -> None:
    msg = CompressedImage(format="jpeg", data=array.array("B", data))
    with pytest.raises(InputError, match="no readable JPEG or PNG"):
        rgb_from_compressed_msg(msg)


def test_a_jpeg_cut_in_the_middle_is_refused() -> None:
    image = PilImage.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))
    msg = compressed(image, "JPEG")
    msg.data = msg.data[: len(msg.data) // 2]
    with pytest.raises(InputError, match="no readable JPEG or PNG"):
        rgb_from_compressed_msg(msg)
