"""Reading and writing images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segzero_core import InputError, RgbImage, load_image
from segzero_core.images.files import check_writable, save_image


def test_what_was_saved_is_loaded(image: RgbImage, tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", image)

    assert np.array_equal(load_image(tmp_path / "a.png"), image)


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("I;16", 257 * 9, (9, 9, 9)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_every_kind_of_image_becomes_rgb(
    tmp_path: Path, mode: str, pixel: object, expected: tuple[int, int, int]
) -> None:
    Image.new(mode, (3, 2), pixel).save(tmp_path / "a.png")  # type: ignore[arg-type]

    loaded = load_image(tmp_path / "a.png")

    assert loaded.shape == (2, 3, 3)
    assert tuple(loaded[0, 0]) == expected


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)

    assert load_image(tmp_path / "a.jpg").shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(None, "no such file", id="missing"),
        pytest.param(b"", "image format", id="empty"),
        pytest.param(b"hello", "image format", id="text"),
        pytest.param("cut", "cannot be read", id="cut off"),
        pytest.param("bad", "cannot be read|image format", id="damaged"),
    ],
)
def test_an_unreadable_image_is_refused(
    tmp_path: Path, image: RgbImage, data: bytes | str | None, message: str
) -> None:
    path = tmp_path / "a.png"
    if isinstance(data, str):
        save_image(path, image)
        good = path.read_bytes()
        data = good[: len(good) // 2] if data == "cut" else good[:40] + b"\0" * 99 + good[139:]
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(InputError, match=message):
        load_image(path)


def test_formats_that_start_other_programs_are_not_read(tmp_path: Path) -> None:
    """Pillow gives EPS to Ghostscript, whatever the file is called."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\n"
    (tmp_path / "a.jpg").write_bytes(eps)
    with pytest.raises(InputError, match="unknown image format"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp"])
def test_the_promised_formats_are_read(tmp_path: Path, image: RgbImage, suffix: str) -> None:
    save_image(tmp_path / f"a.{suffix}", image)
    assert load_image(tmp_path / f"a.{suffix}").shape == image.shape


def test_a_float_image_is_refused_for_it_has_no_black_and_white(tmp_path: Path) -> None:
    Image.new("F", (3, 2), 0.5).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match="no black and white"):
        load_image(tmp_path / "a.tiff")


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="no regular file"):
        load_image(tmp_path / "a.png")


def test_more_pixels_than_allowed_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    Image.new("1", (8_001, 10_000)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="at most 80000000 are allowed"):
        load_image(tmp_path / "a.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_image(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/such/a.png", "no folder"), ("", "is a folder"), ("a.xyz", "format"), ("a", "suffix")],
)
def test_a_place_that_cannot_be_written_is_refused(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_writable(tmp_path / name)
