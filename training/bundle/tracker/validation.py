"""Measure the tracker while it trains, as it is used: one picture after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from segzero_core.encoders.base import Embedding
from segzero_core.tracking.memory import ObjectMemory
from training.bundle.segmenter.validation import mask_iou
from training.bundle.tracker.data import MAPS, feature_file
from worlds.tabletop.clips import load_clip


@torch.inference_mode()
def validate(model: Any, clips: Sequence[Path], *, careful: bool = True) -> dict[str, float]:
    """Follow the object that the events happen to through each clip.

    Returns:
        `score`: mean IoU with the truth over all pictures but the first, an empty mask being
        right where nothing is to be seen; `seen`: the same where something is; `hidden`: how
        often nothing was found where nothing is.
    """
    seen: list[float] = []
    hidden: list[float] = []
    for folder in clips:
        tensors = load_file(feature_file(folder, model.image_size))
        side = model.image_size
        truths = (tensors["truth"] == load_clip(folder).target).numpy()
        pictures = [
            Embedding(
                coarse[None].float(), (fine[None].float(), middle[None].float()), (side, side)
            )
            for fine, middle, coarse in zip(*(tensors[name] for name in MAPS), strict=True)
        ]
        memory = ObjectMemory(model, pictures[0], truths[0], careful=careful)
        for picture, truth in zip(pictures[1:], truths[1:], strict=True):
            (seen if truth.any() else hidden).append(mask_iou(memory.find(picture).mask, truth))
    return {
        "score": float(np.mean(seen + hidden)),
        "seen": float(np.mean(seen)) if seen else 0.0,
        "hidden": float(np.mean(hidden)) if hidden else 0.0,
    }
