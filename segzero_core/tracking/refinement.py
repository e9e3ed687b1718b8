"""Refines what a tracker's memory has found.

Memory knows which object to follow, but its masks are coarse, and it may confuse objects. SAM 2's
decoder draws precise masks, but needs a box and a point. So the decoder draws each connected
component of memory's mask, and the drawn mask that agrees best with the appearance model is taken.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from segzero_core.tracking.appearance import AppearanceModel, Cells

NO_OBJECT: Final = -1024.0
"""Logit by which SAM 2 says that there is no object."""

# Logits. The uncertain rim of memory's mask reaches into neighboring objects. But of an object in
# two colors, or half hidden, only a part may be certain. So both levels are tried.
_LEVELS: Final = (1.5, -1.0)
_MAX_COMPONENTS: Final = 3  # at each level
_MIN_COVERED: Final = 0.5  # share of a component that the mask drawn for it covers
_PROMPT_LABELS: Final = (2, 3, 1)  # of a box's corners, and of a point inside
MIN_AGREEMENT: Final = 0.35
"""Least IoU of a mask with the matching cells."""
# A frame is remembered from here on; a doubtful mask would spoil all that follow.
_RELIABLE_AGREEMENT: Final = 0.5
_RELIABLE_IOU: Final = 0.8
# Shares of the image's side. Matching cells further from a mask do not count against it, because
# they may be another object of the kind; and the rest of the object is within reach of memory's
# mask.
_NEAR: Final = 1 / 24
_REACH: Final = 1 / 8
# Among masks that agree equally well, one with another size than before is a part, or too much:
# a factor of e in size costs so much agreement.
_SIZE_WEIGHT: Final = 0.1


class RecordingMaskDecoder(nn.Module):
    """Mask decoder that records its last outputs, which `track_step` does not return.

    Args:
        decoder: The decoder; shared, not copied.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        # Logits of the last masks, float [N, M, h, w], also of objects thought hidden; their
        # predicted IoU, float [N, M]; and float [N, 1], above zero if the object is visible.
        self.masks = self.ious = self.object_logits = torch.zeros(0)

    def forward(self, **inputs: Any) -> Any:
        """Decode; the arguments are sam2's own."""
        outputs = self.decoder(**inputs)
        self.masks, self.ious, _, self.object_logits = outputs
        return outputs


def with_recording_decoder(model: nn.Module) -> tuple[Any, RecordingMaskDecoder]:
    """Return a shallow copy of a SAM2Base with a recording decoder; both share all weights."""
    twin = copy.copy(model)
    decoder = RecordingMaskDecoder(model.get_submodule("sam_mask_decoder"))
    # Setting the attribute would change the original too: both have one table of submodules.
    twin.__dict__["_modules"] = {**model._modules, "sam_mask_decoder": decoder}
    return twin, decoder


@dataclass(frozen=True, eq=False, slots=True)
class Detection:
    """A mask that may show the object."""

    logits: torch.Tensor  # of the mask, float [1, 1, h, w]
    predicted_iou: torch.Tensor  # a float tensor without dimensions
    agreement: float  # IoU of the mask with the cells that look like the object, in [0, 1]
    cells: Cells  # bool [h, w], where the logits are above zero

    @property
    def reliable(self) -> bool:
        """Whether the object may be remembered by this mask."""
        return self.agreement >= _RELIABLE_AGREEMENT and float(self.predicted_iou) >= _RELIABLE_IOU


class MaskRefiner:
    """Knows the appearance of an object, and its size in the last reliable frame.

    `inputs` are the features of the first frame, as `track_step` takes them. The mask is the
    object in it, float [1, 1, side, side] of 0 and 1, not empty.
    """

    def __init__(self, model: Any, inputs: dict[str, Any], mask: torch.Tensor) -> None:
        self._model, self._decoder = with_recording_decoder(model)
        fine = _maps(inputs)[0]
        height, width = fine.shape[-2:]
        covered = functional.adaptive_avg_pool2d(mask, (int(height), int(width)))
        self._appearance = AppearanceModel(fine, covered)
        self._share = float(mask.mean())  # of the image that the object covers

    def refine(self, inputs: dict[str, Any], logits: torch.Tensor) -> Detection | None:
        """Draw what memory found; return the mask that is most likely the object, if any is.

        Args:
            inputs: Features of the frame.
            logits: float [1, 1, h, w], what memory found.
        """
        memory = logits[0, 0].float().cpu().numpy()
        if memory.max() <= 0:
            return None
        maps = _maps(inputs)
        matching = self._appearance.matching_cells(maps[0], _grown(memory > 0, _REACH))
        drawn = self._draw(maps, split_components(memory, matching), matching)
        candidates = [detection for detection in drawn if detection.agreement >= MIN_AGREEMENT]
        return max(candidates, key=self._likelihood, default=None)

    def update(self, inputs: dict[str, Any], detection: Detection) -> None:
        """Learn appearance and size from a frame in which the object was found reliably."""
        self._share = float(detection.cells.mean())
        cells = torch.from_numpy(detection.cells)[None, None].to(detection.logits)
        # The object covers the cells at its rim in part.
        covered = functional.avg_pool2d(cells, 3, stride=1, padding=1)
        self._appearance.update(_maps(inputs)[0], covered)

    def _draw(
        self, maps: list[torch.Tensor], components: list[Component], matching: Cells
    ) -> list[Detection]:
        *fine, coarse = maps
        count, scale = len(components), self._model.image_size / maps[0].shape[-1]
        self._model._forward_sam_heads(
            backbone_features=(coarse + self._model.no_mem_embed.view(1, -1, 1, 1)).expand(
                count, -1, -1, -1
            ),
            point_inputs=component_prompts(components, scale, coarse.device),
            high_res_features=[features.expand(count, -1, -1, -1) for features in fine],
            multimask_output=True,
        )
        detections = []
        drawn = zip(components, self._decoder.masks, self._decoder.ious, strict=True)
        for component, masks, ious in drawn:
            for mask, iou in zip(masks, ious, strict=True):
                cells = (mask > 0).cpu().numpy()
                common = np.count_nonzero(cells & component.cells)
                if common >= _MIN_COVERED * np.count_nonzero(component.cells):
                    agreement = appearance_iou(cells, matching)
                    detections.append(Detection(mask[None, None].float(), iou, agreement, cells))
        return detections

    def _likelihood(self, detection: Detection) -> float:
        growth = math.log(float(detection.cells.mean()) / self._share)
        return detection.agreement - _SIZE_WEIGHT * abs(growth)


def appearance_iou(cells: Cells, matching: Cells) -> float:
    """Return the IoU of a mask with the cells in and near it that match; both are bool [h, w]."""
    union = np.count_nonzero(cells | (matching & _grown(cells, _NEAR)))
    return int(np.count_nonzero(cells & matching)) / max(1, int(union))


@dataclass(frozen=True, eq=False, slots=True)
class Component:
    """A connected component of memory's mask."""

    cells: Cells  # bool [h, w]
    box_xyxy: tuple[int, int, int, int]  # its extent, half-open
    peak_xy: tuple[int, int]  # the cell that memory is surest of


def split_components(memory: NDArray[np.float32], matching: Cells) -> list[Component]:
    """Split memory's mask into its certain parts, all its parts, and those that match.

    Of each kind the surest come first, without repetitions; there is at least one.

    Args:
        memory: float [h, w], logits; somewhere above zero.
        matching: bool [h, w], the cells that look like the object.
    """
    most = 0.5 * float(memory.max())
    # An opening by a square of two cells leaves out specks.
    square = np.ones((2, 2), np.uint8)
    opened = cv2.dilate(
        cv2.erode(matching.astype(np.uint8), square, anchor=(0, 0)), square, anchor=(1, 1)
    )
    kinds = [*(memory > min(level, most) for level in _LEVELS), (opened > 0) & (memory > 0)]
    components: dict[tuple[int, int, int, int], Component] = {}
    for cells in kinds:
        for component in _surest_components(cells, memory):
            components.setdefault(component.box_xyxy, component)
    return list(components.values())


def _surest_components(cells: Cells, memory: NDArray[np.float32]) -> list[Component]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cells.astype(np.uint8))
    components = []
    for label in range(1, count):
        own = labels == label
        row, column = np.unravel_index(int(np.where(own, memory, -np.inf).argmax()), own.shape)
        left, top, width, height, _ = (int(value) for value in stats[label])
        box = (left, top, left + width, top + height)
        components.append(Component(own, box, (int(column), int(row))))
    components.sort(key=lambda component: -float(memory[component.peak_xy[::-1]]))
    return components[:_MAX_COMPONENTS]


def component_prompts(
    components: list[Component], scale: float, device: torch.device
) -> dict[str, torch.Tensor]:
    """Prompt for each component by its box and its surest point, float [N, 3, 2] [px].

    Args:
        components: At least one.
        scale: Pixels of the encoder's square in a cell.
        device: Of the prompts.
    """
    rows = [[*each.box_xyxy, each.peak_xy[0] + 0.5, each.peak_xy[1] + 0.5] for each in components]
    coordinates = torch.tensor(rows, dtype=torch.float32, device=device).view(-1, 3, 2) * scale
    labels = torch.tensor([_PROMPT_LABELS] * len(rows), dtype=torch.int32, device=device)
    return {"point_coords": coordinates, "point_labels": labels}


def _maps(inputs: dict[str, Any]) -> list[torch.Tensor]:
    """Restore the feature maps, finest first, float [1, C, h, w] each."""
    flat, sizes = inputs["current_vision_feats"], inputs["feat_sizes"]
    return [
        features.permute(1, 2, 0).unflatten(2, size)
        for features, size in zip(flat, sizes, strict=True)
    ]


def _grown(cells: Cells, distance: float) -> Cells:
    """Grow a mask by a share of the image's side."""
    reach = max(1, round(distance * cells.shape[1]))
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return cv2.dilate(cells.astype(np.uint8), square) > 0
