"""A second look at what a tracker's memory has found.

Memory knows which object is meant, but draws it coarsely, and may take one thing for another. The
decoder draws well what it is asked for by a box and a point. So it is asked for every piece that
memory found, and of the masks that it draws the one is taken that agrees best with the cells that
look like the object.
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

from segzero_core.tracking.appearance import Cells, Likeness

NO_OBJECT: Final = -1024.0
"""The logit with which sam2 says that there is nothing."""

# Logits. The doubtful rim of a mask found by memory reaches into the neighbours; but of an object
# in two colours, or half hidden, a part alone may be sure. So both are tried.
_LEVELS: Final = (1.5, -1.0)
_MAX_PIECES: Final = 3  # of each kind
_MIN_COVERED: Final = 0.5  # of a piece, by the mask that was drawn for it
_PROMPT_LABELS: Final = (2, 3, 1)  # of a box's corners, and of a point inside
MIN_AGREEMENT: Final = 0.35
"""Of a mask with the cells that look like the object, from which on it is taken for it."""
# From which on a mask is remembered: what is doubtful would be the model for all that follows.
_WELL_SEEN_AGREEMENT: Final = 0.5
_WELL_SEEN_GUESS: Final = 0.8
# Shares of the picture's side. What looks like the object and is further from a mask does not
# count against it, for it may be another thing of the kind; and so far from what memory found the
# rest of the object may be.
_NEAR: Final = 1 / 24
_REACH: Final = 1 / 8
# Of masks that agree as well, a part or too much is told by its size: e times as large counts as
# much as so much less agreement.
_SIZE_WEIGHT: Final = 0.1


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


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """An object that was found.

    Attributes:
        logits: Of its mask, float [1, 1, h, w].
        guess: Its predicted IoU, a float tensor without dimensions.
        agreement: IoU of its mask with the cells that look like the object, in [0, 1].
        cells: bool [h, w], where the logits are above zero.
    """

    logits: torch.Tensor
    guess: torch.Tensor
    agreement: float
    cells: Cells

    @property
    def share(self) -> float:
        """Of the picture that the mask covers."""
        return float(self.cells.mean())

    @property
    def well_seen(self) -> bool:
        """Whether the mask may serve to know the object by."""
        return self.agreement >= _WELL_SEEN_AGREEMENT and float(self.guess) >= _WELL_SEEN_GUESS


class Inspector:
    """Knows how an object looks, and how large it was when it was well seen last.

    Args:
        model: A SAM2Base.
        inputs: Features of the first picture, as `track_step` takes them.
        mask: float [1, 1, side, side] of 0 and 1, the object in it; not empty.
    """

    def __init__(self, model: Any, inputs: dict[str, Any], mask: torch.Tensor) -> None:
        self._model, self._kept = with_kept_scores(model)
        fine = _maps(inputs)[0]
        height, width = fine.shape[-2:]
        covered = functional.adaptive_avg_pool2d(mask, (int(height), int(width)))
        self._likeness = Likeness(fine, covered)
        self._share = float(mask.mean())

    def inspect(self, inputs: dict[str, Any], logits: torch.Tensor) -> Found | None:
        """Draw what memory found in a picture, and take what looks like the object.

        Args:
            inputs: Features of the picture.
            logits: float [1, 1, h, w], what memory found.

        Returns:
            None where nothing of it looks like the object.
        """
        belief = logits[0, 0].float().cpu().numpy()
        if belief.max() <= 0:
            return None
        maps = _maps(inputs)
        alike = self._likeness.cells_of(maps[0], _around(belief > 0, _REACH))
        drawn = self._draw(maps, pieces_of(belief, alike), alike)
        found = [each for each in drawn if each.agreement >= MIN_AGREEMENT]
        return max(found, key=self._likelihood, default=None)

    def remember(self, inputs: dict[str, Any], found: Found) -> None:
        """Know an object that was well seen by this picture too, and its size by it alone."""
        self._share = found.share
        cells = torch.from_numpy(found.cells)[None, None].to(found.logits)
        # The cells at the rim belong to the object in part.
        covered = functional.avg_pool2d(cells, 3, stride=1, padding=1)
        self._likeness.learn(_maps(inputs)[0], covered)

    def _draw(self, maps: list[torch.Tensor], pieces: list[Piece], alike: Cells) -> list[Found]:
        *fine, coarse = maps
        count, scale = len(pieces), self._model.image_size / maps[0].shape[-1]
        self._model._forward_sam_heads(
            backbone_features=(coarse + self._model.no_mem_embed.view(1, -1, 1, 1)).expand(
                count, -1, -1, -1
            ),
            point_inputs=prompts_of(pieces, scale, coarse.device),
            high_res_features=[each.expand(count, -1, -1, -1) for each in fine],
            multimask_output=True,
        )
        found = []
        for piece, masks, ious in zip(pieces, self._kept.masks, self._kept.ious, strict=True):
            for mask, iou in zip(masks, ious, strict=True):
                cells = (mask > 0).cpu().numpy()
                if _covers(cells, piece):
                    agreement = agreement_of(cells, alike)
                    found.append(Found(mask[None, None].float(), iou, agreement, cells))
        return found

    def _likelihood(self, found: Found) -> float:
        return found.agreement - _SIZE_WEIGHT * abs(math.log(found.share / self._share))


def agreement_of(cells: Cells, alike: Cells) -> float:
    """Compare a mask with the cells in and near it that look like the object: their IoU.

    Args:
        cells: bool [h, w], the mask.
        alike: bool [h, w].
    """
    either = cells | (alike & _around(cells, _NEAR))
    return int(np.count_nonzero(cells & alike)) / max(1, int(np.count_nonzero(either)))


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """A connected part of what memory found, in cells of its mask.

    Attributes:
        cells: bool [h, w].
        box_xyxy: Its extent, half-open.
        peak_xy: Its surest cell.
    """

    cells: Cells
    box_xyxy: tuple[int, int, int, int]
    peak_xy: tuple[int, int]


def pieces_of(belief: NDArray[np.float32], alike: Cells) -> list[Piece]:
    """Take apart what memory found: its sure parts, all of it, and what looks like the object.

    Args:
        belief: float [h, w], logits; somewhere above zero.
        alike: bool [h, w], the cells that look like the object.

    Returns:
        Of each kind the surest first, none twice; at least one.
    """
    most = 0.5 * float(belief.max())
    kinds = [belief > min(level, most) for level in _LEVELS]
    pieces: dict[tuple[int, int, int, int], Piece] = {}
    for cells in (*kinds, _without_specks(alike) & (belief > 0)):
        for piece in _connected(cells, belief):
            pieces.setdefault(piece.box_xyxy, piece)
    return list(pieces.values())


def _connected(cells: Cells, belief: NDArray[np.float32]) -> list[Piece]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cells.astype(np.uint8))
    pieces = []
    for label in range(1, count):
        mine = labels == label
        row, column = np.unravel_index(int(np.where(mine, belief, -np.inf).argmax()), mine.shape)
        left, top, width, height, _ = (int(value) for value in stats[label])
        box = (left, top, left + width, top + height)
        pieces.append(Piece(mine, box, (int(column), int(row))))
    pieces.sort(key=lambda piece: -float(belief[piece.peak_xy[1], piece.peak_xy[0]]))
    return pieces[:_MAX_PIECES]


def prompts_of(pieces: list[Piece], scale: float, device: torch.device) -> dict[str, torch.Tensor]:
    """Ask for each piece by its box and its surest point.

    Args:
        pieces: At least one.
        scale: Pixels of the encoder's square in a cell.
        device: Where the prompts are needed.

    Returns:
        SAM 2's labelled points: two corners and one inside, float [N, 3, 2] [px].
    """
    rows = [[*piece.box_xyxy, piece.peak_xy[0] + 0.5, piece.peak_xy[1] + 0.5] for piece in pieces]
    coordinates = torch.tensor(rows, dtype=torch.float32, device=device).view(-1, 3, 2) * scale
    labels = torch.tensor([_PROMPT_LABELS] * len(rows), dtype=torch.int32, device=device)
    return {"point_coords": coordinates, "point_labels": labels}


def _maps(inputs: dict[str, Any]) -> list[torch.Tensor]:
    """Lay out features as maps again, finest first: float [1, C, h, w] each."""
    flat, sizes = inputs["current_vision_feats"], inputs["feat_sizes"]
    return [
        each.permute(1, 2, 0).unflatten(2, size) for each, size in zip(flat, sizes, strict=True)
    ]


def _around(cells: Cells, distance: float) -> Cells:
    """A mask and what is near it; the distance is a share of the picture's side."""
    reach = max(1, round(distance * cells.shape[1]))
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return cv2.dilate(cells.astype(np.uint8), square) > 0


def _without_specks(cells: Cells) -> Cells:
    """Leave the cells that are in a square of four."""
    square = np.ones((2, 2), np.uint8)
    corners = cv2.erode(cells.astype(np.uint8), square, anchor=(0, 0))
    return cv2.dilate(corners, square, anchor=(1, 1)) > 0


def _covers(cells: Cells, piece: Piece) -> bool:
    """Whether a drawn mask is of the piece at all."""
    common = int(np.count_nonzero(cells & piece.cells))
    return common >= _MIN_COVERED * int(np.count_nonzero(piece.cells))
