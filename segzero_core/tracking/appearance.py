"""Which cells of a picture look like an object, told by its pictures so far.

Nearest-neighbour matching of features, with which Chen et al. (2018, arXiv 1804.03131) segment
videos. They train an embedding for it; here the finest features of the segmenter's encoder serve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

Cells = NDArray[np.bool_]

_INNER: Final = 0.6  # of a cell, from which on it counts as the object's own
_OUTER: Final = 0.05  # of a cell, up to which it counts as something else's
_MAX_KNOWN: Final = 2400  # cells of one kind in one picture: more are not surer, and take longer
_AT_ONCE: Final = 256  # cells compared at a time, so that the table stays in the processor's cache


@dataclass(frozen=True, eq=False, slots=True)
class _Known:
    """Features of cells, float [N, C]: the object's, and those of everything else."""

    own: torch.Tensor
    other: torch.Tensor


class Likeness:
    """Tells the cells that look like an object from those that look like what is around it.

    A cell is the object's where, of all known cells, one of the object's is the most alike. So an
    object in two colours is known by both, and a thing of its colour by whatever else differs.

    Args:
        fine: Finest features of the picture that the object is known in, float [1, C, h, w].
        covered: Share of each cell that the object covers, float [1, 1, h, w]; not all zero.
    """

    def __init__(self, fine: torch.Tensor, covered: torch.Tensor) -> None:
        self._mean = fine.mean((2, 3), keepdim=True)
        # Distances do not depend on how many features there are, nor on their units.
        spread = fine.std((2, 3), keepdim=True).clamp(min=1e-6)
        self._spread = spread * math.sqrt(fine.shape[1])
        self._first = self._known(fine, covered)
        self._recent: _Known | None = None

    def learn(self, fine: torch.Tensor, covered: torch.Tensor) -> None:
        """Know the object by a later picture too, in place of the one learned before.

        The first picture, in which the object is known for sure, is never forgotten.

        Args:
            fine: As before, of the later picture.
            covered: As before, of the later picture.
        """
        self._recent = self._known(fine, covered)

    def cells_of(self, fine: torch.Tensor, where: Cells) -> Cells:
        """Return the cells of a picture that look like the object.

        Args:
            fine: Finest features of the picture, float [1, C, h, w].
            where: bool [h, w], the cells that are looked at.

        Returns:
            bool [h, w], nowhere true where it was not looked.
        """
        pictures = [self._first, *([] if self._recent is None else [self._recent])]
        looked_at = torch.from_numpy(where).to(fine.device)
        features = self._flat(fine)[looked_at.flatten()]
        to_own = _nearest(features, torch.cat([each.own for each in pictures]))
        to_other = _nearest(features, torch.cat([each.other for each in pictures]))
        alike = np.zeros_like(where)
        alike[where] = (to_own < to_other).cpu().numpy()
        return alike

    def _known(self, fine: torch.Tensor, covered: torch.Tensor) -> _Known:
        share, features = covered.flatten(), self._flat(fine)
        most = min(_INNER, 0.9 * float(share.max()))  # the object may be smaller than a cell
        own, other = share > most, share < min(_OUTER, most)
        return _Known(_some_of(features[own]), _some_of(features[other]))

    def _flat(self, fine: torch.Tensor) -> torch.Tensor:
        return ((fine - self._mean) / self._spread).flatten(2)[0].T


def _some_of(features: torch.Tensor) -> torch.Tensor:
    """Choose evenly; cells beside each other are alike."""
    count = min(len(features), _MAX_KNOWN)
    chosen = torch.linspace(0, max(0, len(features) - 1), count, device=features.device)
    return features[chosen.long()]


def _nearest(features: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Squared distance to the most alike known cell, less what all distances of a cell share."""
    if not len(known) or not len(features):
        return torch.full((len(features),), math.inf, device=features.device)
    lengths, turned = known.square().sum(1), -2 * known.T
    return torch.cat(
        [torch.addmm(lengths, part, turned).amin(1) for part in torch.split(features, _AT_ONCE)]
    )
