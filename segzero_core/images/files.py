"""Reads and writes picture files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from segzero_core.errors import InputError
from segzero_core.types import RgbImage


def load_image(path: str | Path) -> RgbImage:
    """Read a picture file into uint8 [H, W, 3], RGB, upright.

    Args:
        path: A file in any format Pillow reads. Transparency is dropped; 16-bit grey is scaled.

    Raises:
        InputError: The file is missing, empty, damaged, too large, or no picture.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            return np.array(_eight_bit(upright).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"image {path}: there is no such file") from None
    except UnidentifiedImageError:
        raise InputError(
            f"image {path}: no picture format that is known; use PNG or JPEG"
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path}: cannot be read: {error}") from error


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey down; Pillow's own conversion would cut it off at 255."""
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.int64).clip(0, 65_535)
    return Image.fromarray((values // 257).astype(np.uint8))


def save_image(path: str | Path, pixels: RgbImage | NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] or [H, W] to a file; the suffix says the format.

    Raises:
        InputError: The place cannot be written to, or the suffix is no format.
    """
    check_writable(path)
    try:
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be written: {error}") from error


def check_writable(path: str | Path) -> None:
    """Find out before the work whether a picture can be written to this path.

    Raises:
        InputError: Its folder is missing, it is a folder, or its suffix is no picture format.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file such as {path / 'overlay.png'}")
    if path.suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{path}: {path.suffix or 'no suffix'!r} is no picture format; use .png")
