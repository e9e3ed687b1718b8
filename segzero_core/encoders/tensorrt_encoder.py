"""SAM 2's image encoder as a TensorRT engine, on torch's memory and without a copy.

This has not yet run on a GPU; `segzero check-encoder` runs it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from segzero_core.checkpoints.cache import write_cached
from segzero_core.encoders.base import Embedding
from segzero_core.encoders.onnx_export import INPUT
from segzero_core.encoders.tensorrt_engine import is_rtx
from segzero_core.encoders.torch_encoder import preprocess
from segzero_core.errors import (
    EngineMismatchError,
    ModelLoadError,
    OutOfMemoryError,
    SegmentationError,
    segmentation_errors,
)
from segzero_core.types import RgbImage, check_rgb_image

_LOG: Final = logging.getLogger(__name__)


class TensorRtImageEncoder:
    """Runs an engine in a stream of its own, as one CUDA graph where it can be captured.

    Input and outputs have fixed addresses. The returned features are copies, so that the next
    frame does not change them. `engine` is from `read_engine`, the output names are those of the
    features, finest first, and `compiled` is the file of what TensorRT-RTX compiles for this GPU
    in the first run.

    Raises:
        EngineMismatchError: TensorRT refuses the engine.
        OutOfMemoryError: The GPU has too little memory.
    """

    def __init__(
        self,
        tensorrt: Any,
        engine: bytes,
        output_names: list[str],
        device: torch.device,
        compiled: Path,
    ) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        # Runtime and engine must outlive the context.
        self._runtime = tensorrt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineMismatchError(
                f"TensorRT does not take the engine: {refusal(tensorrt, self._runtime, engine)};"
                " run segzero build-engine"
            )
        self._rtx, options = is_rtx(tensorrt), {}
        if self._rtx:
            cache, options["runtime_config"] = runtime_cache(self._engine, compiled)
        self._context = self._engine.create_execution_context(**options)
        if self._context is None:
            raise OutOfMemoryError("not enough GPU memory for the TensorRT engine")
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._input = self._bound(tensorrt, INPUT)
        self._outputs = [self._bound(tensorrt, name) for name in output_names]
        self._side = int(self._input.shape[-1])
        self._run = self._captured()
        if self._rtx:
            store(cache, compiled)

    @property
    def backend(self) -> str:
        """`tensorrt`, or `tensorrt-rtx`."""
        return "tensorrt-rtx" if self._rtx else "tensorrt"

    @torch.inference_mode()
    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image; see `ImageEncoder`."""
        height, width = check_rgb_image(image).shape[:2]
        with segmentation_errors("image encoder"), self._lock, torch.cuda.stream(self._stream):
            self._input.copy_(preprocess(image, self._side, self._device))
            self._run()
            *fine, coarse = [output.clone() for output in self._outputs]
            self._stream.synchronize()
        return Embedding(coarse, tuple(fine), (int(width), int(height)))

    def _bound(self, tensorrt: Any, name: str) -> torch.Tensor:
        """Return a tensor whose memory the engine reads or writes directly."""
        dtypes = {tensorrt.float32: torch.float32, tensorrt.float16: torch.float16}
        dtype = dtypes[self._engine.get_tensor_dtype(name)]
        shape = tuple(self._engine.get_tensor_shape(name))
        tensor = torch.zeros(shape, dtype=dtype, device=self._device)
        if not self._context.set_tensor_address(name, tensor.data_ptr()):
            raise SegmentationError(f"TensorRT does not take the memory of {name}")
        return tensor

    def _captured(self) -> Callable[[], None]:
        """Run once, and return the same as a CUDA graph, or as it is."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            self._enqueue()  # the first run allocates what later ones reuse
            self._stream.synchronize()
        if self._rtx and not self._context.is_stream_capturable(self._stream.cuda_stream):
            return self._enqueue
        graph: Any = torch.cuda.CUDAGraph()
        # Only this thread's work is captured, because the reasoner may allocate in another.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._enqueue()
        return graph.replay  # type: ignore[no-any-return]

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise SegmentationError("TensorRT did not run the image encoder")


def refusal(tensorrt: Any, runtime: Any, engine: bytes) -> str:
    """Say why a runtime does not take an engine, in TensorRT-RTX's own words if it has any."""
    reasons = []
    if is_rtx(tensorrt):
        _, found = runtime.get_engine_validity(engine)
        known = tensorrt.EngineInvalidityDiagnostics.__members__
        reasons = [name for name, bit in known.items() if found & int(bit)]
    return ", ".join(reasons) or "another version, another GPU, or no driver for it"


def runtime_cache(engine: Any, compiled: Path) -> tuple[Any, Any]:
    """Return TensorRT-RTX's runtime cache, filled from a file, and a configuration with it."""
    config = engine.create_runtime_config()
    cache = config.create_runtime_cache()
    if compiled.is_file() and not cache.deserialize(compiled.read_bytes()):
        _LOG.info("%s is of another driver or version, and is made again", compiled)
    config.set_runtime_cache(cache)
    return cache, config


def store(cache: Any, compiled: Path) -> None:
    """Write a runtime cache to its file; where that fails, the next start compiles again."""
    try:
        write_cached(compiled, bytes(cache.serialize()))
    except ModelLoadError as error:
        _LOG.warning("the next start compiles the engine again: %s", error)
