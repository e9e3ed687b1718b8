"""SAM 2's image encoder in ONNX Runtime: faster than PyTorch on a CPU; no engine on a GPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segzero_core.encoders.base import Embedding
from segzero_core.encoders.onnx_export import INPUT
from segzero_core.encoders.torch_encoder import preprocess
from segzero_core.errors import (
    ConfigError,
    EngineMismatchError,
    ModelLoadError,
    segmentation_errors,
)
from segzero_core.types import RgbImage, check_rgb_image

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxImageEncoder:
    """Runs an encoder that `segzero export` has written from weights with this hash.

    The device is `cpu` or `cuda:N`; on a GPU the features stay there. 0 threads are as many as
    torch has.

    Raises:
        ConfigError: ONNX Runtime is missing, or has no provider for the device.
        EngineMismatchError: The file was made from other weights.
        ModelLoadError: The file is missing or damaged.
    """

    def __init__(
        self, path: Path, weights_hash: str, device: str = "cpu", threads: int = 0
    ) -> None:
        self._device = torch.device(device)
        self._session = _session(path, self._device, threads or torch.get_num_threads())
        self._lock = threading.Lock()
        notes = self._session.get_modelmeta().custom_metadata_map
        if notes.get("weights_hash") != weights_hash:
            raise EngineMismatchError(
                f"{path} was made from the weights {notes.get('weights_hash', '(unknown)')}, not"
                f" from {weights_hash}; run segzero export again"
            )
        self._side = int(notes["side"])
        self._names = [output.name for output in self._session.get_outputs()]
        self._shapes = [tuple(output.shape) for output in self._session.get_outputs()]

    @property
    def backend(self) -> str:
        """`onnxruntime`, or `onnxruntime-cuda` on a GPU."""
        return "onnxruntime" if self._device.type == "cpu" else "onnxruntime-cuda"

    @torch.inference_mode()
    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image; see `ImageEncoder`."""
        height, width = check_rgb_image(image).shape[:2]
        with segmentation_errors("image encoder"):
            pixels = preprocess(image, self._side, self._device)
            if self._device.type == "cpu":
                *fine, coarse = self._session.run(self._names, {INPUT: pixels.numpy()})
            else:
                *fine, coarse = self._run_on_gpu(pixels)
        return Embedding(coarse, tuple(fine), (int(width), int(height)))

    def _run_on_gpu(self, pixels: torch.Tensor) -> list[Any]:
        """Bind torch's memory, so that nothing is copied. Not yet tried on a GPU."""
        features = [torch.empty(shape, device=self._device) for shape in self._shapes]
        index = self._device.index or 0
        binding = self._session.io_binding()
        pixels = pixels.contiguous()
        torch.cuda.current_stream(self._device).synchronize()
        binding.bind_input(
            INPUT, "cuda", index, np.float32, tuple(pixels.shape), pixels.data_ptr()
        )
        for name, tensor in zip(self._names, features, strict=True):
            shape = tuple(tensor.shape)
            binding.bind_output(name, "cuda", index, np.float32, shape, tensor.data_ptr())
        with self._lock:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        return features


def _session(path: Path, device: torch.device, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"backend onnxruntime: {error}; pip install segzero[onnx], or use backend torch"
        ) from error
    provider: Any = CPU_PROVIDER
    if device.type == "cuda":
        provider = (CUDA_PROVIDER, {"device_id": device.index or 0})
        available = onnxruntime.get_available_providers()
        if CUDA_PROVIDER not in available:
            raise ConfigError(
                f"backend onnxruntime: it has no {CUDA_PROVIDER} (it has {', '.join(available)});"
                " install onnxruntime-gpu in place of onnxruntime, or use backend torch"
            )
    if not path.is_file():
        raise ModelLoadError(f"{path} is not there; run segzero export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Waiting threads sleep, because the reasoner runs on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # ONNX Runtime's errors have no common root
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelLoadError(
            f"{path} is damaged or cannot be run: {line[:200]}; run segzero export again"
        ) from error
