"""Measure the segmenter while it trains: in the scenes' resolution, with jitter too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from numpy.typing import NDArray

from segzero_core.geometry import mask_iou
from training.bundle.segmenter.data import (
    BOX_MAX,
    BOX_MIN,
    POSITIVE,
    jitter_box,
    normalize,
    read_scene,
    squash,
)
from training.bundle.segmenter.loss import decode, encode
from training.data.mask_prompts import MaskPrompt, mask_to_prompt

LARGE_PX = 48
"""An object is large when both sides of its box are longer than this [px of the scene]."""
SEED = 7


@torch.inference_mode()
def validate(model: Any, scenes: Sequence[Path]) -> dict[str, float]:
    """Mean IoU of the mask with the highest predicted IoU, over all objects of the scenes.

    Returns:
        `two`, `one`, `jittered` (box moved, one point): mean IoU over large objects; the same with
        `_all` over all objects; `guess_error`: mean absolute error of the predicted IoU; `score`:
        what is to be maximized.
    """
    rng = np.random.default_rng(SEED)
    ious: dict[str, list[float]] = {"two": [], "one": [], "jittered": []}
    large: list[bool] = []
    errors: list[float] = []
    for folder in scenes:
        scene = read_scene(folder)
        truths = [scene.instances == index for index in np.unique(scene.instances) if index]
        if not truths:
            continue
        features = encode(
            model, torch.from_numpy(normalize(squash(scene.image, model.image_size)))[None]
        )
        exact = [mask_to_prompt(truth) for truth in truths]
        moved = [MaskPrompt(jitter_box(p.box_xyxy, 640.0, rng), p.points) for p in exact]
        for name, prompts, count in (("two", exact, 2), ("one", exact, 1), ("jittered", moved, 1)):
            masks, guesses = _predict(model, features, prompts, count, scene.instances.shape)
            found = [mask_iou(mask, truth) for mask, truth in zip(masks, truths, strict=True)]
            ious[name] += found
            errors += np.abs(np.subtract(guesses, found)).tolist()
        large += [
            min(x1 - x0, y1 - y0) > LARGE_PX for x0, y0, x1, y1 in (p.box_xyxy for p in exact)
        ]
    metrics = {}
    for name, values in ious.items():
        metrics[name] = float(np.mean(np.asarray(values)[large])) if any(large) else 0.0
        metrics[f"{name}_all"] = float(np.mean(values))
    metrics["guess_error"] = float(np.mean(errors))
    metrics["score"] = (metrics["two"] + metrics["one"] + metrics["jittered"]) / 3
    return metrics


def _predict(
    model: Any,
    features: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    prompts: Sequence[MaskPrompt],
    count: int,
    shape_hw: tuple[int, int],
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Segment each prompt with up to `count` points; keep the mask with the best predicted IoU."""
    scale = model.image_size / np.array(shape_hw[::-1], np.float32)
    coordinates = np.zeros((len(prompts), 2 + count, 2), np.float32)
    labels = np.full((len(prompts), 2 + count), -1, np.int32)
    for row, prompt in enumerate(prompts):
        points = prompt.points[:count]
        coordinates[row, :2] = np.reshape(prompt.box_xyxy, (2, 2))
        coordinates[row, 2 : 2 + len(points)] = points
        labels[row, : 2 + len(points)] = [BOX_MIN, BOX_MAX] + [POSITIVE] * len(points)
    image_index = torch.zeros(len(prompts), dtype=torch.long)
    prediction = decode(
        model,
        features,
        image_index,
        torch.from_numpy(coordinates * scale),
        torch.from_numpy(labels),
    )
    guesses, best = prediction.ious[:, 1:].max(1)
    chosen = prediction.masks[torch.arange(len(prompts)), 1 + best]
    full = F.interpolate(chosen[:, None], shape_hw, mode="bilinear", align_corners=False)[:, 0]
    return (full > 0).numpy(), guesses.numpy()
