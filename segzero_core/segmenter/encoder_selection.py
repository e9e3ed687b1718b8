"""Which image encoder runs: the one that was asked for, or the best that is there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch

from segzero_core.checkpoints.sam2_checkpoint import image_side
from segzero_core.config import BACKENDS, ENCODER_PRECISIONS
from segzero_core.cpu_threads import Cores
from segzero_core.encoders import tensorrt_engine
from segzero_core.encoders.base import Embedding, ImageEncoder
from segzero_core.encoders.onnx_export import onnx_digest, onnx_path, output_names
from segzero_core.encoders.tensorrt_engine import EngineKey
from segzero_core.encoders.torch_encoder import TorchImageEncoder
from segzero_core.errors import (
    ConfigError,
    EngineMismatchError,
    ModelLoadError,
    OutOfMemoryError,
    SegmentationError,
    is_out_of_memory,
    shown,
)
from segzero_core.segmenter.encoder_parity import MIN_IOU, mask_agreement
from segzero_core.segmenter.sam2 import LoadedSegmenter
from segzero_core.types import RgbImage

_LOG: Final = logging.getLogger(__name__)

_SMALL_SIDE: Final = 512


@dataclass(frozen=True, slots=True)
class ChosenEncoder:
    """An encoder, and why it is this one.

    Attributes:
        encoder: The encoder.
        reason: In one line for a person.
    """

    encoder: ImageEncoder
    reason: str


class FallbackEncoder:
    """An encoder with another one to go on with, should it fail while it runs.

    Args:
        first: Encodes until it fails.
        second: Encodes from then on; torch, which needs nothing that could be missing.
    """

    def __init__(self, first: ImageEncoder, second: ImageEncoder) -> None:
        self._lock = threading.Lock()
        self._present = first
        self._second = second

    @property
    def backend(self) -> str:
        """What runs the encoder that encodes now."""
        return self._present.backend

    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image, if need be with the second encoder; see `ImageEncoder`."""
        present = self._present
        try:
            return present.encode(image)
        except (SegmentationError, OutOfMemoryError) as error:
            if present is self._second:
                raise
            with self._lock:
                if self._present is present:
                    _LOG.warning(
                        "%s failed, %s goes on: %s", present.backend, self._second.backend, error
                    )
                    self._present = self._second
        return self._second.encode(image)


def check_backend(backend: str, precision: str = "auto") -> None:
    """Raise a `ConfigError` if there is no such backend, or no engine of such a precision."""
    for name, value, known in (
        ("backend", backend, BACKENDS),
        ("encoder_precision", precision, ENCODER_PRECISIONS),
    ):
        if value not in known:
            raise ConfigError(f"{name}: {shown(str(value))} is none of {', '.join(known)}")


def choose_encoder(
    sam: LoadedSegmenter, device: str, backend: str = "auto", precision: str = "auto"
) -> ChosenEncoder:
    """Return the encoder that a setting means.

    `auto` takes TensorRT where an engine for this machine was built, else ONNX Runtime on a CPU
    where an encoder was exported, else torch. What should have worked and did not is told in one
    warning, and the next best is taken; so it is when it fails later.

    Args:
        sam: The segmenter whose encoder it is.
        device: A torch device.
        backend: One of `BACKENDS`.
        precision: On a GPU; one of `ENCODER_PRECISIONS`. `auto` is fp32 for `torch`, and for the
            others fp16 where that makes the masks of fp32.

    Raises:
        ConfigError: The backend is unknown, or this machine cannot run it.
        ModelLoadError: Its file is missing; says the command that makes it.
        EngineMismatchError: Its file is for something else, or its masks are not torch's.
        SegmentationError: It was asked for and does not run, such as without a compiler.
        OutOfMemoryError: It was asked for and the device has too little memory.
    """
    check_backend(backend, precision)
    if backend != "auto":
        return ChosenEncoder(_MAKERS[backend](sam, device, precision), "it was asked for")
    name = "tensorrt" if device.startswith("cuda") else "onnxruntime"
    try:
        best = _MAKERS[name](sam, device, precision)
    except (EngineMismatchError, OutOfMemoryError) as error:
        _LOG.warning("%s is not used, torch is: %s", name, error)
        return ChosenEncoder(sam.encoder, f"{name}: {error}")
    except (ConfigError, ModelLoadError) as error:
        return ChosenEncoder(sam.encoder, f"{name}: {error}")
    return ChosenEncoder(FallbackEncoder(best, sam.encoder), "the fastest that is there")


def _best_engine(sam: LoadedSegmenter, device: str, precision: str) -> ImageEncoder:
    """Load the engine of a precision; for `auto` the faster one that is there and right."""
    if precision != "auto":
        return tensorrt_encoder(sam, device, precision)
    try:
        return tensorrt_encoder(sam, device, "fp16")
    except ModelLoadError as error:
        try:
            engine = tensorrt_encoder(sam, device, "fp32")
        except ModelLoadError:
            raise error from None
        if isinstance(error, EngineMismatchError):
            _LOG.warning("the engine in fp16 is not used, that in fp32 is: %s", error)
        return engine


def tensorrt_encoder(sam: LoadedSegmenter, device: str, precision: str = "fp16") -> ImageEncoder:
    """Load the engine that was built for this machine; its masks are checked the first time.

    Raises:
        ConfigError: There is no GPU or no TensorRT.
        ModelLoadError: No engine was built.
        EngineMismatchError: It is damaged, or its masks are not torch's.
    """
    from segzero_core.encoders.tensorrt_encoder import TensorRtImageEncoder

    trt = tensorrt_engine.import_tensorrt()
    model, place = sam.model, torch.device(device)
    side = image_side(model)
    graph = onnx_path(sam.weights_hash, side, precision)
    key = tensorrt_engine.engine_key(
        trt, place, sam.weights_hash, onnx_digest(graph), precision, side
    )
    engine, notes = tensorrt_engine.read_engine(key), tensorrt_engine.read_notes(key)
    try:
        encoder = TensorRtImageEncoder(trt, engine, output_names(model), place)
        if not notes.get("agreement"):
            agreement = mask_agreement(sam.encoder, encoder, sam.segmenter)
            check_agreement("TensorRT", agreement)
            _keep(key, notes | {"agreement": list(agreement)})
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


def _keep(key: EngineKey, notes: dict[str, Any]) -> None:
    """Write down that an engine is right; where that fails it is looked at again next time."""
    try:
        tensorrt_engine.write_notes(key, notes)
    except ModelLoadError as error:
        _LOG.warning("the engine will be checked again at its next load: %s", error)


def check_agreement(what: str, agreement: tuple[float, ...]) -> None:
    """Refuse an encoder whose masks are other masks.

    Raises:
        EngineMismatchError: On one of the pictures the masks agree too little.
    """
    if not all(value >= MIN_IOU for value in agreement):
        raise EngineMismatchError(
            f"{what} makes other masks than torch: their intersection over union is"
            f" {', '.join(f'{value:.3f}' for value in agreement)} on three pictures, and"
            f" {MIN_IOU} is the least allowed. It is not used; set encoder_precision to fp32 (and"
            " build such an engine: segzero build-engine --precision fp32), or another backend"
        )


def _torch_encoder(sam: LoadedSegmenter, device: str, precision: str) -> ImageEncoder:
    """Return the exact encoder, or on a GPU the one in half precision where that is asked for."""
    if device.startswith("cpu") or precision != "fp16":
        return sam.encoder
    return _right(sam, TorchImageEncoder(sam.model, half=True))


def _compiled_encoder(sam: LoadedSegmenter, device: str, precision: str) -> ImageEncoder:
    """Compile the encoder; on a GPU in half precision, unless its masks are not torch's."""
    exact = TorchImageEncoder(sam.model, compiled=True)
    if device.startswith("cpu") or precision == "fp32":
        return exact
    try:
        return _right(sam, TorchImageEncoder(sam.model, compiled=True, half=True))
    except EngineMismatchError as error:
        if precision == "fp16":
            raise
        _LOG.warning("torch-compile computes in fp32: %s", error)
        return exact


def _right(sam: LoadedSegmenter, half: ImageEncoder) -> ImageEncoder:
    """Return an encoder in half precision if its masks are those of the exact one."""
    agreement = mask_agreement(sam.encoder, half, sam.segmenter)
    check_agreement(f"{half.backend} in fp16", agreement)
    return half


def _onnx_encoder(sam: LoadedSegmenter, device: str, _precision: str) -> ImageEncoder:
    from segzero_core.encoders.onnx_encoder import OnnxImageEncoder

    side = image_side(sam.model)
    path = onnx_path(sam.weights_hash, side, "fp32")
    # A small picture is encoded before the reasoner has finished anyway; see `Cores`.
    threads = Cores().encoder_share if side <= _SMALL_SIDE else 0
    return OnnxImageEncoder(path, sam.weights_hash, device, threads)


_MAKERS: Final[dict[str, Callable[[LoadedSegmenter, str, str], ImageEncoder]]] = {
    "torch": _torch_encoder,
    "torch-compile": _compiled_encoder,
    "onnxruntime": _onnx_encoder,
    "tensorrt": _best_engine,
}
