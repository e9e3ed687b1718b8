"""Forward pass and loss of the tracker's training: objects followed with the model's own masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)

from segzero_core.tracking.memory import track_step_inputs
from segzero_core.tracking.refinement import with_recording_decoder
from training.bundle.segmenter.data import MIN_OBJECT_PX
from training.bundle.segmenter.loss import (
    FULL_WEIGHT,
    IOU_WEIGHT,
    entropies,
    mask_losses,
    sample_points,
)
from training.bundle.tracker.data import Sequences

OTHER_MASKS_WEIGHT = 0.3  # the best of the three counts most; the others must not go astray
OBJECT_WEIGHT = 0.5
HIDDEN_WEIGHT = 4.0  # an object is hidden in one frame of ten
_NUM_FRAMES = 1_000_000  # as in tracking


@dataclass(frozen=True)
class Prediction:
    """What the decoder says about one frame: masks [N, 3, h, w], ious [N, 3], objects [N]."""

    masks: torch.Tensor
    ious: torch.Tensor
    object_logits: torch.Tensor


def track(model: Any, sequences: Sequences) -> list[Prediction]:
    """Follow objects from their true mask in the first frame; predict them in every later one."""
    twin, kept = with_recording_decoder(model)
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    predictions = []
    for frame in range(len(sequences.truth)):
        fine, middle, coarse = (maps[frame][sequences.clip] for maps in sequences.features)
        first = frame == 0
        out = twin.track_step(
            frame_idx=frame,
            is_init_cond_frame=first,
            point_inputs=None,
            mask_inputs=sequences.truth[0][:, None].float() if first else None,
            output_dict=outputs,
            num_frames=_NUM_FRAMES,
            run_mem_encoder=frame + 1 < len(sequences.truth),
            **track_step_inputs(twin, coarse, [fine, middle], len(sequences.clip)),
        )
        outputs["cond_frame_outputs" if first else "non_cond_frame_outputs"][frame] = out
        if not first:
            predictions.append(Prediction(kept.masks, kept.ious, kept.object_logits[:, 0]))
    return predictions


def compute_loss(
    predictions: list[Prediction], sequences: Sequences
) -> tuple[torch.Tensor, dict[str, float]]:
    """Compare predictions with the truth; return the loss to minimize, and metrics for the log."""
    masks, ious, logits = (
        torch.cat([getattr(each, name) for each in predictions])
        for name in ("masks", "ious", "object_logits")
    )
    truth = sequences.truth[1:].flatten(0, 1)
    areas = truth.sum((1, 2))
    seen, hidden = areas >= MIN_OBJECT_PX, areas == 0
    certain = seen | hidden  # a few pixels of an object are neither
    object_loss = F.binary_cross_entropy_with_logits(
        logits[certain], seen[certain].float(), torch.where(seen[certain], 1.0, HIDDEN_WEIGHT)
    )
    metrics = {
        "object_loss": float(object_loss.detach()),
        "object_right": float(((logits > 0) == seen)[certain].float().mean()),
    }
    if not seen.any():
        return OBJECT_WEIGHT * object_loss, metrics
    mask_loss, true_ious = _mask_loss(masks[seen], truth[seen])
    iou_loss = (ious[seen] - true_ious).abs().mean()
    chosen = true_ious.gather(1, ious[seen].argmax(1, keepdim=True)).mean()
    metrics |= {
        "mask_loss": float(mask_loss.detach()),
        "iou_loss": float(iou_loss.detach()),
        "iou": float(chosen),
    }
    return mask_loss + IOU_WEIGHT * iou_loss + OBJECT_WEIGHT * object_loss, metrics


def _mask_loss(masks: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of candidates [N, 3, h, w], and their IoU with the truth [N, 3]."""
    side = truth.shape[-1]
    places = sample_points(_boxes(truth), side)
    pixels = places.long().clamp(0, side - 1)
    rows = torch.arange(len(truth))[:, None, None]
    close_truth = truth[rows, pixels[..., 1], pixels[..., 0]][:, None].float()
    close = F.grid_sample(masks, places / side * 2 - 1, align_corners=False, padding_mode="border")
    step = side // masks.shape[-1]
    cells = truth[:, step // 2 :: step, step // 2 :: step][:, None].float()
    losses = mask_losses(close, close_truth) + FULL_WEIGHT * entropies(masks, cells)
    best = losses.min(dim=1).values
    with torch.no_grad():
        # Over all cells: what is painted elsewhere counts, too.
        found = masks > 0
        both = (found & (cells > 0)).sum((2, 3))
        either = (found | (cells > 0)).sum((2, 3)).clamp(min=1)
    return (best + OTHER_MASKS_WEIGHT * losses.mean(dim=1)).mean(), both / either


def _boxes(truth: torch.Tensor) -> torch.Tensor:
    """Boxes around masks bool [N, S, S], none empty: float [N, 4], half-open [px]."""
    corners = []
    for axis in (1, 2):  # columns are what is left when rows are summed over, and the reverse
        line = truth.any(dim=axis).int()
        corners += [line.argmax(1), line.shape[1] - line.flip(1).argmax(1)]
    x_min, x_max, y_min, y_max = corners
    return torch.stack((x_min, y_min, x_max, y_max), dim=1).float()
