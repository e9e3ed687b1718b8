"""Films an episode: a small GIF of the questions, what was answered, and the arm at work."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from examples.pick_and_place.interfaces import Eyes, Image, Sight
from segzero_core.images.lettering import add_caption
from segzero_core.images.overlay import draw_overlay
from segzero_core.types import RgbImage, Segmentation
from worlds.libero.robot.cell import Cell

MAX_BYTES: Final = 4_000_000
WIDTH_PX: Final = 480
EVERY_STEPS: Final = 4
"""Of the controller, twenty a second: the film runs at twice the arm's speed."""
_STEP_S, _TITLE_S, _END_S = 0.1, 3.0, 2.0
_COLORS: Final = 255
_LINES: Final = (2, 2)


class Film:
    """Takes frames of a cell's episode, from the camera before the robot.

    Args:
        cell: At the beginning of an episode.
        instruction: Stands under every frame.
    """

    def __init__(self, cell: Cell, instruction: str) -> None:
        self._cell, self._caption = cell, f"“{instruction}”"
        self._frames: list[RgbImage] = []
        self._seconds: list[float] = []
        cell.on_step = self._on_step

    def show(self, text: str, image: Image, sight: Sight) -> None:
        """Show a question, the masks that answer it, and the thoughts."""
        scores = np.ones(len(sight.masks), np.float32)
        drawn = draw_overlay(image.color, Segmentation(sight.masks, scores), labels=())
        answer = sight.error or sight.thinking or ("" if len(sight.masks) else "nothing matches")
        self._add(drawn, f"segzero: “{text}”", answer, _TITLE_S)

    def save(self, path: Path) -> int:
        """Write the GIF; returns its size in bytes.

        Raises:
            ValueError: It is larger than a README should carry.
        """
        self._add(self._cell.look("agentview").color, self._caption, "", _END_S)
        # One palette for all frames: what does not move stays the same to the bit.
        some = [*self._frames[:2], self._frames[len(self._frames) // 2], self._frames[-1]]
        sample = PilImage.fromarray(np.concatenate(some))
        palette = sample.quantize(_COLORS, PilImage.Quantize.MAXCOVERAGE, kmeans=2)
        frames = [
            PilImage.fromarray(frame).quantize(palette=palette, dither=PilImage.Dither.NONE)
            for frame in self._frames
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

    def _on_step(self) -> None:
        if self._cell.steps % EVERY_STEPS == 0:
            self._add(self._cell.look("agentview").color, self._caption, "", _STEP_S)

    def _add(self, color: NDArray[np.uint8], title: str, text: str, seconds: float) -> None:
        frame = add_caption(color, title, text, max_lines=_LINES, is_fixed=True)
        share = WIDTH_PX / frame.shape[1]
        small = cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        self._frames.append(np.asarray(small, np.uint8))
        self._seconds.append(seconds)


class FilmedEyes:
    """Passes questions on, and films them with their answers."""

    def __init__(self, eyes: Eyes, film: Film) -> None:
        self._eyes, self._film = eyes, film

    def find(self, text: str, image: Image) -> Sight:
        """See `Eyes`."""
        sight = self._eyes.find(text, image)
        self._film.show(text, image, sight)
        return sight
