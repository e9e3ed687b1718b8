"""How well and how fast objects are followed: clips of unseen seeds, and 1,000 images on end.

    python -m benchmarks.tracking --check
    python -m benchmarks.tracking --clips 4 --memory-frames 200 --json tracking.json
    python -m benchmarks.tracking --seed 1000002 --picture docs/tracking.png  # measures nothing

Each clip has 60 images in which the camera moves and an object is pushed, hidden by an arm, and
left by the camera. The tracker begins with the true mask of that object. IoU is the mean over all
images but the first; where the object is not to be seen, an empty mask is right. Beside it stand
the first mask kept still, and the segmenter whose memory was never trained. The time counts
everything from an image's pixels to its mask, in a process with as many threads as asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.figures import conclude, new_parser
from segzero_core.checkpoints.registry import bundled_folder
from segzero_core.checkpoints.sam2_architecture import build_sam2
from segzero_core.checkpoints.sam2_checkpoint import (
    find_sam2,
    load_sam2,
    read_state,
    read_tracking_facts,
)
from segzero_core.errors import SegZeroError
from segzero_core.geometry import mask_iou
from segzero_core.images.overlay import draw_overlay
from segzero_core.images.palette import choose_colors
from segzero_core.terminal.progress_bar import ProgressBar
from segzero_core.tracking.tracker import Sam2Tracker
from segzero_core.types import RgbImage, Segmentation
from training.bundle.tracker.train import TRAINED
from worlds.tabletop.camera import Camera
from worlds.tabletop.clips import RATE_HZ, film

SEED = 1_000_000
CLIPS = 12
FRAMES = 60
MEMORY_FRAMES = 1_000
TARGET_IOU = 0.75
TARGET_HZ = 5.0
MAX_GROWTH_MB = 20.0  # of the allocator's own unrest; one remembered image is 1 MB and more


@dataclass
class Scores:
    """IoU of one way to follow, by what happens to the object."""

    by_event: dict[str, list[float]] = field(default_factory=dict)
    visible: list[float] = field(default_factory=list)
    hidden: list[float] = field(default_factory=list)

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_], event: str) -> None:
        """Compare one mask with the truth."""
        iou = mask_iou(mask, truth)
        (self.visible if truth.any() else self.hidden).append(iou)
        self.by_event.setdefault(event, []).append(iou)

    def figures(self) -> dict[str, float]:
        """Return the means over all images, and over some kinds of them."""
        rows = {"mean": self.visible + self.hidden, "visible": self.visible, "hidden": self.hidden}
        rows |= self.by_event
        return {name: round(float(np.mean(ious)), 3) for name, ious in rows.items() if ious}


@dataclass(frozen=True, eq=False)
class Frame:
    """An image of a clip: what the camera sees, where the target is, and what happens to it."""

    color: RgbImage
    truth: NDArray[np.bool_]
    event: str

    @property
    def answer(self) -> Segmentation:
        """The target as if it had been asked for."""
        return Segmentation(self.truth[None], np.ones(1, np.float32))


def watch(camera: Camera, seed: int, frames: int = FRAMES) -> Iterator[Frame]:
    """Film a clip, image by image."""
    clip, images = film(camera, seed, frames, RATE_HZ)
    kinds = {index: each.kind for each in clip.events for index in range(each.start, each.stop)}
    for index, image in enumerate(images):
        truth = image.instances == clip.target
        yield Frame(image.color, truth, kinds.get(index, "none"))


def measure_clips(
    trackers: dict[str, Sam2Tracker], clips: int, seed: int
) -> tuple[dict[str, Scores], list[float]]:
    """Follow the target of every clip; return the scores and the seconds of the first tracker."""
    scores = {name: Scores() for name in (*trackers, "still")}
    seconds: list[float] = []
    with Camera() as camera:
        for index in ProgressBar(range(clips), desc="clips", unit="clip"):
            frames = watch(camera, seed + index)
            first = next(frames)
            for tracker in trackers.values():
                tracker.start(first.color, first.answer)
            for frame in frames:
                scores["still"].add(first.truth, frame.truth, frame.event)
                for name, tracker in trackers.items():
                    began = time.perf_counter()
                    mask = tracker.step(frame.color).tracks[0].mask
                    if name == next(iter(trackers)):
                        seconds.append(time.perf_counter() - began)
                    scores[name].add(mask, frame.truth, frame.event)
    return scores, seconds


def draw_clip(tracker: Sam2Tracker, seed: int, frames: int = FRAMES) -> RgbImage:
    """Follow the target of a clip, and draw eight of its images in two rows, in half their size.

    Args:
        tracker: What follows; what it followed before is forgotten.
        seed: Of the clip.
        frames: Images of the clip, at least eight.
    """
    chosen = np.linspace(0, frames - 1, 8).round().astype(int)
    tiles, colors = [], []
    with Camera() as camera:
        for index, frame in enumerate(watch(camera, seed, frames)):
            found = (
                tracker.step(frame.color) if index else tracker.start(frame.color, frame.answer)
            )
            if index in chosen:
                masks = np.stack([track.mask for track in found.tracks])
                scores = np.array([track.score for track in found.tracks], np.float32)
                colors = choose_colors(frame.color, masks, colors)
                drawn = draw_overlay(frame.color, Segmentation(masks, scores), colors=colors)
                tiles.append(cv2.resize(drawn, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return np.concatenate([np.concatenate(row, axis=1) for row in (tiles[:4], tiles[4:])])


def measure_memory(tracker: Sam2Tracker, frames: int, seed: int) -> dict[str, float]:
    """Follow for long, and return how the process grew after its first 100 images."""
    with Camera() as camera:
        images = list(watch(camera, seed, 20))
    tracker.start(images[0].color, images[0].answer)
    warm, sizes, remembered = min(100, frames // 2), [], set()
    there_and_back: Iterable[int] = [*range(20), *range(18, 0, -1)]
    order = np.resize(np.array(list(there_and_back)), frames)
    for step, index in enumerate(ProgressBar(order, desc="on end", unit="image")):
        tracker.step(images[index].color)
        if step >= warm:
            sizes.append(resident_mb())
            remembered.add(tracker.remembered)
    tenth = max(1, len(sizes) // 10)
    return {
        "frames": frames,
        "remembered": max(remembered),
        "constant": len(remembered) == 1,
        "growth_mb": round(float(np.median(sizes[-tenth:]) - np.median(sizes[:tenth])), 1),
    }


def untrained_tracker(folder: Path) -> Sam2Tracker:
    """Return a tracker with the same segmenter, whose memory is as it was built."""
    torch.manual_seed(0)
    files = find_sam2(str(folder))
    state, trained = build_sam2(files.config).state_dict(), read_state(files.weights)
    known = {name: trained[name] for name in state if not name.startswith(TRAINED)}
    model = load_sam2(files, torch.device("cpu"))
    model.load_state_dict(state | known)
    facts = read_tracking_facts(files.config)
    return Sam2Tracker(model, facts.side, careful=facts.careful)


def resident_mb() -> float:
    """Return the process's resident memory [MB]."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    torch.set_num_threads(args.threads)
    folder = _segmenter(args)
    tracker = Sam2Tracker.load(str(folder))
    trackers = {"tracker": tracker, "untrained": untrained_tracker(Path(folder))}
    scores, seconds = measure_clips(trackers, args.clips, args.seed)
    facts = read_tracking_facts(find_sam2(str(folder)).config)
    return {
        "segmenter": str(args.segmenter or "tabletop"),
        "memory": facts.memory or "not said",
        "side": facts.side,
        "clips": args.clips,
        "frames": FRAMES,
        "seed": args.seed,
        "threads": args.threads,
        "iou": {name: each.figures() for name, each in scores.items()},
        "hz": round(1 / float(np.mean(seconds)), 2),
        "ms_p50": round(1000 * float(np.median(seconds)), 1),
        "ms_p95": round(1000 * float(np.percentile(seconds, 95)), 1),
        "on_end": measure_memory(tracker, args.memory_frames, args.seed),
    }


def _segmenter(args: argparse.Namespace) -> Path:
    return args.segmenter or bundled_folder("tabletop") / "segmenter"


def missed(figures: dict[str, Any]) -> list[str]:
    """Name the targets that are missed."""
    iou, on_end = figures["iou"]["tracker"]["mean"], figures["on_end"]
    faults = {
        f"mean IoU {iou} is below {TARGET_IOU}": iou < TARGET_IOU,
        f"{figures['hz']} images a second are below {TARGET_HZ:g}": figures["hz"] < TARGET_HZ,
        "the number of remembered images is not constant": not on_end["constant"],
        f"the process grew by {on_end['growth_mb']} MB": on_end["growth_mb"] > MAX_GROWTH_MB,
    }
    return [fault for fault, is_so in faults.items() if is_so]


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--segmenter", type=Path, help="its folder; default: the bundled one")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--seed", type=int, default=SEED, help="of the first clip")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-frames", type=int, default=MEMORY_FRAMES)
    parser.add_argument("--picture", type=Path, help="only draw the first clip there")
    args = parser.parse_args(argv)
    if args.clips < 1 or args.threads < 1 or args.memory_frames < 200:
        # The memory is full when 16 images were well seen: here within the first 100.
        parser.error("--clips and --threads must be at least 1, --memory-frames at least 200")
    try:
        if args.picture:
            tracker = Sam2Tracker.load(str(_segmenter(args)))
            Image.fromarray(draw_clip(tracker, args.seed)).save(args.picture)
            return 0
        figures = measure(args)
    except SegZeroError as error:
        parser.error(str(error))
    for name, rows in figures["iou"].items():
        print(f"{name:10}", "  ".join(f"{key} {value:.3f}" for key, value in rows.items()))
    on_end, faults = figures["on_end"], missed(figures)
    print(
        f"{on_end['frames']} images on end: {on_end['remembered']} remembered,"
        f" grown by {on_end['growth_mb']} MB"
    )
    for fault in faults:
        print(f"missed: {fault}")
    print(
        f"mean IoU {figures['iou']['tracker']['mean']} over {args.clips} clips of {FRAMES}"
        f" images (target {TARGET_IOU:g}), {figures['hz']} images a second with"
        f" {args.threads} threads (target {TARGET_HZ:g})"
    )
    return conclude(args, figures, missed=bool(faults))


if __name__ == "__main__":
    sys.exit(main())
