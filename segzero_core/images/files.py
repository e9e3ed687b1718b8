"""Reads and writes image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from segzero_core.errors import InputError
from segzero_core.types import RgbImage


def load_image(path: str | Path) -> RgbImage:
    """Read an image file into uint8 [H, W, 3], RGB, upright.

    Args:
        path: In any format that Pillow reads. Transparency is dropped; 16-bit gray is scaled.

    Raises:
        InputError: The file is missing, empty, damaged, too large, or no image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits: Pillow would clip at 255
                values = np.asarray(upright).astype(np.int64).clip(0, 65_535)
                upright = Image.fromarray((values // 257).astype(np.uint8))
            return np.array(upright.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"image {path}: there is no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"image {path}: unknown image format; use PNG or JPEG") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path}: cannot be read: {error}") from error


def save_image(path: str | Path, pixels: RgbImage | NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] or [H, W] to a file; the suffix selects the format.

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
