"""Selects the image-encoder backend: torch, ONNX Runtime or TensorRT."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch

from segzero_core.checkpoints.sam2_checkpoint import image_side
from segzero_core.config import BACKENDS, ENCODER_PRECISIONS
from segzero_core.cpu_threads import CpuThreads
from segzero_core.encoders import tensorrt_engine
from segzero_core.encoders.base import Embedding, ImageEncoder
from segzero_core.encoders.onnx_export import onnx_path, output_names
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
    """An encoder, and in one line why it was chosen."""

    encoder: ImageEncoder
    reason: str


class FallbackEncoder:
    """Image encoder that is replaced by another one, torch's, when it fails."""

    def __init__(self, first: ImageEncoder, fallback: ImageEncoder) -> None:
        self._lock = threading.Lock()
        self._current = first
        self._fallback = fallback

    @property
    def backend(self) -> str:
        """Backend of the encoder in use."""
        return self._current.backend

    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image, if necessary with the fallback; see `ImageEncoder`."""
        current = self._current
        try:
            return current.encode(image)
        except (SegmentationError, OutOfMemoryError) as error:
            if current is self._fallback:
                raise
            with self._lock:
                if self._current is current:
                    _LOG.warning(
                        "%s failed, %s takes over: %s",
                        current.backend,
                        self._fallback.backend,
                        error,
                    )
                    self._current = self._fallback
        return self._fallback.encode(image)


def check_backend(backend: str, precision: str = "auto") -> None:
    """Raise a `ConfigError` for an unknown backend or precision."""
    for name, value, known in (
        ("backend", backend, BACKENDS),
        ("encoder_precision", precision, ENCODER_PRECISIONS),
    ):
        if value not in known:
            raise ConfigError(f"{name}: {shown(str(value))} is none of {', '.join(known)}")


def choose_encoder(
    sam: LoadedSegmenter, device: str, backend: str = "auto", precision: str = "auto"
) -> ChosenEncoder:
    """Choose the encoder for the settings.

    `auto` takes TensorRT or TensorRT-RTX on a GPU if an engine for it was built, ONNX Runtime on a
    CPU if an encoder was exported, else torch. If that encoder should work but does not, now or
    later, a warning is logged and torch is used.

    Args:
        sam: The segmenter that the encoder belongs to.
        device: A torch device.
        backend: One of `BACKENDS`.
        precision: On a GPU; one of `ENCODER_PRECISIONS`. `auto` is fp32 for `torch`. For the
            others it is fp16 if that leads to the masks of fp32.

    Raises:
        ConfigError: The backend is unknown, or this machine cannot run it.
        ModelLoadError: Its file is missing; the message names the command that makes it.
        EngineMismatchError: Its file is for something else, or its masks are not torch's.
        SegmentationError: The requested backend does not run, for instance without a compiler.
        OutOfMemoryError: The device has too little memory for the requested backend.
    """
    check_backend(backend, precision)
    if backend != "auto":
        return ChosenEncoder(_LOADERS[backend](sam, device, precision), "as requested")
    reasons = []
    for name in tensorrt_engine.GENERATIONS if device.startswith("cuda") else ("onnxruntime",):
        try:
            best = _LOADERS[name](sam, device, precision)
            return ChosenEncoder(FallbackEncoder(best, sam.encoder), "the fastest one available")
        except (ConfigError, ModelLoadError, OutOfMemoryError) as error:
            reasons.append(f"{name}: {error}")
            if isinstance(error, EngineMismatchError | OutOfMemoryError):
                _LOG.warning("%s is not used: %s", name, error)
    return ChosenEncoder(sam.encoder, "; ".join(reasons))


def _tensorrt_encoder(
    sam: LoadedSegmenter, device: str, precision: str, *, backend: str
) -> ImageEncoder:
    """Load the engine of a precision; for `auto` fp16 if it is there and right, else fp32."""
    load = partial(tensorrt_encoder, sam, device, backend=backend)
    if precision != "auto":
        return load(precision)
    try:
        return load("fp16")
    except ModelLoadError as error:
        try:
            engine = load("fp32")
        except ModelLoadError:
            raise error from None
        if isinstance(error, EngineMismatchError):
            _LOG.warning("the engine in fp16 is not used, that in fp32 is: %s", error)
        return engine


def tensorrt_encoder(
    sam: LoadedSegmenter, device: str, precision: str = "fp16", backend: str = "tensorrt"
) -> ImageEncoder:
    """Load the engine for this machine, and check its masks the first time.

    Raises:
        ConfigError: There is no GPU that the backend supports, or no TensorRT.
        ModelLoadError: No engine was built.
        EngineMismatchError: It is damaged, or its masks are not torch's.
    """
    from segzero_core.encoders.tensorrt_encoder import TensorRtImageEncoder

    tensorrt, gpu = tensorrt_engine.import_tensorrt(backend), torch.device(device)
    tensorrt_engine.check_gpu(tensorrt, gpu)
    side = image_side(sam.model)
    key = tensorrt_engine.engine_key(tensorrt, gpu, sam.weights_hash, precision, side)
    engine, notes = tensorrt_engine.read_engine(key), tensorrt_engine.read_notes(key)
    names, gpu_name = output_names(sam.model), torch.cuda.get_device_name(gpu)
    checked = f"agreement on {gpu_name}"
    try:
        encoder = TensorRtImageEncoder(tensorrt, engine, names, gpu, key.compiled(gpu_name))
        if not notes.get(checked):
            agreement = mask_agreement(sam.encoder, encoder, sam.segmenter)
            check_agreement("TensorRT", agreement)
            try:
                tensorrt_engine.write_notes(key, notes | {checked: list(agreement)})
            except ModelLoadError as error:
                _LOG.warning("the engine will be checked again at its next load: %s", error)
    except (EngineMismatchError, OutOfMemoryError):
        raise
    except Exception as error:  # TensorRT, CUDA and our own decoder have no common root
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough GPU memory for the engine: {error}") from error
        raise EngineMismatchError(
            f"{key.path} does not run here: {error}; the driver may be too old for TensorRT"
            f" {key.tensorrt}, or run segzero build-engine again"
        ) from error
    return encoder


def check_agreement(what: str, agreement: tuple[float, ...]) -> None:
    """Refuse an encoder that leads to other masks.

    Raises:
        EngineMismatchError: The masks agree too little on one of the images.
    """
    if not all(value >= MIN_IOU for value in agreement):
        raise EngineMismatchError(
            f"{what} makes other masks than torch: their intersection over union is"
            f" {', '.join(f'{value:.3f}' for value in agreement)} on three images, and"
            f" {MIN_IOU} is the least allowed. It is not used; set encoder_precision to fp32 (and"
            " build such an engine: segzero build-engine --precision fp32), or another backend"
        )


def _torch_encoder(
    sam: LoadedSegmenter, device: str, precision: str, *, compiled: bool
) -> ImageEncoder:
    """Return the encoder in fp32; on a GPU in fp16, as requested or, if compiled, by default."""
    exact = TorchImageEncoder(sam.model, compiled=True) if compiled else sam.encoder
    half_precisions = ("fp16", "auto") if compiled else ("fp16",)
    if device.startswith("cpu") or precision not in half_precisions:
        return exact
    half = TorchImageEncoder(sam.model, compiled=compiled, half=True)
    try:
        agreement = mask_agreement(sam.encoder, half, sam.segmenter)
        check_agreement(f"{half.backend} in fp16", agreement)
    except EngineMismatchError as error:
        if precision == "fp16":
            raise
        _LOG.warning("%s computes in fp32: %s", half.backend, error)
        return exact
    return half


def _onnx_encoder(sam: LoadedSegmenter, device: str, _precision: str) -> ImageEncoder:
    from segzero_core.encoders.onnx_encoder import OnnxImageEncoder

    side = image_side(sam.model)
    path = onnx_path(sam.weights_hash, side, "fp32")
    # A small image is encoded before the reasoner has finished anyway; see `CpuThreads`.
    threads = CpuThreads().encoder_share if side <= _SMALL_SIDE else 0
    return OnnxImageEncoder(path, sam.weights_hash, device, threads)


_LOADERS: Final[dict[str, Callable[[LoadedSegmenter, str, str], ImageEncoder]]] = {
    "torch": partial(_torch_encoder, compiled=False),
    "torch-compile": partial(_torch_encoder, compiled=True),
    "onnxruntime": _onnx_encoder,
    **{name: partial(_tensorrt_encoder, backend=name) for name in tensorrt_engine.GENERATIONS},
}
