"""Appearance model of an object: nearest-neighbor matching of encoder features.

Chen et al. (2018, arXiv 1804.03131) segment videos by nearest neighbors in a trained embedding.
Here the finest features of the segmenter's encoder serve as the embedding.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Cells = NDArray[np.bool_]
"""Mask at the resolution of a feature map, bool [h, w]."""

_INNER: Final = 0.6  # a cell covered by at least this share shows the object
_OUTER: Final = 0.05  # a cell covered by at most this share shows the surroundings
_MAX_EXAMPLES: Final = 2400  # of one kind in one frame: more are slower and no more accurate
_AT_ONCE: Final = 256  # cells compared at a time, so that the table fits the processor's cache


class _Examples(NamedTuple):
    """Features of known cells, float [N, C]: the object's, and those of its surroundings."""

    inside: torch.Tensor
    outside: torch.Tensor


class AppearanceModel:
    """Tells the cells that look like an object from those that look like its surroundings.

    A cell matches if its nearest known cell is one of the object's. So an object in two colors is
    known by both, and another object of the same color is told apart by other features.

    Args:
        fine: Finest features of the first frame, float [1, C, h, w].
        covered: Share of each cell that the object covers, float [1, 1, h, w]; not all zero.
    """

    def __init__(self, fine: torch.Tensor, covered: torch.Tensor) -> None:
        self._mean = fine.mean((2, 3), keepdim=True)
        # Distances depend neither on the number of features nor on their units.
        spread = fine.std((2, 3), keepdim=True).clamp(min=1e-6)
        self._spread = spread * math.sqrt(fine.shape[1])
        self._examples = [self._examples_of(fine, covered)]

    def update(self, fine: torch.Tensor, covered: torch.Tensor) -> None:
        """Learn from a later frame, in place of the last later frame.

        The first frame, in which the object is certain, is never forgotten. The arguments are as
        for the class.
        """
        self._examples = [self._examples[0], self._examples_of(fine, covered)]

    def matching_cells(self, fine: torch.Tensor, where: Cells) -> Cells:
        """Return the cells of `where` that look like the object; both are bool [h, w].

        `fine` are the finest features of a frame, float [1, C, h, w].
        """
        features = self._normalized(fine)[torch.from_numpy(where).to(fine.device).flatten()]
        to_inside, to_outside = (
            _nearest(features, torch.cat(known)) for known in zip(*self._examples, strict=True)
        )
        matching = np.zeros_like(where)
        matching[where] = (to_inside < to_outside).cpu().numpy()
        return matching

    def _examples_of(self, fine: torch.Tensor, covered: torch.Tensor) -> _Examples:
        share, features = covered.flatten(), self._normalized(fine)
        most = min(_INNER, 0.9 * float(share.max()))  # the object may be smaller than a cell
        chosen = []
        for kind in (features[share > most], features[share < min(_OUTER, most)]):
            # Evenly spread over the frame, because neighboring cells are alike.
            count = min(len(kind), _MAX_EXAMPLES)
            spread = torch.linspace(0, max(0, len(kind) - 1), count, device=kind.device)
            chosen.append(kind[spread.long()])
        return _Examples(*chosen)

    def _normalized(self, fine: torch.Tensor) -> torch.Tensor:
        """Return one row of features for each cell, float [h * w, C]."""
        return ((fine - self._mean) / self._spread).flatten(2)[0].T


def _nearest(features: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return squared distances to the nearest known cell, up to a constant for each cell."""
    if not len(known) or not len(features):
        return torch.full((len(features),), math.inf, device=features.device)
    lengths, turned = known.square().sum(1), -2 * known.T
    return torch.cat(
        [torch.addmm(lengths, part, turned).amin(1) for part in torch.split(features, _AT_ONCE)]
    )
