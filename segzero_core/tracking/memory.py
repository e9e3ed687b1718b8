"""SAM 2's memory of an object, fed with one encoded picture after the other.

Around `SAM2Base.track_step`: what `SAM2VideoPredictor` does with a whole video, for pictures that
come one by one and never end. The masks are the same; the memory is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from segzero_core.encoders.base import Embedding
from segzero_core.tracking.refinement import NO_OBJECT, Inspector, with_kept_scores

if TYPE_CHECKING:
    from segzero_core.encoders.base import Features

# Any number from the model's most remembered pictures on: the offline predictor's for long videos.
_NUM_FRAMES: Final = 1_000_000
_MASK_THRESHOLD: Final = 0.5


def frame_inputs(
    model: Any, image_embed: torch.Tensor, high_res_feats: list[torch.Tensor], count: int
) -> dict[str, Any]:
    """Arrange the features of pictures as `track_step` takes them.

    Args:
        model: A SAM2Base.
        image_embed: float [B, C, h, w]; B is 1, for one picture with many objects, or `count`.
        high_res_feats: The finer maps, finest first.
        count: How many objects are looked for.
    """
    position = model.image_encoder.neck.position_encoding(image_embed)
    maps = [*high_res_feats, image_embed]
    flat = [each.expand(count, -1, -1, -1).flatten(2).permute(2, 0, 1) for each in maps]
    place = position.expand(count, -1, -1, -1).flatten(2).permute(2, 0, 1)
    return {
        "current_vision_feats": flat,
        "current_vision_pos_embeds": [place],
        "feat_sizes": [(each.shape[-2], each.shape[-1]) for each in maps],
    }


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """What became of an object in one picture.

    Attributes:
        mask: bool [H, W], in pixels of the picture; empty where the object is not seen.
        score: The predicted IoU of the mask, in [0, 1]; 0 where the object is not seen.
    """

    mask: NDArray[np.bool_]
    score: float


class ObjectMemory:
    """Remembers how an object looked and finds it in the next picture.

    Args:
        model: A `SAM2Base` in evaluation mode, on its device; shared, not copied.
        first: The encoded picture that the object is known in.
        mask: bool [H, W] of that picture, not empty.
        careful: Draw and check again what the memory finds, as `Inspector` does, and remember it
            only if it is well seen. Without it the masks are those of the offline predictor.
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
        self._model, self._kept = with_kept_scores(model)
        self._device = next(model.parameters()).device
        self._frame = 0
        self._outputs: dict[str, dict[int, Any]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        inputs, square = self._inputs(first), self._square(mask)
        out = self._track(inputs, square, run_mem_encoder=False)
        # As the offline predictor: what is remembered of a given mask is its coarse form.
        self._encode(inputs, out, out["pred_masks"], is_given=True)
        self._outputs["cond_frame_outputs"][0] = _kept_part(out)
        self._inspector = Inspector(self._model, inputs, square) if careful else None

    @torch.inference_mode()
    def find(self, embedding: Embedding) -> Seen:
        """Look for the object in the next picture, and remember what it showed.

        Args:
            embedding: The picture, encoded by the model's own encoder.
        """
        self._frame += 1
        inputs = self._inputs(embedding)
        out = self._track(inputs, None, run_mem_encoder=self._inspector is None)
        logits, guess = out["pred_masks"], self._kept.ious.amax()
        if self._inspector is None:
            self._remember(out)
        else:
            found = self._inspector.inspect(inputs, logits)
            if found is None:
                logits = torch.full_like(logits, NO_OBJECT)
            else:
                logits, guess = found.logits, found.guess
            if found is not None and found.well_seen:
                self._inspector.remember(inputs, found)
                self._encode(inputs, out, logits, is_given=False)
                self._remember(out)
            else:
                self._frame -= 1  # the next picture follows the last one that is remembered
        width, height = embedding.size_wh
        full = functional.interpolate(
            logits, (height, width), mode="bilinear", align_corners=False
        )
        mask = (full[0, 0] > 0).cpu().numpy()
        return Seen(mask, float(guess.clamp(0, 1)) if mask.any() else 0.0)

    @property
    def remembered(self) -> int:
        """How many pictures are remembered."""
        return sum(len(outputs) for outputs in self._outputs.values())

    @property
    def _side(self) -> int:
        return int(self._model.image_size)

    @property
    def _reach(self) -> int:
        """How many pictures back the model looks."""
        return max(int(self._model.num_maskmem), int(self._model.max_obj_ptrs_in_encoder))

    def _inputs(self, embedding: Embedding) -> dict[str, Any]:
        fine = [self._tensor(each) for each in embedding.high_res_feats]
        return frame_inputs(self._model, self._tensor(embedding.image_embed), fine, 1)

    def _tensor(self, features: Features) -> torch.Tensor:
        return torch.as_tensor(features, device=self._device)

    def _square(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """Squash a mask as the offline predictor does: float [1, 1, side, side] of 0 and 1.

        Of a mask that is smaller than a pixel there, which the offline predictor loses, the pixel
        stays that it covers most.
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
        """Make the memory of a picture in which the object is where the logits say."""
        memory, places = self._model._encode_new_memory(
            current_vision_feats=inputs["current_vision_feats"],
            feat_sizes=inputs["feat_sizes"],
            pred_masks_high_res=functional.interpolate(
                logits, (self._side, self._side), mode="bilinear", align_corners=False
            ),
            object_score_logits=out["object_score_logits"],
            is_mask_from_pts=is_given,
        )
        out |= {"maskmem_features": memory, "maskmem_pos_enc": places}

    def _remember(self, out: dict[str, Any]) -> None:
        recent = self._outputs["non_cond_frame_outputs"]
        recent[self._frame] = _kept_part(out)
        recent.pop(self._frame - self._reach, None)


def _kept_part(out: dict[str, Any]) -> dict[str, Any]:
    """Keep what later pictures read; the memory in half the bits, as the offline predictor."""
    return {
        "maskmem_features": out["maskmem_features"].to(torch.bfloat16),
        "maskmem_pos_enc": out["maskmem_pos_enc"],
        "obj_ptr": out["obj_ptr"],
    }
