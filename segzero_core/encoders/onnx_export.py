"""Exports SAM 2's image encoder to ONNX: trunk, neck and the projections of the fine features.

The graph fixes the precision; an engine built from it keeps all types.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from segzero_core.checkpoints.cache import cache_folder, write_cached
from segzero_core.checkpoints.sam2_checkpoint import image_side
from segzero_core.errors import ConfigError, ModelLoadError, shown

OPSET: Final = 20
"""Supported by TensorRT 10.3 and later; LayerNormalization and Gelu are single operators."""
INPUT: Final = "image"
MAX_RELATIVE_ERROR: Final = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest deviation of the features from torch's in float32, for each precision of the graph."""


@dataclass(frozen=True, slots=True)
class FeatureError:
    """Deviation of one output from torch's."""

    name: str  # of the output
    largest: float  # largest absolute difference
    relative: float  # the same, divided by the largest absolute value of torch's output


class EncoderGraph(nn.Module):
    """The image encoder as a function from a normalized image to its features.

    It is made of a `SAM2Base` in float32, which is copied for fp16. Input and outputs are always
    float32.
    """

    def __init__(self, sam: nn.Module, precision: str = "fp32") -> None:
        super().__init__()
        if precision not in MAX_RELATIVE_ERROR:
            known = ", ".join(MAX_RELATIVE_ERROR)
            raise ConfigError(f"precision: {shown(precision)} is none of {known}")
        self._sam: Any = sam if precision == "fp32" else copy.deepcopy(sam).half()
        self._dtype = torch.float32 if precision == "fp32" else torch.float16

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of float32 [1, 3, side, side], finest first, all float32."""
        features = self._sam.forward_image(image.to(self._dtype))["backbone_fpn"]
        return tuple(each.float() for each in features[-self._sam.num_feature_levels :])


def output_names(sam: nn.Module) -> list[str]:
    """Return the names of the graph's outputs in order, finest first."""
    fine = int(sam.num_feature_levels) - 1  # type: ignore[arg-type]
    return [*(f"high_res_{index}" for index in range(fine)), "image_embed"]


def onnx_path(weights_hash: str, side: int, precision: str) -> Path:
    """Return the path of an exported encoder in the cache."""
    return cache_folder("encoders") / f"{weights_hash}-{side}-{precision}.onnx"


def export_encoder(
    sam: nn.Module, weights_hash: str, path: Path, precision: str = "fp32"
) -> list[FeatureError]:
    """Write the encoder of a `SAM2Base` on the CPU to an ONNX file, and compare it with torch.

    The file is written in one step, or not at all; it holds the hash of the weights. Returns the
    deviation of each output from torch's in float32.

    Raises:
        ConfigError: A package is missing, or the precision is unknown.
        ModelLoadError: The file cannot be written, or its features differ too much.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"exporting needs onnx, onnxscript and onnxruntime ({error}); pip install"
            " segzero[onnx]"
        ) from error
    graph = EncoderGraph(sam, precision).eval()
    side = image_side(sam)
    errors: list[FeatureError] = []

    def write(temporary: Path) -> None:
        program = torch.onnx.export(
            graph,
            (torch.zeros(1, 3, side, side),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=output_names(sam),
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(
            {"weights_hash": weights_hash, "side": str(side), "precision": precision}
        )
        program.save(str(temporary), external_data=False)
        errors.extend(compare_with_torch(sam, temporary))
        for error in errors:
            if not error.relative <= MAX_RELATIVE_ERROR[precision]:
                raise ModelLoadError(
                    f"the exported encoder differs from torch: {error.name} by"
                    f" {error.relative:.1e} of its range, allowed is"
                    f" {MAX_RELATIVE_ERROR[precision]:.0e}; nothing was written"
                )

    with _fixed_positions(graph, side), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own exporter
        write_cached(path, write)
    return errors


def compare_with_torch(sam: nn.Module, path: Path) -> list[FeatureError]:
    """Compare an exported encoder in ONNX Runtime with its `SAM2Base`, both on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    side = image_side(sam)
    image = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    found = session.run(None, {INPUT: image})
    with torch.inference_mode():
        expected = EncoderGraph(sam)(torch.from_numpy(image))
    errors = []
    for name, ours, theirs in zip(output_names(sam), found, expected, strict=True):
        largest = float(np.abs(ours - theirs.numpy()).max())
        errors.append(FeatureError(name, largest, largest / float(theirs.abs().max())))
    return errors


@contextmanager
def _fixed_positions(graph: EncoderGraph, side: int) -> Iterator[None]:
    """Make the position embedding a constant; in the graph it would be a cubic resize."""
    encoder = graph._sam.image_encoder
    trunk, positions = encoder.trunk, encoder.neck.position_encoding
    with torch.no_grad():
        quarter = (side // 4, side // 4)
        fixed = trunk._get_pos_embed(quarter).clone()
    positions.cache.clear()
    trunk._get_pos_embed = lambda _hw: fixed
    try:
        yield
    finally:
        del trunk._get_pos_embed
        positions.cache.clear()  # it holds tensors of the tracer
