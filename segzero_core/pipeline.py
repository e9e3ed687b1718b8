"""Answers a query about an image: reasoner, image encoder and segmenter in one pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from segzero_core.errors import ConfigError
from segzero_core.events import Event, Finished, MasksReady
from segzero_core.progress import AnswerProgress
from segzero_core.prompt import clean_query
from segzero_core.reasoner.fallback import NamedReasoner, ReasonerChain
from segzero_core.reasoner.reasoning import reason
from segzero_core.segmenter.mask_worker import JobThread, MaskWorker
from segzero_core.types import ModelIdentity, Reasoning, Result, RgbImage, check_rgb_image

if TYPE_CHECKING:
    from segzero_core.checkpoints.description import ModelDescription
    from segzero_core.encoders.base import ImageEncoder
    from segzero_core.reasoner.base import Reasoner
    from segzero_core.reasoner.circuit_breaker import ReasonerHealth
    from segzero_core.segmenter.sam2 import Segmenter
    from segzero_core.tracking.tracker import Tracker


@dataclass(frozen=True, slots=True)
class SegZero:
    """A reasoner and a segmenter that answer questions about images.

    Made by `SegZero.load`, or by hand from any implementations of the protocols. Safe to call
    from several threads if its parts are, as those that `load` makes: questions share the models
    and wait for one another.
    """

    reasoner: Reasoner  # thinks and answers with boxes and points
    encoder: ImageEncoder  # encodes the image in a second thread while the reasoner thinks
    segmenter: Segmenter  # turns prompts into masks, each as soon as its box is complete
    identity: ModelIdentity  # which weights these are
    # Asked in their order when the reasoner is down or too slow.
    fallbacks: tuple[NamedReasoner, ...] = ()
    _chain: ReasonerChain = field(init=False, repr=False)
    _mask_thread: JobThread = field(init=False, repr=False, default_factory=JobThread)

    def __post_init__(self) -> None:
        first = NamedReasoner(self.identity, self.reasoner)
        object.__setattr__(self, "_chain", ReasonerChain((first, *self.fallbacks)))

    @classmethod
    def load(
        cls,
        model: str = "tabletop",
        *,
        fallbacks: Sequence[str] = (),
        segmenter: str | None = None,
        device: str = "auto",
        template: str | None = None,
        max_new_tokens: int | None = None,
        backend: str = "auto",
        encoder_precision: str = "auto",
        decode: str = "auto",
        precision: str = "auto",
        grammar: bool = False,
    ) -> SegZero:
        """Load a model by name.

        Args:
            model: `tabletop` (comes with the package), a local folder, a Hub id, or a reasoner on
                a server, `http://host:8000/v1#MODEL`; see `ServerAddress`.
            fallbacks: Models that answer, in their order, when the one before is down or too
                slow; they go with the segmenter of `model`.
            segmenter: A folder or Hub id to use in place of the model's own segmenter.
            device: `auto` (the first GPU, else the CPU), or a torch device such as `cuda:1`.
            template: Prompt template to use in place of the model's own.
            max_new_tokens: Longest reply, in place of the model's own limit.
            backend: What runs the image encoder: `auto` (the best that is there), `torch`,
                `torch-compile`, `onnxruntime` or `tensorrt`.
            encoder_precision: Of the image encoder on a GPU: `auto`, `fp16` or `fp32`.
            decode: How tokens are made: `auto`, `plain` (transformers' `generate`), `eager`,
                `drafts`, `graph` or `compiled`.
            precision: Of the reasoner's weights: `auto` (float32 on a CPU, else bfloat16), a
                type of torch, or `int8` or `int4` on a GPU.
            grammar: Only let well-formed replies be said.

        Raises:
            ConfigError: An argument or the model's description is wrong.
            ModelLoadError: Weights are missing, damaged or do not fit.
            OutOfMemoryError: The device has too little memory for the weights.
        """
        # Imported here so that a pipeline of fakes, or of a remote reasoner, needs no torch.
        from segzero_core.cpu_threads import in_own_thread
        from segzero_core.loading import load_parts

        load = partial(
            load_parts,
            model,
            segmenter,
            device,
            template,
            max_new_tokens,
            backend=backend,
            encoder_precision=encoder_precision,
            decode=decode,
            precision=precision,
            grammar=grammar,
            fallbacks=fallbacks,
        )
        return cls(*in_own_thread(load))

    @property
    def description(self) -> ModelDescription:
        """How the reasoner is asked."""
        return self.reasoner.description

    @property
    def health(self) -> tuple[ReasonerHealth, ...]:
        """How the reasoner and its fallbacks have been doing, in their order."""
        return self._chain.health

    def new_tracker(self) -> Tracker:
        """Return a tracker, which follows the objects of an answer through later frames.

        Raises:
            ConfigError: The segmenter is no SAM 2, or its memory was never trained.
        """
        from segzero_core.segmenter.sam2 import Sam2Segmenter
        from segzero_core.tracking.tracker import Sam2Tracker

        if not isinstance(self.segmenter, Sam2Segmenter):
            raise ConfigError(f"a {type(self.segmenter).__name__} cannot follow objects")
        return Sam2Tracker.from_facts(self.segmenter.model, self.segmenter.tracking)

    def segment(
        self,
        image: RgbImage,
        query: str,
        *,
        cancel: threading.Event | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Answer one query about one image; blocks until the masks are there.

        Args:
            image: uint8 [H, W, 3], RGB.
            query: What to find, such as "the red mug".
            cancel: Set by any thread to stop between two tokens.
            timeout_s: As `stream`.

        Returns:
            The result; one without masks means that nothing matched.

        Raises:
            SegZeroError: As `stream`.
        """
        for event in self.stream(image, query, cancel=cancel, timeout_s=timeout_s):
            if isinstance(event, Finished):
                return event.result
        raise AssertionError("the stream always ends with Finished or an error")

    def stream(
        self,
        image: RgbImage,
        query: str,
        *,
        cancel: threading.Event | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Event]:
        """Answer one query about one image, and yield each event as it happens.

        Closing the iterator stops the reasoner. The arguments are checked at the call, not at
        the first event.

        Args:
            image: uint8 [H, W, 3], RGB.
            query: What to find.
            cancel: Set by any thread to stop between two tokens.
            timeout_s: How long the caller is going to wait [s], so that a fallback is asked early
                enough. It stops nothing: that is what `cancel` is for.

        Raises:
            InputError: The image or the query cannot be used.
            TruncatedReplyError: The reply stopped inside its answer.
            AnswerParseError: The reply has no usable answer, or a box outside the image.
            ReasoningError: The reasoner failed in another way.
            SegmentationError: The encoder or the decoder failed.
            OutOfMemoryError: The device has too little memory.
            CancelledError: `cancel` was set.
        """
        return self._events(check_rgb_image(image), clean_query(query), cancel, timeout_s)

    def _events(
        self,
        image: RgbImage,
        query: str,
        cancel: threading.Event | None,
        timeout_s: float | None,
    ) -> Iterator[Event]:
        size_wh = (int(image.shape[1]), int(image.shape[0]))
        share = self.description.close_up_share
        worker = MaskWorker(self._mask_thread, self.encoder, self.segmenter, image, share)
        progress = AnswerProgress(worker)

        def ask(
            reasoner: Reasoner, stop: threading.Event | None, on_chunk: Callable[[], None]
        ) -> Generator[Event, None, Reasoning]:
            def chunk_came() -> None:
                on_chunk()
                progress.chunk_came()

            return reason(reasoner, image, query, progress, cancel=stop, on_chunk=chunk_came)

        try:
            reasoning, identity = yield from self._chain.answer(ask, cancel, timeout_s)
            progress.stop_reasoner()
            segmentation = worker.finish(reasoning.prompts, cancel)
            yield from progress.ready()
        finally:
            worker.close()
        timings = progress.timings()
        yield MasksReady(segmentation)
        yield Finished(
            Result(query, reasoning, segmentation, timings, self._as_it_is_now(identity), size_wh)
        )

    def _as_it_is_now(self, identity: ModelIdentity) -> ModelIdentity:
        """Return an identity with the encoder that took the place of one that failed."""
        backend, first = self.encoder.backend, identity.encoder_backend
        if backend == first:
            return identity
        why = f"{first} failed while it ran; the log says how"
        return replace(identity, encoder_backend=backend, encoder_reason=why)
