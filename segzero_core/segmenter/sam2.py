"""SAM 2 as a segmenter: turns boxes and points on an encoded image into masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from segzero_core.checkpoints.sam2_checkpoint import (
    TrackingFacts,
    find_sam2,
    image_side,
    load_sam2,
    read_tracking_facts,
    segmenter_hash,
)
from segzero_core.encoders.base import Embedding
from segzero_core.encoders.torch_encoder import TorchImageEncoder
from segzero_core.errors import (
    OutOfMemoryError,
    SegmentationError,
    is_out_of_memory,
    segmentation_errors,
)
from segzero_core.types import ObjectPrompt, Segmentation, SizeWH

# SAM 2's labels of prompt points.
_FOREGROUND, _BOX_MIN, _BOX_MAX = 1, 2, 3
# Objects decoded at once, which bounds the memory for the masks of a large image.
_BATCH = 8


class Segmenter(Protocol):
    """The mask decoder, the fast half of a segmenter; safe to call from any thread."""

    def segment(self, embedding: Embedding, prompts: Sequence[ObjectPrompt]) -> Segmentation:
        """Return one mask per prompt, in the order of the prompts.

        Args:
            embedding: The encoded image.
            prompts: Box and points in pixels of that image; no prompts give no masks.

        Raises:
            SegmentationError: The decoder failed.
            OutOfMemoryError: The device has too little memory.
        """


class Sam2Segmenter:
    """The prompt encoder and mask decoder of a SAM 2 model.

    SAM 2 proposes three masks for an object. The one with the highest predicted IoU wins. The
    `SAM2Base`, in evaluation mode on its device, is shared, not copied.
    """

    def __init__(self, model: nn.Module, tracking: TrackingFacts | None = None) -> None:
        self.model: Any = model  # the `SAM2Base`
        self.tracking = tracking or TrackingFacts()
        self._device = next(model.parameters()).device
        self._side = image_side(model)

    def segment(self, embedding: Embedding, prompts: Sequence[ObjectPrompt]) -> Segmentation:
        """Decode one mask per prompt; see `Segmenter`."""
        width, height = embedding.size_wh
        masks = np.zeros((len(prompts), height, width), np.bool_)
        scores = np.zeros(len(prompts), np.float32)
        with segmentation_errors("mask decoder"):
            for indices in _batches(prompts):
                batch = [prompts[index] for index in indices]
                masks[indices], scores[indices] = self._decode(embedding, batch)
        if not np.isfinite(scores).all():
            raise SegmentationError("the mask decoder returned scores that are not finite")
        return Segmentation(masks, scores)

    @torch.inference_mode()
    def _decode(
        self, embedding: Embedding, prompts: list[ObjectPrompt]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Decode prompts with equally many points; return bool [B, H, W] and float32 [B]."""
        model = self.model
        image_embed = torch.as_tensor(embedding.image_embed, device=self._device)
        if model.directly_add_no_mem_embed:
            image_embed = image_embed + model.no_mem_embed.view(1, -1, 1, 1)
        sparse, dense = model.sam_prompt_encoder(
            points=_prompt_points(prompts, embedding.size_wh, self._side, self._device),
            boxes=None,
            masks=None,
        )
        logits, ious, _, _ = model.sam_mask_decoder(
            image_embeddings=image_embed,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=len(prompts) > 1,
            high_res_features=[
                torch.as_tensor(features, device=self._device)
                for features in embedding.high_res_feats
            ],
        )
        scores, best = ious.float().max(dim=1)
        chosen = logits[torch.arange(len(prompts), device=self._device), best]
        width, height = embedding.size_wh
        full = functional.interpolate(
            chosen[:, None].float(), (height, width), mode="bilinear", align_corners=False
        )
        masks = (full[:, 0] > 0).cpu().numpy()
        return masks, scores.clamp(0, 1).cpu().numpy().astype(np.float32)


def _batches(prompts: Sequence[ObjectPrompt]) -> list[list[int]]:
    """Group prompts by their number of points, because padding would change the masks a little."""
    by_count: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_count.setdefault(len(prompt.points), []).append(index)
    return [
        indices[start : start + _BATCH]
        for indices in by_count.values()
        for start in range(0, len(indices), _BATCH)
    ]


def _prompt_points(
    prompts: list[ObjectPrompt], size_wh: SizeWH, side: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return boxes and points as SAM 2's labeled points, in pixels of the encoder's square."""
    rows = [
        [(p.box.x_min, p.box.y_min), (p.box.x_max, p.box.y_max), *(point.xy for point in p.points)]
        for p in prompts
    ]
    labels = [[_BOX_MIN, _BOX_MAX] + [_FOREGROUND] * len(p.points) for p in prompts]
    coordinates = torch.tensor(rows, dtype=torch.float32, device=device)
    size = torch.tensor(size_wh, dtype=torch.float32, device=device)
    return coordinates / size * side, torch.tensor(labels, dtype=torch.int32, device=device)


@dataclass(frozen=True, slots=True)
class LoadedSegmenter:
    """A SAM 2 in two halves, which share one model."""

    encoder: TorchImageEncoder  # the image encoder, the slow half
    segmenter: Sam2Segmenter  # the mask decoder, the fast half
    name: str  # the folder or Hub id
    weights_hash: str  # see `ModelIdentity`; of the segmenter's files alone

    @property
    def model(self) -> nn.Module:
        """The `SAM2Base` that both halves share."""
        model: nn.Module = self.segmenter.model
        return model


def load_segmenter(name_or_folder: str, device: str | torch.device = "cpu") -> LoadedSegmenter:
    """Load a SAM 2.

    Args:
        name_or_folder: A Hub id such as `facebook/sam2-hiera-large`, or a folder with exactly
            one configuration in sam2's format and one weights file (`.safetensors`, or `.pt`
            with `{"model": state_dict}`).
        device: A torch device.

    Raises:
        ConfigError: The folder or its configuration is wrong.
        ModelLoadError: The weights are missing, damaged or do not fit.
        OutOfMemoryError: The device has too little memory.
    """
    files = find_sam2(str(name_or_folder))
    digest, tracking = segmenter_hash(files), read_tracking_facts(files.config)
    try:
        model = load_sam2(files, torch.device(device))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough memory on {device} for {files.name}") from error
        raise
    segmenter = Sam2Segmenter(model, tracking)
    return LoadedSegmenter(TorchImageEncoder(model), segmenter, files.name, digest)
