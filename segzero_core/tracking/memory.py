"""SAM 2's memory of one object, frame by frame.

This wraps `SAM2Base.track_step` as `SAM2VideoPredictor` does, but for frames that arrive one by
one without end. The masks are the same; the memory is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from segzero_core.encoders.base import Embedding
from segzero_core.tracking.refinement import NO_OBJECT, MaskRefiner, with_recording_decoder

# Any number above the model's longest memory; the offline predictor's for long videos.
_NUM_FRAMES: Final = 1_000_000
_MASK_THRESHOLD: Final = 0.5


def track_step_inputs(
    model: Any, image_embed: torch.Tensor, high_res_feats: list[torch.Tensor], count: int
) -> dict[str, Any]:
    """Arrange features as the arguments of `SAM2Base.track_step` for `count` objects.

    `image_embed` is float [B, C, h, w], where B is 1 (one frame with many objects) or `count`; the
    finer maps come finest first.
    """
    positions = model.image_encoder.neck.position_encoding(image_embed)
    maps = [*high_res_feats, image_embed]
    *flat, flat_positions = (
        features.expand(count, -1, -1, -1).flatten(2).permute(2, 0, 1)
        for features in (*maps, positions)
    )
    return {
        "current_vision_feats": flat,
        "current_vision_pos_embeds": [flat_positions],
        "feat_sizes": [(features.shape[-2], features.shape[-1]) for features in maps],
    }


@dataclass(frozen=True, eq=False, slots=True)
class Observation:
    """One object in one frame."""

    # bool [H, W], in pixels of the frame; empty if the object is not visible.
    mask: NDArray[np.bool_]
    score: float  # predicted IoU of the mask, in [0, 1]; 0 if the object is not visible


class ObjectMemory:
    """Remembers the appearance of an object and finds it in the next frame.

    Args:
        model: A `SAM2Base` in evaluation mode, on its device; shared, not copied.
        first: The first frame, encoded.
        mask: bool [H, W] of that frame, not empty.
        careful: Refine each mask by `MaskRefiner`, and remember it only if it is reliable.
            Without it, the masks are those of the offline predictor.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: nn.Module,
        first: Embedding,
        mask: NDArray[np.bool_],
        *,
        careful: bool = False,
    ) -> None:
        self._model, self._decoder = with_recording_decoder(model)
        self._device = next(model.parameters()).device
        self._side = int(self._model.image_size)
        self._reach = max(self._model.num_maskmem, self._model.max_obj_ptrs_in_encoder)
        self._frame = 0
        self._outputs: dict[str, dict[int, Any]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        inputs, square = self._inputs(first), self._square(mask)
        out = self._track(inputs, square, run_mem_encoder=False)
        # As in the offline predictor, a given mask is remembered at low resolution.
        self._encode(inputs, out, out["pred_masks"], is_given=True)
        self._outputs["cond_frame_outputs"][0] = _kept_part(out)
        self._refiner = MaskRefiner(self._model, inputs, square) if careful else None

    @torch.inference_mode()
    def find(self, embedding: Embedding) -> Observation:
        """Find the object in the next frame, and remember it there."""
        self._frame += 1
        inputs = self._inputs(embedding)
        out = self._track(inputs, None, run_mem_encoder=self._refiner is None)
        logits, iou = out["pred_masks"], self._decoder.ious.amax()
        if self._refiner is None:
            self._remember(out)
        else:
            detection = self._refiner.refine(inputs, logits)
            if detection is None:
                logits = torch.full_like(logits, NO_OBJECT)
            else:
                logits, iou = detection.logits, detection.predicted_iou
            if detection is not None and detection.reliable:
                self._refiner.update(inputs, detection)
                self._encode(inputs, out, logits, is_given=False)
                self._remember(out)
            else:
                self._frame -= 1  # the next frame follows the last remembered one
        width, height = embedding.size_wh
        full = functional.interpolate(
            logits, (height, width), mode="bilinear", align_corners=False
        )
        mask = (full[0, 0] > 0).cpu().numpy()
        return Observation(mask, float(iou.clamp(0, 1)) if mask.any() else 0.0)

    @property
    def remembered(self) -> int:
        """Number of remembered frames."""
        return sum(len(outputs) for outputs in self._outputs.values())

    def _inputs(self, embedding: Embedding) -> dict[str, Any]:
        coarse, *fine = (
            torch.as_tensor(features, device=self._device)
            for features in (embedding.image_embed, *embedding.high_res_feats)
        )
        return track_step_inputs(self._model, coarse, fine, 1)

    def _square(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """Resize a mask as the offline predictor does: float [1, 1, side, side] of 0 and 1.

        The offline predictor loses a mask that is smaller than a pixel of the square. Here the
        pixel remains that the mask covers most.
        """
        pixels = torch.tensor(mask, device=self._device)[None, None].float()
        square = functional.interpolate(
            pixels,
            (self._side, self._side),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        return (square >= square.amax().clamp(max=_MASK_THRESHOLD)).float()

    def _track(
        self, inputs: dict[str, Any], mask: torch.Tensor | None, *, run_mem_encoder: bool
    ) -> dict[str, Any]:
        out: dict[str, Any] = self._model.track_step(
            frame_idx=self._frame,
            is_init_cond_frame=mask is not None,
            point_inputs=None,
            mask_inputs=mask,
            output_dict=self._outputs,
            num_frames=_NUM_FRAMES,
            run_mem_encoder=run_mem_encoder,
            **inputs,
        )
        return out

    def _encode(
        self, inputs: dict[str, Any], out: dict[str, Any], logits: torch.Tensor, *, is_given: bool
    ) -> None:
        """Add the memory of a frame to `out`, with the object where the logits are positive."""
        memory, positions = self._model._encode_new_memory(
            current_vision_feats=inputs["current_vision_feats"],
            feat_sizes=inputs["feat_sizes"],
            pred_masks_high_res=functional.interpolate(
                logits, (self._side, self._side), mode="bilinear", align_corners=False
            ),
            object_score_logits=out["object_score_logits"],
            is_mask_from_pts=is_given,
        )
        out |= {"maskmem_features": memory, "maskmem_pos_enc": positions}

    def _remember(self, out: dict[str, Any]) -> None:
        recent = self._outputs["non_cond_frame_outputs"]
        recent[self._frame] = _kept_part(out)
        recent.pop(self._frame - self._reach, None)


def _kept_part(out: dict[str, Any]) -> dict[str, Any]:
    """Return what later frames read; the memory as bfloat16, as in the offline predictor."""
    return {
        "maskmem_features": out["maskmem_features"].to(torch.bfloat16),
        "maskmem_pos_enc": out["maskmem_pos_enc"],
        "obj_ptr": out["obj_ptr"],
    }
