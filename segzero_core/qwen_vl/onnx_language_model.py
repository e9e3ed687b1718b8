"""Qwen2.5-VL's text read by ONNX Runtime: about twice as fast as torch on a CPU.

A small model spends more time on starting operations than on its products, and torch's products
of few rows are slow. The prompt with its image is still read by torch; both write into the same KV
cache, so either may go on where the other was.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from segzero_core.qwen_vl.language_model import LanguageModel
from segzero_core.qwen_vl.onnx_graph import step_graph

MOST_BYTES: Final = 64 * 2**20
"""Largest language model that ONNX Runtime reads text with. It holds the weights a second time,
and a larger model's step takes as long as reading them, which is the same for both."""

_LOG: Final = logging.getLogger(__name__)
# Of the largest logit. Sums in another order differ by a hundredth of that.
_TOLERANCE: Final = 1e-4


class OnnxLanguageModel(LanguageModel):
    """A language model whose text is read by ONNX Runtime, in the calling thread.

    `why_not` must have no objection. Should ONNX Runtime fail while it runs, torch goes on with
    one warning; the KV cache is the same.

    Raises:
        Exception: ONNX Runtime cannot run the step, or its logits are not torch's.
    """

    def __init__(self, model: Any) -> None:
        import onnxruntime

        super().__init__(model)
        self._vocabulary = int(model.lm_head.out_features)
        options = onnxruntime.SessionOptions()
        # Two threads would wait for each other at every small product.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            step_graph(model), options, providers=["CPUExecutionProvider"]
        )
        self._bound: Any = None
        self._tables: tuple[Tensor, ...] = ()
        self._check()

    @property
    def backend(self) -> str:
        """What reads text now."""
        return super().backend if self._session is None else "onnxruntime"

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens; what is in the KV cache stays."""
        before = self.capacity
        super().reserve(tokens)
        if self.capacity != before and self._session is not None:
            self._bind()

    def forward(self, tokens: Sequence[int], position: int, start: int) -> Tensor:
        """Read tokens of text; see `LanguageModel`."""
        if self._session is not None:
            try:
                return self._run(tokens, position, start)
            except Exception as error:  # the runtime's own errors have no common root
                _LOG.warning("onnxruntime failed, torch goes on with the text: %s", error)
                self._session = self._bound = None
        return super().forward(tokens, position, start)

    def _bind(self) -> None:
        """Tell the session where the KV cache is now; it writes new columns in place."""
        self._bound = self._session.io_binding()
        cos, sin = self.rotary
        half = cos.shape[1] // 2
        # Kept: the session has only their addresses. The first half of `sin` has the other sign.
        self._tables = (cos[:, :half].contiguous(), sin[:, half:].contiguous())
        for name, table in zip(("cos", "sin"), self._tables, strict=True):
            self._bound.bind_input(name, *_buffer(table, tuple(table.shape)))
        for index, layer in enumerate(self.kv_cache):
            for name, tensor in zip(("keys", "values"), layer, strict=True):
                buffer = _buffer(tensor, (1, *tensor.shape))
                self._bound.bind_input(f"{name}_{index}", *buffer)
                self._bound.bind_output(f"{name}_{index}_after", *buffer)

    def _run(self, tokens: Sequence[int], position: int, start: int) -> Tensor:
        count = len(tokens)
        if max(start, position) + count > self.capacity:
            raise ValueError(f"{count} tokens behind {start} others: no room ({self.capacity})")
        logits = torch.empty(count, self._vocabulary)
        inputs = {
            "tokens": np.array([tokens], np.int64),
            "positions": np.arange(position, position + count)[None],
            "last": np.array([start + count - 1], np.int32),
            "length": np.array([start + count], np.int32),
        }
        for name, array in inputs.items():
            self._bound.bind_cpu_input(name, array)
        self._bound.bind_output("scores", *_buffer(logits, (1, *logits.shape)))
        self._session.run_with_iobinding(self._bound)
        return logits

    @torch.inference_mode()
    def _check(self) -> None:
        """Compare a few logits with torch's: not every version has the operators as meant here."""
        self.reserve(1)
        self.prefill(self.embed([0, 1, 2]), torch.arange(3).expand(3, -1), 0)
        for tokens, position, start in (([3], 2, 3), ([1, 0], 4, 4)):
            expected = super().forward(tokens, position, start)
            found = self._run(tokens, position, start)
            error = (found - expected).abs().max() / expected.abs().max()
            if not error <= _TOLERANCE:  # nor where it is no number
                raise RuntimeError(f"its logits differ from torch's by {float(error):.2g}")


def choose_language_model(model: Any) -> LanguageModel:
    """Return the fastest language model that can run here, and log which it is."""
    language: LanguageModel
    if reason := why_not(model):
        language = LanguageModel(model)
    else:
        try:
            language, reason = OnnxLanguageModel(model), "the fastest that can run here"
        except Exception as error:  # onnx, its runtime and torch share no root
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            _LOG.warning("onnxruntime does not read text, torch does: %s", line)
            language, reason = LanguageModel(model), f"onnxruntime: {line}"
    _LOG.info("text step %s: %s", language.backend, reason)
    return language


def why_not(model: Any) -> str:
    """Return why ONNX Runtime does not read a model's text, or "" if it can."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"onnxruntime: {error}"
    if hasattr(model.model.language_model.layers[0].self_attn, "q_norm"):
        return "onnxruntime: it reads the text of Qwen2.5-VL"
    weights = [*model.model.language_model.parameters(), model.lm_head.weight]
    kinds = {(weight.device.type, weight.dtype) for weight in weights}
    if kinds != {("cpu", torch.float32)}:
        return "onnxruntime: it reads text for a CPU in float32"
    if (activation := model.config.text_config.hidden_act) != "silu":
        return f"onnxruntime: the activation is {activation}, not silu"
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    if size > MOST_BYTES:
        return f"onnxruntime: {size / 2**20:.0f} MB of weights, {MOST_BYTES >> 20} MB are the most"
    return ""


def _buffer(tensor: Tensor, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the arguments that bind a tensor's memory to the session."""
    return "cpu", 0, np.float32, shape, tensor.data_ptr()
