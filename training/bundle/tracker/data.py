"""Clips as the tracker's training sees them: features of the frozen encoder, made once.

Beside each clip lies one file for each size of the encoder's input: its features in float16 and
the truth, squashed alike. A training step then costs no encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from segzero_core.files import write_atomically
from segzero_core.terminal.progress_bar import ProgressBar
from training.bundle.segmenter.data import MIN_OBJECT_PX, normalize, squash
from training.bundle.segmenter.loss import set_resolution
from worlds.tabletop.clips import FILE_NAME, load_clip, load_frame

MAX_STRIDE = 2  # between the frames of a sequence
MAPS = ("fine", "middle", "coarse")


@dataclass(frozen=True, eq=False)
class Sequences:
    """Objects that are followed through some frames, all equally many."""

    # The three maps of the encoder, finest first: float32 [T, P, C, h, w] for P different clips.
    features: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    clip: torch.Tensor  # int64 [N], the clip of each object
    truth: torch.Tensor  # bool [T, N, S, S], where the object is, in the encoder's square


def find_clips(folders: Sequence[Path]) -> list[Path]:
    """List the complete clips below the given folders, in a fixed order."""
    return [path.parent for folder in folders for path in sorted(folder.glob(f"*/{FILE_NAME}"))]


def feature_file(folder: Path, side: int) -> Path:
    """Return where the features of a clip lie."""
    return folder / f"features_{side}.safetensors"


def prepare(model: Any, clips: Sequence[Path], side: int) -> None:
    """Make the features of clips that are missing; the SAM2Base stays at this resolution [px]."""
    set_resolution(model, side)
    missing = [folder for folder in clips if not feature_file(folder, side).exists()]
    for folder in ProgressBar(
        missing, desc=f"encoding at {side}", unit="clip", disable=not missing
    ):
        save = partial(save_file, _encode_clip(model, folder, side))
        write_atomically(feature_file(folder, side), save)


@torch.inference_mode()
def _encode_clip(model: Any, folder: Path, side: int) -> dict[str, torch.Tensor]:
    maps: dict[str, list[torch.Tensor]] = {name: [] for name in MAPS}
    truths = []
    for frame in range(load_clip(folder).frames):
        image, instances = load_frame(folder, frame)
        pixels = torch.from_numpy(normalize(squash(image, side)))[None]
        for name, features in zip(MAPS, model.forward_image(pixels)["backbone_fpn"], strict=True):
            maps[name].append(features.half())
        square = cv2.resize(instances, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
        truths.append(torch.from_numpy(square))
    return {"truth": torch.stack(truths)} | {
        name: torch.cat(features).contiguous() for name, features in maps.items()
    }


def draw_sequences(
    clips: Sequence[Path],
    side: int,
    *,
    length: int,
    objects: int,
    rng: np.random.Generator,
) -> Sequences | None:
    """Draw frames of each clip, in order or backwards, and objects to follow, if there are any.

    Args:
        clips: Clips with features; one sequence is drawn from each.
        side: Of the encoder's input [px].
        length: Frames in each sequence.
        objects: Followed objects a clip, at most; those that the events happen to come first.
        rng: Where chance comes from.
    """
    features: list[list[torch.Tensor]] = [[] for _ in MAPS]
    truths, owners = [], []
    for folder in clips:
        with safe_open(feature_file(folder, side), "pt") as file:
            truth = file.get_tensor("truth")
            frames = _draw_frames(len(truth), length, rng)
            truth = truth[frames]
            ids = _draw_objects(truth[0].numpy(), load_clip(folder).target, objects, rng)
            if not ids:
                continue
            owners += [len(features[0])] * len(ids)
            truths += [truth == index for index in ids]
            for kept, name in zip(features, MAPS, strict=True):
                rows = file.get_slice(name)
                kept.append(torch.cat([rows[f : f + 1] for f in frames]).float())
    if not truths:
        return None
    fine, middle, coarse = (torch.stack(each, dim=1) for each in features)
    return Sequences((fine, middle, coarse), torch.tensor(owners), torch.stack(truths, dim=1))


def _draw_frames(count: int, length: int, rng: np.random.Generator) -> list[int]:
    stride = int(rng.integers(1, MAX_STRIDE + 1))
    while stride > 1 and stride * (length - 1) >= count:
        stride -= 1
    span = stride * (length - 1)
    if span >= count:
        raise ValueError(f"clips of {count} frames are too short for sequences of {length}")
    start = int(rng.integers(count - span))
    frames = list(range(start, start + span + 1, stride))
    return frames[::-1] if rng.random() < 0.5 else frames


def _draw_objects(
    instances: NDArray[np.uint8], target: int, count: int, rng: np.random.Generator
) -> list[int]:
    areas = np.bincount(instances.ravel(), minlength=2)
    ids = [int(i) for i in 1 + np.flatnonzero(areas[1:] >= MIN_OBJECT_PX)]
    chosen = [int(i) for i in rng.permutation(ids)]
    return sorted(chosen, key=lambda index: index != target)[:count]
