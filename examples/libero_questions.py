"""Ask eight questions about scenes of LIBERO's suites, and write one image of the answers.

    make libero                                  # the bundled model libero, build/libero.png
    python -m examples.libero_questions --model M --out FILE

The questions were chosen once, before the model was trained: they show what it finds, not what it
finds best. Needs the extra `libero` for the scenes; the model itself does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from PIL import Image

from segzero_cli import console
from segzero_cli.segment import show
from segzero_core.checkpoints.cache import cache_folder
from segzero_core.errors import SegZeroError
from segzero_core.images.files import check_writable, save_image
from segzero_core.images.lettering import add_caption
from segzero_core.images.overlay import draw_overlay
from segzero_core.pipeline import SegZero
from segzero_core.types import Result, RgbImage
from worlds.libero.benchmark.rendering import render_tasks
from worlds.libero.benchmark.suites import BenchmarkError, open_suite


class Question(NamedTuple):
    """A question about the first initial state of a task."""

    suite: str
    task: int
    text: str


SPATIAL, GOAL, OBJECT = "libero_spatial_swap", "libero_goal_swap", "libero_object_swap"
QUESTIONS: Final = (
    Question(
        SPATIAL, 0, "pick the black bowl between the plate and the ramekin and put it on the plate"
    ),
    Question(SPATIAL, 6, "the black bowl next to the cookies box"),
    Question(SPATIAL, 9, "where does it go: put the black bowl on the plate"),
    Question(GOAL, 2, "put the wine bottle on top of the cabinet"),
    Question(GOAL, 0, "something to heat a pot on"),
    Question(OBJECT, 3, "what could I dip fries in?"),
    Question(OBJECT, 7, "pick up the milk and place it in the basket"),
    Question(OBJECT, 0, "pick up the microscope"),
)

_COLUMNS: Final = 4
_SHARE: Final = 0.75
"""Of an image's size."""
_MARGIN_PX: Final = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m examples.libero_questions", description=__doc__)
    parser.add_argument("--model", default="libero", help="name, folder or Hub id")
    parser.add_argument("--out", type=Path, default=Path("build/libero.png"))
    args = parser.parse_args(argv)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        check_writable(args.out)
        images = [scene_of(question) for question in QUESTIONS]
        console.quieten_libraries()
        model = SegZero.load(args.model)
        panels = [panel(image, result) for image, result in ask_all(model, images)]
        save_image(args.out, sheet(panels))
    except (SegZeroError, BenchmarkError, RuntimeError, OSError) as error:
        print(f"libero: error: {error}", file=sys.stderr)
        return 2
    print(f"\nwritten to {args.out}")
    return 0


def scene_of(question: Question) -> RgbImage:
    """Return the image of `agentview` [480, 640, 3], rendered when it is asked for first.

    Raises:
        LiberoMissingError: The extra is not installed; the message has the command.
    """
    tasks, _ = open_suite(question.suite, 1)
    task = next(task for task in tasks if task.index == question.task)
    # A folder of its own: the benchmark counts what is left out of whole suites.
    folder = cache_folder("libero-questions") / question.suite
    folder.mkdir(parents=True, exist_ok=True)
    for _ in render_tasks([task], (), 1, folder):
        pass
    image = Image.open(folder / f"task{task.index:02d}_state000" / "color.png").convert("RGB")
    return np.asarray(image)


def ask_all(model: SegZero, images: Sequence[RgbImage]) -> Iterator[tuple[RgbImage, Result]]:
    """Ask each question, and print its thinking as it comes."""
    for number, (question, image) in enumerate(zip(QUESTIONS, images, strict=True), start=1):
        print(f"\n{number}. {question.text}  [{question.suite}, task {question.task}]")
        result = show(model.stream(image, question.text), sys.stdout)
        found = len(result.segmentation)
        print(f"{found or 'no'} object{'s' * (found != 1)}, {result.timings.total_ms:.0f} ms")
        yield image, result


def panel(image: RgbImage, result: Result) -> RgbImage:
    """Draw the masks into the image, and question and thinking below it."""
    drawn = draw_overlay(image, result.segmentation, result.reasoning.prompts)
    captioned = add_caption(
        drawn, result.query, result.reasoning.thinking, max_lines=(2, 5), is_fixed=True
    )
    small = cv2.resize(captioned, None, fx=_SHARE, fy=_SHARE, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def sheet(panels: Sequence[RgbImage]) -> RgbImage:
    """Lay panels of one size out in rows."""
    padded = [
        np.pad(part, ((0, _MARGIN_PX), (0, _MARGIN_PX), (0, 0)), constant_values=255)
        for part in panels
    ]
    rows = [padded[i : i + _COLUMNS] for i in range(0, len(padded), _COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
