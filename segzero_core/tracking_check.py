"""A second look at what a tracker's memory has found.

Memory knows which object is meant, but draws it coarsely, and may take one thing for another. The
decoder draws well what it is asked for by a box and a point. So it is asked for every piece that
memory found, and the piece is taken that looks most like the object in the first picture.
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

Cells = NDArray[np.bool_]

NO_OBJECT: Final = -1024.0
"""The logit with which sam2 says that there is nothing."""

# Logits. The doubtful rim of a mask found by memory reaches into the neighbours; but of an object
# in two colours, or half hidden, a part alone may be sure. So both are tried.
_LEVELS: Final = (1.5, -1.0)
_MAX_PIECES: Final = 3  # at each level
_MIN_COVERED: Final = 0.5  # of a piece, by the mask that was drawn for it
_PROMPT_LABELS: Final = (2, 3, 1)  # of a box's corners, and of a point inside
_INNER: Final = 0.6  # of a cell, from which on it counts as the object's own
# Of how an object looks in two pictures, in standard deviations of the first one: at most this
# for 99 of 100 objects of training clips two seconds later, more for 89 of 100 others.
MAX_CHANGE: Final = 0.6
# The same where the object was seen last: a thing there is seldom another one, and a sliver of an
# object beside an arm looks unlike the whole.
MAX_CHANGE_IN_PLACE: Final = 1.0
_MIN_OVERLAP: Final = 0.1  # IoU, from which on two masks are of one place
_MIN_IN_PLACE: Final = 0.5  # of a mask, where the object was seen last
# Of masks that all look like the object, a part or too much of it is told by its size: e times as
# large counts as much as so much change.
_SIZE_WEIGHT: Final = 0.15


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
        change: How much the look has changed since the first picture; see `MAX_CHANGE`.
        part_change: How much it differs from what was seen of the object in the same place last;
            infinite where most of the mask is elsewhere.
        cells: bool [h, w], where the logits are above zero.
    """

    logits: torch.Tensor
    guess: torch.Tensor
    change: float
    part_change: float
    cells: Cells

    @property
    def share(self) -> float:
        """Of the picture that the mask covers."""
        return float(self.cells.mean())


class Inspector:
    """Knows how an object looked in the first picture, and where and how large it was last.

    Args:
        model: A SAM2Base.
        inputs: Features of the first picture, as `track_step` takes them.
        mask: float [1, 1, side, side] of 0 and 1, the object in it; not empty.
    """

    def __init__(self, model: Any, inputs: dict[str, Any], mask: torch.Tensor) -> None:
        self._model, self._kept = with_kept_scores(model)
        fine = _maps(inputs)[0]
        self._spread = fine.flatten(2).std(dim=2)[0].clamp(min=1e-6)
        cells = _shrunk(mask, fine)
        self._look = self._look_of(fine, cells)
        self._share = float(mask.mean())  # when it was well seen last
        most = min(0.5, float(cells.max()))  # of a cell, also where the object is smaller than one
        # When it was seen last.
        self._last, self._last_fine = (cells[0, 0] >= most).cpu().numpy(), fine

    def inspect(self, inputs: dict[str, Any], logits: torch.Tensor) -> Found | None:
        """Draw what memory found in a picture, and take what looks like the object.

        Args:
            inputs: Features of the picture.
            logits: float [1, 1, h, w], what memory found.

        Returns:
            None where nothing of it looks like the object.
        """
        pieces = pieces_of(logits[0, 0].float().cpu().numpy())
        if not pieces:
            return None
        *fine, coarse = _maps(inputs)
        count, scale = len(pieces), self._model.image_size / logits.shape[-1]
        self._model._forward_sam_heads(
            backbone_features=(coarse + self._model.no_mem_embed.view(1, -1, 1, 1)).expand(
                count, -1, -1, -1
            ),
            point_inputs=prompts_of(pieces, scale, logits.device),
            high_res_features=[each.expand(count, -1, -1, -1) for each in fine],
            multimask_output=True,
        )
        found = [
            self._found(fine[0], self._kept.masks[row, index], self._kept.ious[row, index])
            for row, piece in enumerate(pieces)
            for index in range(self._kept.masks.shape[1])
            if _covers(self._kept.masks[row, index], piece)
        ]
        best = min(filter(self._is_alike, found), key=self._unlikeness, default=None)
        if best is not None:
            self._last, self._last_fine = best.cells, fine[0]
        return best

    def remember(self, found: Found) -> None:
        """Take the size of an object that was well seen for its size from now on."""
        self._share = found.share

    def _is_alike(self, found: Found) -> bool:
        common = np.count_nonzero(found.cells & self._last)
        either = np.count_nonzero(found.cells | self._last)
        in_place = common > _MIN_OVERLAP * either
        most = MAX_CHANGE_IN_PLACE if in_place else MAX_CHANGE
        return found.change <= most or found.part_change <= MAX_CHANGE

    def _unlikeness(self, found: Found) -> float:
        return found.change + _SIZE_WEIGHT * abs(math.log(found.share / self._share))

    def _found(self, fine: torch.Tensor, logits: torch.Tensor, guess: torch.Tensor) -> Found:
        drawn = logits > 0
        look = self._look_of(fine, _shrunk(drawn[None, None].float(), fine))
        cells = drawn.cpu().numpy()
        return Found(
            logits[None, None].float(),
            guess,
            float((look - self._look).abs().mean()),
            self._part_change(look, cells),
            cells,
        )

    def _part_change(self, look: torch.Tensor, cells: Cells) -> float:
        """Compare with the same part as it was seen last.

        Of a thing in two colours, half of it behind an arm, what is left looks unlike the whole,
        but as it did a moment ago.
        """
        part = cells & self._last
        if np.count_nonzero(part) < max(1, _MIN_IN_PLACE * np.count_nonzero(cells)):
            return math.inf
        there = torch.from_numpy(part)[None, None].to(look.device, torch.float32)
        before = self._look_of(self._last_fine, _shrunk(there, self._last_fine))
        return float((look - before).abs().mean())

    def _look_of(self, fine: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Mean of the finest features over an object, in standard deviations: float [C]."""
        inner = (cells > _INNER).float()
        weight = inner if inner.any() else cells
        mean = (fine * weight).sum((2, 3))[0] / weight.sum().clamp(min=1e-6)
        look: torch.Tensor = mean / self._spread
        return look


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


def pieces_of(logits: np.ndarray[Any, np.dtype[np.float32]]) -> list[Piece]:
    """Take a mask apart: its sure parts, the surest first, and then all of it in the same way.

    Args:
        logits: float [h, w].
    """
    if logits.max() <= 0:
        return []
    pieces: dict[tuple[int, int, int, int], Piece] = {}
    for level in _LEVELS:
        for piece in _pieces_above(logits, level):
            pieces.setdefault(piece.box_xyxy, piece)
    return list(pieces.values())


def _pieces_above(logits: np.ndarray[Any, np.dtype[np.float32]], level: float) -> list[Piece]:
    sure = logits > min(level, 0.5 * float(logits.max()))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(sure.astype(np.uint8))
    pieces = []
    for label in range(1, count):
        cells = labels == label
        row, column = np.unravel_index(int(np.where(cells, logits, -np.inf).argmax()), cells.shape)
        left, top, width, height, _ = (int(value) for value in stats[label])
        box = (left, top, left + width, top + height)
        pieces.append(Piece(cells, box, (int(column), int(row))))
    pieces.sort(key=lambda piece: -float(logits[piece.peak_xy[1], piece.peak_xy[0]]))
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


def _shrunk(mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Share of each cell of a feature map that a mask covers: float [1, 1, h, w]."""
    height, width = features.shape[-2:]
    return functional.adaptive_avg_pool2d(mask, (int(height), int(width)))


def _covers(logits: torch.Tensor, piece: Piece) -> bool:
    """Whether a drawn mask is of the piece at all."""
    drawn = (logits > 0).cpu().numpy()
    return bool((drawn & piece.cells).sum() >= _MIN_COVERED * piece.cells.sum())
