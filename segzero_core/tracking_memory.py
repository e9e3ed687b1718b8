"""SAM 2's memory of objects, fed with one encoded picture after the other.

Around `SAM2Base.track_step`: what `SAM2VideoPredictor` does with a whole video, for pictures that
come one by one and never end. The masks are the same; the memory is bounded.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from segzero_core.encoder import Embedding

if TYPE_CHECKING:
    from segzero_core.encoder import Features

# Any number from the model's most remembered pictures on: the offline predictor's for long videos.
_NUM_FRAMES: Final = 1_000_000
_MASK_THRESHOLD: Final = 0.5
_SURE: Final = 3.0  # logit; the doubtful rim of a mask found by memory reaches into its neighbours
_AGREEMENT: Final = 0.3  # IoU from which on two masks are of the same object
_PROMPT_LABELS: Final = (2, 3, 1)  # of a box's corners, and of a point inside


class KeptScores(nn.Module):
    """A mask decoder that keeps its last candidates, which `track_step` does not hand out.

    Args:
        decoder: The decoder, shared and not copied.

    Attributes:
        masks: Logits of the last candidates, float [N, M, h, w], also of objects thought hidden.
        ious: Their predicted IoU, float [N, M].
        object_logits: Above zero where an object is seen, float [N, 1].
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.masks = self.ious = self.object_logits = torch.zeros(0)

    def forward(self, **inputs: Any) -> Any:
        """Decode; the arguments are sam2's own."""
        outputs = self.decoder(**inputs)
        self.masks, self.ious, _, self.object_logits = outputs
        return outputs


def with_kept_scores(model: nn.Module) -> tuple[Any, KeptScores]:
    """Return a twin of a SAM2Base whose decoder keeps its scores; both share all weights."""
    twin = copy.copy(model)
    kept = KeptScores(model.get_submodule("sam_mask_decoder"))
    twin.__dict__["_modules"] = {**model._modules, "sam_mask_decoder": kept}
    return twin, kept


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
    """What became of the objects in one picture.

    Attributes:
        masks: bool [N, H, W], in pixels of the picture; empty where an object is not seen.
        scores: float32 [N], the predicted IoU of the masks, in [0, 1]; 0 where not seen.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]


class ObjectMemory:
    """Remembers how objects looked and finds them in the next picture.

    Args:
        model: A `SAM2Base` in evaluation mode, on its device; shared, not copied.
        first: The encoded picture that the objects are known in.
        masks: bool [N, H, W] of that picture, none of them empty; N at least 1.
        draw_again: Show what was found as it is drawn a second time, from the box and the surest
            point of the first mask. What is remembered stays as in the offline predictor.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: nn.Module,
        first: Embedding,
        masks: NDArray[np.bool_],
        *,
        draw_again: bool = False,
    ) -> None:
        self._draw_again = draw_again
        self._model, self._kept = with_kept_scores(model)
        self._device = next(model.parameters()).device
        self._count = len(masks)
        self._frame = 0
        outputs: dict[str, dict[int, Any]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        self._outputs = outputs
        inputs = self._inputs(first)
        out = self._track(inputs, self._square(masks), run_mem_encoder=False)
        # As the offline predictor: what is remembered of a given mask is its coarse form.
        memory, places = self._model._encode_new_memory(
            current_vision_feats=inputs["current_vision_feats"],
            feat_sizes=inputs["feat_sizes"],
            pred_masks_high_res=functional.interpolate(
                out["pred_masks"], (self._side, self._side), mode="bilinear", align_corners=False
            ),
            object_score_logits=out["object_score_logits"],
            is_mask_from_pts=True,
        )
        out |= {"maskmem_features": memory, "maskmem_pos_enc": places}
        outputs["cond_frame_outputs"][0] = _kept_part(out)

    @torch.inference_mode()
    def find(self, embedding: Embedding) -> Seen:
        """Look for the objects in the next picture, and remember what it showed.

        Args:
            embedding: The picture, encoded by the model's own encoder.
        """
        self._frame += 1
        inputs = self._inputs(embedding)
        out = self._track(inputs, None, run_mem_encoder=True)
        logits, guesses = out["pred_masks"], self._kept.ious.amax(dim=1)
        if self._draw_again:
            logits, guesses = self._shown(inputs, logits)
        recent = self._outputs["non_cond_frame_outputs"]
        recent[self._frame] = _kept_part(out)
        recent.pop(self._frame - self._reach, None)
        width, height = embedding.size_wh
        full = functional.interpolate(
            logits, (height, width), mode="bilinear", align_corners=False
        )
        masks = (full[:, 0] > 0).cpu().numpy()
        ious = guesses.clamp(0, 1).float().cpu().numpy()
        return Seen(masks, np.where(masks.any(axis=(1, 2)), ious, 0).astype(np.float32))

    def _shown(
        self, inputs: dict[str, Any], logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw from prompts what memory found, as for a single picture.

        Memory knows which object is meant, the prompted decoder knows better where its edge runs.
        Where the two disagree on the object, memory is right.

        Args:
            inputs: The picture's features.
            logits: float [N, 1, h, w], what memory found.

        Returns:
            The logits to be shown, and their predicted IoU float [N].
        """
        model, shown, ious = self._model, logits.clone(), self._kept.ious.amax(dim=1)
        seen = (logits > 0).flatten(1).any(dim=1)
        if not seen.any():
            return shown, ious
        *fine, coarse = (
            each.permute(1, 2, 0).unflatten(2, size)[seen]
            for each, size in zip(
                inputs["current_vision_feats"], inputs["feat_sizes"], strict=True
            )
        )
        model._forward_sam_heads(
            backbone_features=coarse + model.no_mem_embed.view(1, -1, 1, 1),
            point_inputs=prompts_of(logits[seen, 0], self._side),
            high_res_features=fine,
            multimask_output=True,
        )
        agreements = _mask_ious(self._kept.masks > 0, logits[seen] > 0)
        agreement, best = agreements.max(dim=1)
        rows = torch.arange(len(best))
        drawn, guesses = self._kept.masks[rows, best][:, None], self._kept.ious[rows, best]
        agrees = agreement >= _AGREEMENT
        shown[seen] = torch.where(agrees[:, None, None, None], drawn, shown[seen])
        ious[seen] = torch.where(agrees, guesses, ious[seen])
        return shown, ious

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
        return frame_inputs(self._model, self._tensor(embedding.image_embed), fine, self._count)

    def _tensor(self, features: Features) -> torch.Tensor:
        return torch.as_tensor(features, device=self._device)

    def _square(self, masks: NDArray[np.bool_]) -> torch.Tensor:
        """Squash masks as the offline predictor does: float [N, 1, side, side] of 0 and 1."""
        pixels = torch.tensor(masks, device=self._device)[:, None].float()
        square = functional.interpolate(
            pixels,
            (self._side, self._side),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        return (square >= _MASK_THRESHOLD).float()

    def _track(
        self, inputs: dict[str, Any], masks: torch.Tensor | None, *, run_mem_encoder: bool
    ) -> dict[str, Any]:
        out: dict[str, Any] = self._model.track_step(
            frame_idx=self._frame,
            is_init_cond_frame=masks is not None,
            point_inputs=None,
            mask_inputs=masks,
            output_dict=self._outputs,
            num_frames=_NUM_FRAMES,
            run_mem_encoder=run_mem_encoder,
            **inputs,
        )
        return out


def prompts_of(logits: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    """Turn masks into prompts: the box of the sure piece around the surest point, and that point.

    Args:
        logits: float [N, h, w]; each has a value above zero.
        side: Of the square that the prompts are for [px].

    Returns:
        SAM 2's labelled points: two corners and one inside, float [N, 3, 2] [px].
    """
    rows = []
    scale = side / logits.shape[-1]
    for each in logits.float().cpu().numpy():
        row, column = np.unravel_index(int(each.argmax()), each.shape)
        sure = each > min(_SURE, 0.5 * each[row, column])
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(sure.astype(np.uint8))
        left, top, width, height, _ = stats[pieces[row, column]]
        corners = ((left, top), (left + width, top + height), (column + 0.5, row + 0.5))
        rows.append([(x * scale, y * scale) for x, y in corners])
    labels = torch.tensor([_PROMPT_LABELS] * len(rows), dtype=torch.int32, device=logits.device)
    coordinates = torch.tensor(rows, dtype=torch.float32, device=logits.device)
    return {"point_coords": coordinates, "point_labels": labels}


def _mask_ious(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """IoU of masks bool [N, M, h, w] with others bool [N, 1, h, w]: float [N, M]."""
    both = (first & second).sum((2, 3))
    return both / (first | second).sum((2, 3)).clamp(min=1)


def _kept_part(out: dict[str, Any]) -> dict[str, Any]:
    """Keep what later pictures read; the memory in half the bits, as the offline predictor."""
    return {
        "maskmem_features": out["maskmem_features"].to(torch.bfloat16),
        "maskmem_pos_enc": out["maskmem_pos_enc"],
        "obj_ptr": out["obj_ptr"],
    }
