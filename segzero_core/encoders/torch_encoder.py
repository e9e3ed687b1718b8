"""SAM 2's image encoder in PyTorch, the backend that works everywhere."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from segzero_core.checkpoints.sam2_checkpoint import image_side
from segzero_core.encoders.base import Embedding
from segzero_core.errors import segmentation_errors
from segzero_core.types import RgbImage, check_rgb_image

# Mean and standard deviation of the colors that SAM 2 was trained with, of images in [0, 1].
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class TorchImageEncoder:
    """Runs the image encoder of a SAM 2 model.

    On a GPU it uses a CUDA stream of its own, in parallel to the reasoner's.

    Args:
        model: A `SAM2Base` in evaluation mode, on its device; shared, not copied.
        compiled: Compile the encoder at its first use, which takes a minute or more, needs a C++
            compiler on a CPU, and is worth it on a GPU.
        half: Compute in float16 where torch's autocast does; the features stay float32.
    """

    def __init__(self, model: nn.Module, *, compiled: bool = False, half: bool = False) -> None:
        self._model: Any = model
        forward: Any = self._model.forward_image
        self._forward: Any = torch.compile(forward, dynamic=False) if compiled else forward
        self._compiled, self._half = compiled, half
        self._device = next(model.parameters()).device
        self._side = image_side(model)
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @property
    def backend(self) -> str:
        """The name `torch`, or `torch-compile`."""
        return "torch-compile" if self._compiled else "torch"

    @torch.inference_mode()
    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image; see `ImageEncoder`."""
        height, width = check_rgb_image(image).shape[:2]
        # Not torch.cuda.stream(None), which would start CUDA for a model on the CPU.
        own_stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with segmentation_errors("image encoder"), own_stream:
            square = preprocess(image, self._side, self._device)
            with torch.autocast(self._device.type, torch.float16, enabled=self._half):
                output = self._forward(square)
            features = output["backbone_fpn"][-self._model.num_feature_levels :]
            *fine, coarse = (each.float() for each in features)
        if self._stream is not None:
            self._stream.synchronize()
        return Embedding(coarse, tuple(fine), (int(width), int(height)))


def preprocess(image: RgbImage, side: int, device: torch.device) -> torch.Tensor:
    """Resize an image to float32 [1, 3, side, side], normalized, as SAM 2's predictor does."""
    # A copy, because torch warns about read-only arrays such as a camera's buffer.
    pixels = torch.tensor(image, device=device).permute(2, 0, 1)[None].float() / 255
    square = functional.interpolate(
        pixels, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    return (square - mean) / std
