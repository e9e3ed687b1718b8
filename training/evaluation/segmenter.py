"""Evaluates the segmenter alone: every object is prompted with its true box and points."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segzero_core.segmenter.close_up import segment_closely
from segzero_core.segmenter.sam2 import LoadedSegmenter, load_segmenter
from segzero_core.terminal.progress_bar import ProgressBar
from training.data.mask_prompts import mask_to_prompt
from training.data.rendered_scenes import EvaluationScene

SIZES_PX = {"over 48x48": 48, "over 32x32": 32, "all": 0}
"""What objects a row counts: both sides of the box are longer than this [px]."""
POINT_COUNTS = (2, 1, 0)


class ObjectScore(NamedTuple):
    """How well one object was segmented; `side_px` is the shorter side of its box."""

    kind: str
    side_px: float
    intersection: int
    union: int
    guess: float  # the IoU that the segmenter predicted

    @property
    def iou(self) -> float:
        """Intersection over union with the true mask."""
        return self.intersection / self.union if self.union else 0.0


def load(segmenter: str | None, model: str, device: str) -> tuple[LoadedSegmenter, float]:
    """Load a segmenter by its own name, or the one that belongs to a model.

    A bundled segmenter can be measured before there is a reasoner beside it.

    Returns:
        The segmenter, and which objects get a close-up: see `ModelDescription.close_up_share`.
    """
    from segzero_core.checkpoints.registry import find_model
    from segzero_core.loading import choose_device

    folder = Path(model) / "segmenter"
    if folder.is_dir() and not (folder.parent / "reasoner").is_dir():
        return load_segmenter(segmenter or str(folder), choose_device(device)), 0.0
    files = find_model(model)
    loaded = load_segmenter(segmenter or files.segmenter, choose_device(device))
    return loaded, files.description.close_up_share


def measure(
    loaded: LoadedSegmenter, folders: Sequence[Path], close_up_share: float = 0.0
) -> dict[str, Any]:
    """Segment all objects of the scenes with true boxes and 2, 1 and 0 true points.

    Args:
        loaded: The segmenter.
        folders: Rendered scenes.
        close_up_share: Which objects get a close-up; see `ModelDescription`.

    Returns:
        The keys of every evaluation, for box and two points over all objects, and under `sizes`
        the same by the size of the objects, with each number of points.
    """
    scores: dict[int, list[ObjectScore]] = {count: [] for count in POINT_COUNTS}
    seconds = 0.0
    for folder in ProgressBar(folders, unit="scene", desc="segmenter", file=sys.stderr):
        scene = EvaluationScene.read(folder)
        started = time.perf_counter()
        found = _measure_scene(loaded, scene, close_up_share)
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
            f"{name}, {count} points": _metrics([s for s in scores[count] if s.side_px > least_px])
            for name, least_px in SIZES_PX.items()
            for count in POINT_COUNTS
        },
    }


def _measure_scene(
    loaded: LoadedSegmenter, scene: EvaluationScene, close_up_share: float
) -> dict[int, list[ObjectScore]]:
    embedding = loaded.encoder.encode(scene.image)
    masks = [scene.mask(index) for index in scene.visible_ids]
    truths = [mask_to_prompt(mask) for mask in masks]
    scores: dict[int, list[ObjectScore]] = {}
    for count in POINT_COUNTS:
        prompts = [truth.to_object(count) for truth in truths]
        answer = segment_closely(
            loaded.encoder, loaded.segmenter, scene.image, embedding, prompts, close_up_share
        )
        scores[count] = [
            ObjectScore(
                kind=scene.object_kinds.get(index, "unknown"),
                side_px=min(prompt.box.width, prompt.box.height),
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
