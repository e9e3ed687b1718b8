"""Which image encoder runs: the one that was asked for, or the best that is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from segzero_core.encoder import ImageEncoder
from segzero_core.encoder_torch import TorchImageEncoder
from segzero_core.errors import (
    ConfigError,
    EngineMismatchError,
    ModelLoadError,
    OutOfMemoryError,
    is_out_of_memory,
    shown,
)
from segzero_core.export import onnx_digest, onnx_path, output_names
from segzero_core.parity import MIN_IOU, mask_agreement
from segzero_core.sam2_model import image_side
from segzero_core.segmenter import LoadedSegmenter

_LOG: Final = logging.getLogger(__name__)

BACKENDS: Final = ("auto", "torch", "torch-compile", "onnxruntime", "tensorrt")
"""Names of the ways to run the image encoder; `auto` takes the best that is there."""

ENGINE_PRECISION: Final = "fp16"
"""Of an engine, unless another one is asked for."""


@dataclass(frozen=True, slots=True)
class ChosenEncoder:
    """An encoder, and why it is this one.

    Attributes:
        encoder: The encoder.
        reason: In one line for a person.
    """

    encoder: ImageEncoder
    reason: str


def check_backend(backend: str) -> None:
    """Raise a `ConfigError` if there is no such backend."""
    if backend not in BACKENDS:
        raise ConfigError(f"backend: {shown(str(backend))} is none of {', '.join(BACKENDS)}")


def choose_encoder(sam: LoadedSegmenter, device: str, backend: str = "auto") -> ChosenEncoder:
    """Return the encoder that a setting means.

    `auto` takes TensorRT where an engine for this machine was built, else ONNX Runtime on a CPU
    where an encoder was exported, else torch. What should have worked and did not is told in one
    warning, and the next best is taken.

    Args:
        sam: The segmenter whose encoder it is.
        device: A torch device.
        backend: One of `BACKENDS`.

    Raises:
        ConfigError: The backend is unknown, or this machine cannot run it.
        ModelLoadError: Its file is missing; says the command that makes it.
        EngineMismatchError: Its file is for something else, or its masks are not torch's.
    """
    check_backend(backend)
    if backend != "auto":
        return ChosenEncoder(_MAKERS[backend](sam, device), "it was asked for")
    reasons = []
    for name in ("tensorrt",) if device.startswith("cuda") else ("onnxruntime",):
        try:
            return ChosenEncoder(_MAKERS[name](sam, device), "the fastest that is there")
        except (EngineMismatchError, OutOfMemoryError) as error:
            _LOG.warning("%s is not used, torch is: %s", name, error)
            reasons.append(f"{name}: {error}")
        except (ConfigError, ModelLoadError) as error:
            reasons.append(f"{name}: {error}")
    return ChosenEncoder(sam.encoder, "; ".join(reasons))


def tensorrt_encoder(
    sam: LoadedSegmenter, device: str, precision: str = ENGINE_PRECISION
) -> ImageEncoder:
    """Load the engine that was built for this machine; its masks are checked the first time.

    Raises:
        ConfigError: There is no GPU or no TensorRT.
        ModelLoadError: No engine was built.
        EngineMismatchError: It is damaged, or its masks are not torch's.
    """
    from segzero_core import trt_engine
    from segzero_core.encoder_trt import TensorRtImageEncoder

    trt = trt_engine.import_tensorrt()
    model, place = sam.model, torch.device(device)
    side = image_side(model)
    graph = onnx_path(sam.weights_hash, side, precision)
    key = trt_engine.engine_key(trt, place, sam.weights_hash, onnx_digest(graph), precision, side)
    engine, notes = trt_engine.read_engine(key), trt_engine.read_notes(key)
    try:
        encoder = TensorRtImageEncoder(trt, engine, output_names(model), place)
        if not notes.get("agreement"):
            agreement = mask_agreement(sam.encoder, encoder, sam.segmenter)
            check_agreement("TensorRT", agreement)
            trt_engine.write_notes(key, notes | {"agreement": list(agreement)})
    except (EngineMismatchError, OutOfMemoryError, ModelLoadError):
        raise
    except Exception as error:  # TensorRT, CUDA and our own decoder share no root
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough GPU memory for the engine: {error}") from error
        raise EngineMismatchError(
            f"{key.path} does not run here: {error}; the driver may be too old for TensorRT"
            f" {key.tensorrt}, or run segzero build-engine again"
        ) from error
    return encoder


def check_agreement(what: str, agreement: tuple[float, ...]) -> None:
    """Refuse an encoder whose masks are other masks.

    Raises:
        EngineMismatchError: On one of the pictures the masks agree too little.
    """
    if not all(value >= MIN_IOU for value in agreement):
        raise EngineMismatchError(
            f"{what} makes other masks than torch: their intersection over union is"
            f" {', '.join(f'{value:.3f}' for value in agreement)} on three pictures, and"
            f" {MIN_IOU} is the least allowed. It is not used; build it with --precision fp32,"
            " or use another backend"
        )


def _onnx_encoder(sam: LoadedSegmenter, device: str) -> ImageEncoder:
    from segzero_core.encoder_onnx import OnnxImageEncoder

    path = onnx_path(sam.weights_hash, image_side(sam.model), "fp32")
    return OnnxImageEncoder(path, sam.weights_hash, device)


_MAKERS: Final[dict[str, Callable[[LoadedSegmenter, str], ImageEncoder]]] = {
    "torch": lambda sam, _device: sam.encoder,
    "torch-compile": lambda sam, _device: TorchImageEncoder(sam.model, compiled=True),
    "onnxruntime": _onnx_encoder,
    "tensorrt": tensorrt_encoder,
}
