"""Runs the segmenter beside the reasoner, in a thread that all queries about a model share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import raise_if_cancelled, segmentation_errors
from segzero_core.segmenter.close_up import MOST_CLOSE_UPS, segment_closely
from segzero_core.types import ObjectPrompt, RgbImage, Segmentation

if TYPE_CHECKING:
    from segzero_core.encoders.base import Embedding, ImageEncoder
    from segzero_core.segmenter.sam2 import Segmenter

_CANCEL_CHECK_S: Final = 0.02
"""Interval at which a wait checks for cancellation [s]."""


class JobThread:
    """Does jobs in their order, in a thread that ends whenever there are none; thread-safe.

    The thread ends because one that stays would keep its helpers of torch's (see `in_own_thread`).
    There is never a second one: queries that are cancelled leave their encoders running, and each
    thread beside others takes a heap of its own from glibc, which keeps it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._is_running = False

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Do a job after those before it; one that is cancelled until its turn is left out."""
        future: Future[Any] = Future()
        with self._lock:
            self._jobs.append((future, job))
            if not self._is_running:
                threading.Thread(target=self._run, name="segzero-encoder", daemon=True).start()
                self._is_running = True
        return future

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._is_running = False
                    return
                future, job = self._jobs.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except BaseException as error:
                    future.set_exception(error)
            del future, job  # the image must not stay


class MaskWorker:
    """Encodes an image at once, and decodes masks as soon as boxes are known.

    To be used by one thread; the work is done in another.
    """

    def __init__(
        self,
        thread: JobThread,
        encoder: ImageEncoder,
        segmenter: Segmenter,
        image: RgbImage,
        close_up_share: float = 0.0,
    ) -> None:
        self.encoder_ms = 0.0
        self.decoder_ms = 0.0
        self._encoder = encoder
        self._segmenter = segmenter
        self._image = image
        self._close_up_share = close_up_share
        self._size_wh = (int(image.shape[1]), int(image.shape[0]))
        self._lock = threading.Lock()
        self._pending: list[ObjectPrompt] = []
        self._asked: set[ObjectPrompt] = set()
        self._masks: dict[ObjectPrompt, tuple[NDArray[np.bool_], np.float32]] = {}
        self._thread = thread
        self._encoding = thread.submit(partial(self._encode, image))
        self._jobs: list[Future[None]] = []

    def ask(self, prompts: Sequence[ObjectPrompt]) -> None:
        """Request masks that were not requested before, without waiting for them."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._asked]
        if not new:
            return
        self._asked.update(new)
        with self._lock:
            self._pending += new
        # Jobs are done in their order: the encoder is done by then.
        self._jobs.append(self._thread.submit(self._decode))

    def mask(self, prompt: ObjectPrompt) -> tuple[NDArray[np.bool_], float] | None:
        """Return the mask bool [H, W] and score of a prompt, or None while it is not decoded."""
        made = self._masks.get(prompt)
        return None if made is None else (made[0], float(made[1]))

    def raise_failure(self) -> None:
        """Raise the encoder's error if it has failed, because then the reasoner works in vain."""
        if self._encoding.done():
            self._encoding.result()

    def finish(
        self, prompts: Sequence[ObjectPrompt], cancel: threading.Event | None
    ) -> Segmentation:
        """Wait for the masks of these prompts, in their order.

        Raises:
            SegmentationError: The encoder or the decoder failed.
            OutOfMemoryError: The device has too little memory.
            CancelledError: `cancel` was set while waiting.
        """
        self.ask(prompts)
        _settle(self._encoding, cancel)
        self._encoding.result()
        for job in self._jobs:
            _settle(job, cancel)
        if missing := [prompt for prompt in prompts if prompt not in self._masks]:
            # A draft of the answer may have spoiled the batch that they were in.
            self._asked.difference_update(missing)
            self.ask(missing)
            _settle(self._jobs[-1], cancel)
            self._jobs[-1].result()
        width, height = self._size_wh
        masks = np.zeros((len(prompts), height, width), np.bool_)
        scores = np.zeros(len(prompts), np.float32)
        for index, prompt in enumerate(prompts):
            masks[index], scores[index] = self._masks[prompt]
        return Segmentation(masks, scores)

    def close(self) -> None:
        """Start no more jobs. A running encoder cannot be stopped, and is not waited for."""
        for job in (self._encoding, *self._jobs):
            job.cancel()

    def _encode(self, image: RgbImage) -> Embedding:
        start = time.perf_counter()
        try:
            with segmentation_errors("image encoder"):
                return self._encoder.encode(image)
        finally:
            self.encoder_ms = (time.perf_counter() - start) * 1e3

    def _decode(self) -> None:
        """Decode all masks requested so far, in one batch."""
        with self._lock:
            prompts, self._pending = self._pending, []
        if not prompts or self._encoding.exception() is not None:
            return
        embedding = self._encoding.result()
        start = time.perf_counter()
        # A long answer must not keep the thread that all queries share.
        share = self._close_up_share if len(self._masks) < MOST_CLOSE_UPS else 0.0
        with segmentation_errors("mask decoder"):
            made = segment_closely(
                self._encoder,
                self._segmenter,
                self._image,
                embedding,
                prompts,
                share,
            )
        for prompt, mask, score in zip(prompts, made.masks, made.scores, strict=True):
            self._masks[prompt] = (mask, score)
        self.decoder_ms += (time.perf_counter() - start) * 1e3


def _settle(future: Future[Any], cancel: threading.Event | None) -> None:
    """Wait until a job has ended or the caller cancels."""
    while cancel is not None and not future.done():
        raise_if_cancelled(cancel)
        wait([future], timeout=_CANCEL_CHECK_S)
    raise_if_cancelled(cancel)
    future.exception()
