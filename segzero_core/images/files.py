"""Reads image files of five formats, and writes image files.

Pillow knows many more; some start other programs (EPS starts Ghostscript) or are hardly tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from segzero_core.errors import InputError
from segzero_core.files import open_regular
from segzero_core.limits import MAX_IMAGE_FILE_BYTES, MAX_IMAGE_PX
from segzero_core.types import RgbImage

FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""What is read; Pillow's names."""

UNREADABLE_IMAGE: Final = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises about a damaged image, and `open_image` about one that is not opened."""


@contextmanager
def open_image(
    source: str | Path | bytes,
    formats: tuple[str, ...] = FORMATS,
    max_px: int = MAX_IMAGE_PX,
) -> Iterator[Image.Image]:
    """Open a file or its content as an image of an allowed format, without reading its pixels.

    Raises:
        InputError: It has more pixels.
        OSError: As `open_regular`, or it is in none of the formats; another of
            `UNREADABLE_IMAGE` where it is damaged.
    """
    opened = (
        BytesIO(source)
        if isinstance(source, bytes)
        else open_regular(source, MAX_IMAGE_FILE_BYTES)
    )
    with opened as file, Image.open(file, formats=formats) as image:
        if image.width * image.height > max_px:
            raise InputError(f"{image.width}x{image.height} pixels, at most {max_px} are allowed")
        yield image


def upright_rgb(image: Image.Image) -> RgbImage:
    """Read an image's pixels as uint8 [H, W, 3], turned as its orientation tag says.

    Raises:
        InputError: Its numbers are floats, for which black and white are not known.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("F"):
        raise InputError("a float image has no black and white; convert it to 8 or 16 bits")
    if upright.mode.startswith("I"):  # 16 bits: Pillow would clip at 255
        values = np.asarray(upright).astype(np.int64).clip(0, 65_535)
        upright = Image.fromarray((values // 257).astype(np.uint8))
    return np.array(upright.convert("RGB"))


def load_image(path: str | Path) -> RgbImage:
    """Read a JPEG, PNG, WebP, TIFF or BMP file into uint8 [H, W, 3], RGB, upright.

    Transparency is dropped; 16-bit gray is scaled.

    Raises:
        InputError: The file is missing, empty, damaged, too large, or no image.
    """
    path = Path(path)
    try:
        with open_image(path) as image:
            return upright_rgb(image)
    except FileNotFoundError:
        raise InputError(f"image {path}: there is no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"image {path}: unknown image format; use PNG or JPEG") from None
    except UNREADABLE_IMAGE as error:
        raise InputError(f"image {path}: cannot be read: {error}") from error


def save_image(path: str | Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write uint8 [H, W, 3], uint8 or uint16 [H, W] to a file; the suffix selects the format.

    Raises:
        InputError: The file cannot be written, or the suffix is no image format.
    """
    check_writable(path)
    try:
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be written: {error}") from error


def check_writable(path: str | Path) -> None:
    """Check early whether an image can be written to this path.

    Raises:
        InputError: The folder is missing, the path is a folder, or the suffix is no image format.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file such as {path / 'overlay.png'}")
    if path.suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{path}: {path.suffix or 'no suffix'!r} is no image format; use .png")
