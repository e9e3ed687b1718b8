"""Counts a Qwen-VL processor's image tokens, to detect a server that resizes silently."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import ConfigError
from segzero_core.files import read_regular
from segzero_core.limits import MAX_JSON_BYTES
from segzero_core.types import SizeWH

_PROCESSOR_FILES: Final = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """The rule by which a processor resizes an image and cuts it into tokens."""

    factor: int  # sides are rounded to multiples of this [px]; each square of it is one token
    min_px: int  # a smaller image is enlarged to this many pixels
    max_px: int  # a larger one is reduced to it

    def count(self, size_wh: SizeWH) -> int:
        """Return the tokens of an image.

        Source: `smart_resize` of Qwen2-VL's processor.
        """
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        height, width = smart_resize(
            size_wh[1],
            size_wh[0],
            factor=self.factor,
            min_pixels=self.min_px,
            max_pixels=self.max_px,
        )
        return int(height // self.factor) * int(width // self.factor)

    def probe_sizes(self, seen_wh: SizeWH) -> tuple[SizeWH, SizeWH]:
        """Return the seen size and another one that must give another number of tokens."""
        width, height = seen_wh
        seen = self.count(seen_wh)
        # A processor of one fixed area makes other numbers only of other shapes.
        others = ((width // 4, height // 4), (width // 2, height // 2), (2 * width, height))
        for other in others:
            if min(other) >= self.factor and self.count(other) != seen:
                return seen_wh, other
        raise ConfigError(f"seen_size_wh: {list(seen_wh)} is too small to check a server with")


QWEN2_5_VL: Final = ImageTokens(28, 3_136, 12_845_056)
QWEN3_VL: Final = ImageTokens(32, 65_536, 16_777_216)


def tokens_of_folder(folder: Path) -> ImageTokens | None:
    """Read the rule from a model folder's processor configuration; None where it tells none."""
    for name in _PROCESSOR_FILES:
        values: Any = _read(folder / name)
        values = values.get("image_processor", values)
        size: Any = values.get("size")
        if isinstance(size, dict):
            sides: list[Any] = [values.get("patch_size"), values.get("merge_size")]
            limits: list[Any] = [size.get("shortest_edge"), size.get("longest_edge")]
            if all(map(_is_count, sides + limits)):
                return ImageTokens(sides[0] * sides[1], *limits)
    return None


def tokens_of_name(name: str) -> ImageTokens:
    """Return the rule of the family that a published model belongs to."""
    return QWEN3_VL if "qwen3" in name.lower() else QWEN2_5_VL


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= 2**31


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_regular(path, MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
