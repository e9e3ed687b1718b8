"""SAM 2's image encoder as an ONNX file: trunk, neck and the projections of the fine features.

The precision is decided here, in the graph: an engine built from it may change nothing.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from segzero_core.checkpoints.cache import cache_folder, written_whole
from segzero_core.checkpoints.sam2_checkpoint import image_side
from segzero_core.errors import ConfigError, ModelLoadError, shown

PRECISIONS: Final = ("fp32", "fp16")
"""Types in which the graph works; its input and outputs are always float32."""

OPSET: Final = 20
"""Known to TensorRT 10.3 and later, with LayerNormalization and Gelu as one operator each."""

INPUT: Final = "image"
MAX_RELATIVE_ERROR: Final = {"fp32": 1e-3, "fp16": 2e-2}
"""How far features may be from torch's in float32, by precision."""


@dataclass(frozen=True, slots=True)
class FeatureError:
    """How far one output is from torch's.

    Attributes:
        name: The output.
        largest: Greatest absolute difference.
        relative: The same over the greatest absolute value of torch's.
    """

    name: str
    largest: float
    relative: float


class EncoderGraph(nn.Module):
    """The image encoder as a function from one normalised picture to its features.

    Args:
        sam: A `SAM2Base` in float32; it is copied where the precision is another one.
        precision: One of `PRECISIONS`.
    """

    def __init__(self, sam: nn.Module, precision: str = "fp32") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ConfigError(f"precision: {shown(precision)} is none of {', '.join(PRECISIONS)}")
        self._sam: Any = sam if precision == "fp32" else copy.deepcopy(sam).half()
        self._dtype = torch.float32 if precision == "fp32" else torch.float16

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """From float32 [1, 3, side, side] to the features, finest first, all float32."""
        features = self._sam.forward_image(image.to(self._dtype))["backbone_fpn"]
        return tuple(f.float() for f in features[-self._sam.num_feature_levels :])


def output_names(sam: nn.Module) -> list[str]:
    """Return the names of the graph's outputs, in their order."""
    fine = int(sam.num_feature_levels) - 1  # type: ignore[arg-type]
    return [*(f"high_res_{index}" for index in range(fine)), "image_embed"]


def onnx_path(weights_hash: str, side: int, precision: str) -> Path:
    """Return where the cache keeps an exported encoder."""
    return cache_folder("encoders") / f"{weights_hash}-{side}-{precision}.onnx"


def export_encoder(
    sam: nn.Module, weights_hash: str, path: Path, precision: str = "fp32"
) -> list[FeatureError]:
    """Write the image encoder to an ONNX file, and compare it with torch.

    Args:
        sam: A `SAM2Base` on the CPU.
        weights_hash: Of its weights; written into the file.
        path: The file; a whole one takes its place, or none.
        precision: One of `PRECISIONS`.

    Returns:
        The difference of each output from torch's in float32.

    Raises:
        ConfigError: A package that this needs is missing, or the precision is unknown.
        ModelLoadError: The file cannot be written, or its features differ too much.
    """
    _check_packages()
    graph = EncoderGraph(sam, precision).eval()
    side = image_side(sam)
    picture = torch.zeros(1, 3, side, side)
    with written_whole(path) as beside, _fixed_positions(graph, side), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on its own exporter
        program = torch.onnx.export(
            graph,
            (picture,),
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
        program.save(str(beside), external_data=False)
        errors = compare_with_torch(sam, beside)
        if bad := [e for e in errors if not e.relative <= MAX_RELATIVE_ERROR[precision]]:
            raise ModelLoadError(
                f"the exported encoder differs from torch: {bad[0].name} by"
                f" {bad[0].relative:.1e} of its range, allowed is"
                f" {MAX_RELATIVE_ERROR[precision]:.0e}; nothing was written"
            )
    return errors


def compare_with_torch(sam: nn.Module, path: Path) -> list[FeatureError]:
    """Run an exported encoder by ONNX Runtime on the CPU, and torch beside it.

    Args:
        sam: The `SAM2Base` it was made from, on the CPU in float32.
        path: The file.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    side = image_side(sam)
    picture = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    found = session.run(None, {INPUT: picture})
    with torch.inference_mode():
        expected = EncoderGraph(sam)(torch.from_numpy(picture))
    errors = []
    for name, ours, theirs in zip(output_names(sam), found, expected, strict=True):
        largest = float(np.abs(ours - theirs.numpy()).max())
        errors.append(FeatureError(name, largest, largest / float(theirs.abs().max())))
    return errors


def onnx_digest(path: Path) -> str:
    """Return the SHA-256 of an exported encoder.

    Raises:
        ModelLoadError: It is not there.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error}; run segzero export") from error


@contextmanager
def _fixed_positions(graph: EncoderGraph, side: int) -> Iterator[None]:
    """Have the position embedding computed once: in the graph it would be a cubic resize."""
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
        positions.cache.clear()  # the tracer's own tensors are in it


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"exporting needs onnx, onnxscript and onnxruntime ({error}); pip install"
            " segzero[onnx]"
        ) from error
