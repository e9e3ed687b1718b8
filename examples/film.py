"""Films a cell: a small GIF of the question, what the node saw, and the gripper at work."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worlds.common.camera_pose import CameraPose
from worlds.tabletop.camera import Camera, look_at
from worlds.tabletop.world import World

MAX_BYTES: Final = 3_000_000
SIZE_WH: Final = (400, 300)
FRAME_S: Final = 0.125
_TITLE_S, _END_S = 3.5, 1.5
_COLORS: Final = 96
_BAR_PX: Final = 26
_TINT: Final = (255, 40, 40)
_DISTANCE_M: Final = 1.15
_LOOK_AT: Final = (0.0, 0.0, 0.08)


class Film:
    """Takes a frame every eighth of a second of simulated time, while it is on.

    Args:
        camera: Draws the frames.
        pose: Of the robot's camera: the film is taken from its side, and farther away.
    """

    def __init__(self, camera: Camera, pose: CameraPose) -> None:
        self._camera = camera
        away = np.array(pose.position_m) - _LOOK_AT
        azimuth = math.atan2(away[1], away[0])
        away = np.array([math.cos(azimuth), math.sin(azimuth), 0.62])
        away /= np.linalg.norm(away)
        self._pose = CameraPose(
            np.array(_LOOK_AT) + _DISTANCE_M * away, look_at(-away), math.radians(42)
        )
        self._frames: list[Image.Image] = []
        self._seconds: list[float] = []
        self._next_s = math.inf

    def start(self) -> None:
        """Film from now on."""
        self._next_s = 0.0

    def title(
        self, color: NDArray[np.uint8], mask: NDArray[np.bool_], query: str, thinking: str
    ) -> None:
        """Show what the node saw, the mask that it found, and what it thought."""
        pixels = color.astype(np.float32)
        pixels[mask] = 0.45 * pixels[mask] + 0.55 * np.array(_TINT, np.float32)
        frame = Image.fromarray(pixels.astype(np.uint8)).resize(SIZE_WH, Image.Resampling.LANCZOS)
        lines = [f"“{query}”", *textwrap.wrap(thinking, 62)[:4]]
        self._add(_written(frame, lines), _TITLE_S)

    def step(self, world: World, time_s: float, caption: str) -> None:
        """Take a frame if it is time for one."""
        if time_s < self._next_s:
            return
        self._next_s = max(time_s, self._next_s) + FRAME_S
        image = self._camera.shoot(world, self._pose)
        frame = Image.fromarray(image.color).resize(SIZE_WH, Image.Resampling.LANCZOS)
        self._add(_written(frame, [caption]), FRAME_S)

    def _add(self, frame: Image.Image, seconds: float) -> None:
        self._frames.append(frame)
        self._seconds.append(seconds)

    def save(self, path: Path) -> int:
        """Write the GIF; returns its size in bytes.

        Raises:
            ValueError: It is larger than a README should carry.
        """
        self._seconds[-1] = _END_S
        # One palette for all frames: what does not move stays the same to the bit.
        sample = Image.new("RGB", (SIZE_WH[0], 3 * SIZE_WH[1]))
        for i, frame in enumerate((self._frames[0], self._frames[1], self._frames[-1])):
            sample.paste(frame, (0, i * SIZE_WH[1]))
        palette = sample.quantize(_COLORS, Image.Quantize.MEDIANCUT)
        frames = [
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self._frames
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=[round(1000 * each) for each in self._seconds],
            loop=0,
            optimize=True,
        )
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{path} has {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g} MB")
        return size


def _written(frame: Image.Image, lines: list[str]) -> Image.Image:
    """Write lines into a dark bar at the lower edge; the first one is larger."""
    fonts: list[Any] = [ImageFont.load_default(15), *[ImageFont.load_default(12)] * len(lines)]
    height = _BAR_PX + 16 * (len(lines) - 1)
    draw = ImageDraw.Draw(frame, "RGBA")
    draw.rectangle((0, frame.height - height, *frame.size), fill=(10, 10, 14, 190))
    y = frame.height - height + 4
    for line, font in zip(lines, fonts, strict=False):
        draw.text((8, y), line, font=font, fill=(255, 255, 255, 255))
        y += 17
    return frame
