"""How fast masks become boxes and points: 20,000 masks of 640x480 in 180 s on two cores.

    python -m benchmarks.points --check
    python -m benchmarks.points --count 1000 --json points.json

The masks are unions of ellipses and polygons, drawn before the clock starts: most of middling
size, some tiny, some over the border, some as large as the image. The time counts everything
from the run-length codes on: starting the processes, decoding, both circles, the way back.
"""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np

from benchmarks.figures import conclude, new_parser
from segzero_core.terminal.progress_bar import ProgressBar
from training.data.mask_prompts import MaskPrompt, mask_to_prompt
from training.data.parallel import map_in_order
from training.data.sources.rle import Rle

COUNT = 20_000
TARGET_S = 180.0
MIN_TARGET_S = 10.0  # the processes have to start, however few the masks are
WIDTH, HEIGHT = 640, 480
FULL_FRAME_SHARE = 0.02
BATCH = 32


def draw_mask(rng: np.random.Generator) -> Rle:
    """Draw one mask as they are found in photographs, by chance."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if rng.random() < FULL_FRAME_SHARE:
        return Rle.from_mask(mask == 0)
    # Sides of objects in photographs spread over two orders of magnitude.
    side = float(np.exp(rng.uniform(np.log(6), np.log(400))))
    middle = rng.uniform((0, 0), (WIDTH, HEIGHT))
    for _ in range(rng.integers(1, 4)):
        center = middle + rng.normal(0, 0.3 * side, 2)
        if rng.random() < 0.5:
            axes = np.maximum(2, side * rng.uniform(0.2, 0.6, 2))
            ellipse = (tuple(center.tolist()), tuple((2 * axes).tolist()), rng.uniform(0, 180))
            cv2.ellipse(mask, ellipse, 1, -1)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 30)))
            radii = side * rng.uniform(0.2, 0.6, len(angles))
            corners = center + radii[:, None] * np.stack((np.cos(angles), np.sin(angles)), 1)
            cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
    return Rle.from_mask(mask > 0) if mask.any() else draw_mask(rng)


def prompts_of_batch(masks: list[Rle]) -> list[MaskPrompt]:
    """Read the prompts of some masks."""
    return [mask_to_prompt(mask.decode()) for mask in masks]


def measure(count: int, processes: int) -> dict[str, float]:
    """Return the time that many masks take, beside the time they may take."""
    rng = np.random.default_rng(0)
    masks = [draw_mask(rng) for _ in ProgressBar(range(count), desc="drawing", unit="mask")]
    started = time.perf_counter()
    batches = [masks[start : start + BATCH] for start in range(0, count, BATCH)]
    prompts = map_in_order(prompts_of_batch, batches, processes, cv2.setNumThreads, (1,))
    with ProgressBar(desc="points", unit="mask", total=count) as progress:
        done = 0
        for batch in prompts:
            done += len(batch)
            progress.update(len(batch))
    seconds = time.perf_counter() - started
    return {
        "masks": done,
        "processes": processes,
        "seconds": round(seconds, 2),
        "ms_per_mask": round(1000 * seconds / done, 3),
        "target_s": max(MIN_TARGET_S, TARGET_S * count / COUNT),
    }


def main(argv: list[str] | None = None) -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="masks; scales the target")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args(argv)
    if args.count < 1 or args.processes < 1:
        parser.error("--count and --processes must be at least 1")
    figures = measure(args.count, args.processes)
    missed = figures["seconds"] > figures["target_s"]
    print(
        f"{figures['masks']} masks of {WIDTH}x{HEIGHT} in {figures['seconds']} s with"
        f" {args.processes} processes (target {figures['target_s']:g} s)"
    )
    return conclude(args, figures, missed=missed)


if __name__ == "__main__":
    sys.exit(main())
