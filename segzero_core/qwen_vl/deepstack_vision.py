"""Qwen3-VL's vision encoder for images of one size, with the features for DeepStack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segzero_core.types import SizeWH


class DeepStackVisionEncoder:
    """Turns the patches of an image of `tokens_wh` into what Qwen3-VL's language model takes."""

    def __init__(self, visual: Any, tokens_wh: SizeWH) -> None:
        self.dtype: torch.dtype = visual.dtype
        self._visual = visual
        merge = int(visual.config.spatial_merge_size)
        rows_columns = [merge * side for side in reversed(tokens_wh)]
        self._grid = torch.tensor([[1, *rows_columns]], device=visual.device)

    def __call__(self, patches: Tensor) -> Tensor:
        """Return [tokens, width * (1 + layers)]: the embeddings, then what each layer adds."""
        seen = self._visual(patches, grid_thw=self._grid)
        return torch.cat([seen.pooler_output, *seen.deepstack_features], dim=-1)
