"""Measures the tracker during training, as it is used: one frame after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from segzero_core.encoders.base import Embedding
from segzero_core.geometry import mask_iou
from segzero_core.tracking.memory import ObjectMemory
from training.bundle.tracker.data import MAPS, feature_file
from worlds.tabletop.clips import load_clip


@torch.inference_mode()
def validate(model: Any, clips: Sequence[Path]) -> dict[str, float]:
    """Track the target of each clip.

    Returns:
        `score`: mean IoU with the true mask over all frames but the first; where the target is
        hidden, an empty mask scores 1. `seen`: the same over the frames that show the target;
        `hidden`: over the others.
    """
    seen: list[float] = []
    hidden: list[float] = []
    for folder in clips:
        tensors = load_file(feature_file(folder, model.image_size))
        side = model.image_size
        truths = (tensors["truth"] == load_clip(folder).target).numpy()
        frames = [
            Embedding(
                coarse[None].float(), (fine[None].float(), middle[None].float()), (side, side)
            )
            for fine, middle, coarse in zip(*(tensors[name] for name in MAPS), strict=True)
        ]
        memory = ObjectMemory(model, frames[0], truths[0], careful=True)
        for frame, truth in zip(frames[1:], truths[1:], strict=True):
            (seen if truth.any() else hidden).append(mask_iou(memory.find(frame).mask, truth))
    return {
        "score": float(np.mean(seen + hidden)),
        "seen": float(np.mean(seen)) if seen else 0.0,
        "hidden": float(np.mean(hidden)) if hidden else 0.0,
    }
