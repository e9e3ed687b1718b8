"""Images that visitors send: limits, and what they are is found by decoding, never by name."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from PIL import Image, UnidentifiedImageError

from segzero_core.errors import InputError
from segzero_core.images.files import UNREADABLE_IMAGE, open_image, upright_rgb
from segzero_core.limits import USUAL_IMAGE_PX
from segzero_core.types import RgbImage

MAX_UPLOAD_BYTES: Final = 40_000_000
"""Of one encoded image."""


def decode_image(data: bytes) -> RgbImage:
    """Read an uploaded image as uint8 [H, W, 3], upright.

    Raises:
        InputError: It is empty, too large, damaged, or no image.
    """
    if not data:
        raise InputError("the file is empty; choose an image in PNG, JPEG, WebP, TIFF or BMP")
    try:
        with open_image(data, max_px=USUAL_IMAGE_PX) as image:
            return upright_rgb(image)
    except InputError as error:
        raise InputError(f"the image is too large: {error}; send a smaller one") from error
    except UnidentifiedImageError:
        raise InputError(
            "the file is not an image, whatever its name says; choose PNG, JPEG, WebP, TIFF or BMP"
        ) from None
    except Image.DecompressionBombError as error:
        raise InputError(f"the image is too large: {error}; send a smaller one") from error
    except UNREADABLE_IMAGE as error:
        raise InputError(f"the image is damaged: {error}; save it again") from error


def encode_image(pixels: RgbImage, kind: str = "PNG") -> bytes:
    """Return an image as the bytes of a PNG, or of a JPEG for a camera's live view."""
    buffer = BytesIO()
    options = {"compress_level": 1} if kind == "PNG" else {"quality": 88}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()
