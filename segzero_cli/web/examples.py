"""Images to click: the recorded clips of the demo, with depth and questions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_cli.demo.clip import Shot, find_clip, read_clip
from segzero_cli.web.uploads import encode_image
from segzero_core.checkpoints.registry import BUNDLED
from segzero_core.depth import CameraModel, depth_in_meters
from segzero_core.types import RgbImage

MAX_EXAMPLES: Final = 6


@dataclass(frozen=True, eq=False)
class Example:
    """One image of a clip."""

    model: str  # whose world it shows
    shot: Shot

    @property
    def color(self) -> RgbImage:
        """The image, uint8 [H, W, 3]."""
        return self.shot.color

    @cached_property
    def png(self) -> bytes:
        """The image, encoded."""
        return encode_image(self.shot.color)

    @cached_property
    def depth_m(self) -> NDArray[np.float32]:
        """Depth of each pixel, float32 [H, W], NaN where unknown [m]."""
        return depth_in_meters(self.shot.depth_mm, "16UC1")

    @cached_property
    def camera(self) -> CameraModel:
        """The camera that made the image."""
        fx, fy, cx, cy = (self.shot.scene.intrinsics[name] for name in ("fx", "fy", "cx", "cy"))
        k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        return CameraModel(k, (), self.shot.scene.image_size_wh)

    def record(self) -> dict[str, Any]:
        """What the page shows of it; nothing in the image fits a question of the kind `none`."""
        return {
            "model": self.model,
            "question": self.shot.question.text,
            "is_absent": not self.shot.question.ids,
        }


def load_examples() -> dict[str, Example]:
    """Read the examples of all bundled models, by their names; none where no clip is installed."""
    examples = {}
    for model in BUNDLED:
        clip = find_clip(model)
        shots = read_clip(clip) if clip is not None else []
        for number, shot in enumerate(shots[:MAX_EXAMPLES], start=1):
            examples[f"{model}-{number}"] = Example(model, shot)
    return examples
