"""Decoding with a captured CUDA graph: one launch a token in place of several hundred.

A large model's step is a few milliseconds on a GPU, and launching its operations one by one takes
longer than that. `tests/gpu` holds the tokens equal to those of `generate`, `benchmarks/gpu.py`
times them. The arithmetic (`LanguageModel.graph_step`) is tested on the CPU too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from segzero_core.decoding.stepper import Prefill
from segzero_core.qwen_vl.language_model import KV_CACHE_STEP, LanguageModel

# Runs before the capture, in which kernels are chosen and workspaces allocated.
_WARM_UP_RUNS: Final = 3


class CudaGraphStepper:
    """Replays the step of one token on a GPU, perhaps `compiled` before; see `Stepper`.

    A graph attends to a fixed length of the KV cache. There is one for each multiple of
    `KV_CACHE_STEP`, captured when a reply first gets there.
    """

    def __init__(self, language: LanguageModel, *, compiled: bool) -> None:
        self._language = language
        self._step: Callable[..., Tensor] = language.graph_step
        if compiled:
            # So tuned, torch writes a row times a matrix as a reduction of its own, which reads
            # weights faster than the library's product does.
            self._step = torch.compile(
                language.graph_step, dynamic=False, options={"coordinate_descent_tuning": True}
            )
        device = language.device
        self._token, self._position, self._column = (
            torch.zeros(1, dtype=torch.int64, device=device) for _ in range(3)
        )
        self._graphs: dict[int, tuple[Any, Tensor]] = {}
        self._capacity = 0

    def tokens(self, prefill: Prefill) -> Iterator[int]:
        """Yield tokens; the GPU computes the next one while the caller has the last."""
        host = torch.empty(1, dtype=torch.int64, pin_memory=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        scores, position, column = prefill.scores, prefill.position, prefill.column
        while True:
            token = prefill.penalized(scores).argmax(0, keepdim=True)
            if prefill.seen is not None:
                prefill.seen.index_fill_(0, token, value=True)
            host.copy_(token, non_blocking=True)
            copied.record()
            # The next step is queued before this token is known to the CPU.
            self._token.copy_(token)
            scores = self._replay(position, column)
            copied.synchronize()
            yield int(host)
            position, column = position + 1, column + 1

    def forward(self, tokens: Sequence[int], position: int, start: int) -> Tensor:
        """Read one token with the graph, several without."""
        if len(tokens) > 1:
            return self._language.forward(tokens, position, start)
        self._token.fill_(tokens[0])
        return self._replay(position, start)[None]

    def _replay(self, position: int, column: int) -> Tensor:
        if self._capacity != self._language.capacity:
            # The KV cache has moved: the graphs point to where it was.
            self._graphs.clear()
            self._capacity = self._language.capacity
        self._position.fill_(position)
        self._column.fill_(column)
        length = min(-(-(column + 1) // KV_CACHE_STEP) * KV_CACHE_STEP, self._capacity)
        if length not in self._graphs:
            self._graphs[length] = self._capture(length)
        graph, scores = self._graphs[length]
        graph.replay()
        return scores.clone()

    def _capture(self, length: int) -> tuple[Any, Tensor]:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        inputs = (self._token, self._position, self._column, length)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                self._step(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Only this thread's work: the image encoder may allocate in another.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            scores = self._step(*inputs)
        return graph, scores
