"""SAM 2's image encoder as a TensorRT engine, on torch's memory and without a copy.

Like `tensorrt_engine`, this has not yet run on a GPU.
"""

from __future__ import annotations

import threading
from typing import Any

import torch

from segzero_core.encoders.base import Embedding
from segzero_core.encoders.onnx_export import INPUT
from segzero_core.encoders.torch_encoder import preprocess
from segzero_core.errors import (
    EngineMismatchError,
    OutOfMemoryError,
    SegmentationError,
    segmentation_errors,
)
from segzero_core.types import RgbImage, check_rgb_image


class TensorRtImageEncoder:
    """Runs an engine as one CUDA graph in a stream of its own.

    Input and outputs have fixed addresses. The returned features are copies, so that the next
    frame does not change them.

    Args:
        tensorrt: The module, from `import_tensorrt`.
        engine: The serialized engine, from `read_engine`.
        output_names: Of the features, finest first.
        device: The GPU.

    Raises:
        EngineMismatchError: TensorRT refuses the engine.
        OutOfMemoryError: The GPU has too little memory.
    """

    def __init__(
        self, tensorrt: Any, engine: bytes, output_names: list[str], device: torch.device
    ) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        # Runtime and engine must outlive the context.
        self._runtime = tensorrt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineMismatchError(
                "TensorRT does not take the engine: it was built by another version or for"
                " another GPU; run segzero build-engine"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise OutOfMemoryError("not enough GPU memory for the TensorRT engine")
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._input = self._bound(tensorrt, INPUT)
        self._outputs = [self._bound(tensorrt, name) for name in output_names]
        self._side = int(self._input.shape[-1])
        self._graph = self._capture()

    @property
    def backend(self) -> str:
        """`tensorrt`."""
        return "tensorrt"

    @torch.inference_mode()
    def encode(self, image: RgbImage) -> Embedding:
        """Encode one image; see `ImageEncoder`."""
        height, width = check_rgb_image(image).shape[:2]
        with segmentation_errors("image encoder"), self._lock, torch.cuda.stream(self._stream):
            self._input.copy_(preprocess(image, self._side, self._device))
            self._graph.replay()
            *fine, coarse = [output.clone() for output in self._outputs]
            self._stream.synchronize()
        return Embedding(coarse, tuple(fine), (int(width), int(height)))

    def _bound(self, tensorrt: Any, name: str) -> torch.Tensor:
        """Return a tensor whose memory the engine reads or writes directly."""
        dtypes = {tensorrt.float32: torch.float32, tensorrt.float16: torch.float16}
        dtype = dtypes[self._engine.get_tensor_dtype(name)]
        shape = tuple(self._engine.get_tensor_shape(name))
        tensor = torch.zeros(shape, dtype=dtype, device=self._device)
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor

    def _capture(self) -> Any:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            self._enqueue()  # the first run allocates what later ones reuse
            self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Only this thread's work is captured, because the reasoner may allocate in another.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._enqueue()
        return graph

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise SegmentationError("TensorRT did not run the image encoder")
