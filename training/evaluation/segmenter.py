"""Evaluates the segmenter alone: every object is prompted with its true box and points."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from segzero_core.segmenter.sam2 import LoadedSegmenter, load_segmenter
from training.data.mask_prompts import mask_to_prompt
from training.data.rendered_scenes import EvaluationScene

LARGE_PX = 48
POINT_COUNTS = (2, 1, 0)


class ObjectScore(NamedTuple):
    """How well one object was segmented; `large` when both sides of its box are over 48 pixels."""

    kind: str
    large: bool
    intersection: int
    union: int
    guess: float  # the IoU that the segmenter predicted

    @property
    def iou(self) -> float:
        """Intersection over union with the true mask."""
        return self.intersection / self.union if self.union else 0.0


def load(segmenter: str | None, model: str, device: str) -> LoadedSegmenter:
    """Load a segmenter by its own name, or the one that belongs to a model.

    A bundled segmenter can be measured before there is a reasoner beside it.
    """
    from segzero_core.checkpoints.registry import find_model
    from segzero_core.loading import choose_device

    folder = Path(model) / "segmenter"
    name = segmenter or (str(folder) if folder.is_dir() else find_model(model).segmenter)
    return load_segmenter(name, choose_device(device))


def measure(loaded: LoadedSegmenter, folders: Sequence[Path]) -> dict[str, Any]:
    """Segment all objects of the scenes with true boxes and 2, 1 and 0 true points.

    Returns:
        The keys of every evaluation, for box and two points over all objects, and under `sizes`
        the same for objects over 48x48 pixels and for all, with each number of points.
    """
    scores: dict[int, list[ObjectScore]] = {count: [] for count in POINT_COUNTS}
    seconds = 0.0
    for folder in tqdm(folders, unit="scene", desc="segmenter", file=sys.stderr):
        scene = EvaluationScene.read(folder)
        started = time.perf_counter()
        found = _measure_scene(loaded, scene)
        seconds += time.perf_counter() - started
        for count in POINT_COUNTS:
            scores[count] += found[count]
    both = scores[POINT_COUNTS[0]]
    kinds = sorted({score.kind for score in both})
    return {
        **_metrics(both),
        "box_acc_50": None,
        "unusable": 0.0,
        "refusals_correct": None,
        "ms": seconds * 1e3 / max(1, len(folders)),
        "kinds": {kind: _metrics([s for s in both if s.kind == kind]) for kind in kinds},
        "sizes": {
            f"{name}, {count} points": _metrics([s for s in scores[count] if s.large or not only])
            for name, only in (("over 48x48", True), ("all", False))
            for count in POINT_COUNTS
        },
    }


def _measure_scene(
    loaded: LoadedSegmenter, scene: EvaluationScene
) -> dict[int, list[ObjectScore]]:
    embedding = loaded.encoder.encode(scene.image)
    masks = [scene.mask(index) for index in scene.visible_ids]
    truths = [mask_to_prompt(mask) for mask in masks]
    scores: dict[int, list[ObjectScore]] = {}
    for count in POINT_COUNTS:
        prompts = [truth.to_object(count) for truth in truths]
        answer = loaded.segmenter.segment(embedding, prompts)
        scores[count] = [
            ObjectScore(
                kind=scene.object_kinds.get(index, "unknown"),
                large=min(prompt.box.width, prompt.box.height) > LARGE_PX,
                intersection=int(np.count_nonzero(found & mask)),
                union=int(np.count_nonzero(found | mask)),
                guess=float(guess),
            )
            for index, prompt, found, mask, guess in zip(
                scene.visible_ids, prompts, answer.masks, masks, answer.scores, strict=True
            )
        ]
    return scores


def _metrics(scores: Sequence[ObjectScore]) -> dict[str, Any]:
    """Mean IoU (as `giou`), cIoU, the error of the predicted IoU, and N."""
    if not scores:
        return {"giou": None, "ciou": None, "guess_error": None, "n": 0}
    union = sum(score.union for score in scores)
    return {
        "giou": float(np.mean([score.iou for score in scores])),
        "ciou": sum(score.intersection for score in scores) / union if union else None,
        "guess_error": float(np.mean([abs(score.guess - score.iou) for score in scores])),
        "n": len(scores),
    }


def as_text(summary: dict[str, Any]) -> str:
    """Write the metrics as a table: by size, then by object class."""
    lines = [f"{'objects':<24}{'mean IoU':>9}{'cIoU':>7}{'|guess error|':>15}{'N':>7}"]
    for name, row in [*summary["sizes"].items(), *summary["kinds"].items()]:
        values = (row[key] for key in ("giou", "ciou", "guess_error"))
        iou, ciou, error = ("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"{name:<24}{iou:>9}{ciou:>7}{error:>15}{row['n']:>7}")
    lines.append(f"{summary['ms']:.0f} ms a scene")
    return "\n".join(lines)
