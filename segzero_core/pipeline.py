"""The way from a question to masks, in one screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segzero_core.errors import (
    AnswerParseError,
    CancelledError,
    ConfigError,
    InputError,
    OutOfMemoryError,
    ReasoningError,
    SegmentationError,
    SegZeroError,
    is_out_of_memory,
)
from segzero_core.events import (
    Event,
    Finished,
    MasksReady,
    PromptFound,
)
from segzero_core.geometry import to_image_frame
from segzero_core.parser import StreamReader
from segzero_core.prompt import clean_query
from segzero_core.types import (
    ModelIdentity,
    ObjectPrompt,
    Reasoning,
    Result,
    RgbImage,
    Segmentation,
    SizeWH,
    Timings,
    check_rgb_image,
)

if TYPE_CHECKING:
    from segzero_core.description import ModelDescription
    from segzero_core.encoder import Embedding, ImageEncoder
    from segzero_core.reasoner import Reasoner
    from segzero_core.segmenter import Segmenter
    from segzero_core.tracking import Tracker

# How often a wait for the encoder looks for a cancellation [s].
_CANCEL_CHECK_S = 0.02


@dataclass(frozen=True, slots=True)
class SegZero:
    """A reasoner and a segmenter that answer questions about images.

    Made by `SegZero.load`, or by hand from any implementations of the protocols. Safe to call
    from several threads if its parts are, as those that `load` makes: questions share the models
    and wait for one another.

    Attributes:
        reasoner: Thinks and answers with boxes and points.
        encoder: Encodes the image in a second thread while the reasoner thinks.
        segmenter: Turns prompts into masks.
        identity: Which weights these are.
    """

    reasoner: Reasoner
    encoder: ImageEncoder
    segmenter: Segmenter
    identity: ModelIdentity

    @classmethod
    def load(
        cls,
        model: str = "tabletop",
        *,
        segmenter: str | None = None,
        device: str = "auto",
        template: str | None = None,
        max_new_tokens: int | None = None,
    ) -> SegZero:
        """Load a model by name.

        Args:
            model: `tabletop` (comes with the package), a local folder, or a Hub id.
            segmenter: A folder or Hub id to use in place of the model's own segmenter.
            device: `auto` (the first GPU, else the CPU), or a torch device such as `cuda:1`.
            template: Prompt template to use in place of the model's own.
            max_new_tokens: Longest reply, in place of the model's own limit.

        Raises:
            ConfigError: An argument or the model's description is wrong.
            ModelLoadError: Weights are missing, damaged or do not fit.
            OutOfMemoryError: The device has too little memory for the weights.
        """
        # Imported here so that a pipeline of fakes, or of a remote reasoner, needs no torch.
        from segzero_core.loading import load_parts

        return cls(*load_parts(model, segmenter, device, template, max_new_tokens))

    @property
    def description(self) -> ModelDescription:
        """How the reasoner is asked."""
        return self.reasoner.description

    def new_tracker(self) -> Tracker:
        """Return what follows the objects of an answer through the pictures after it.

        Raises:
            ConfigError: The segmenter cannot follow objects.
        """
        make: Callable[[], Tracker] | None = getattr(self.segmenter, "new_tracker", None)
        if make is None:
            raise ConfigError(f"a {type(self.segmenter).__name__} cannot follow objects")
        return make()

    def segment(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Result:
        """Answer one query about one image; blocks until the masks are there.

        Args:
            image: uint8 [H, W, 3], RGB.
            query: What to find, such as "the red mug".
            cancel: Set by any thread to stop between two tokens.

        Returns:
            The result; one without masks means that nothing matched.

        Raises:
            SegZeroError: As `stream`.
        """
        for event in self.stream(image, query, cancel=cancel):
            if isinstance(event, Finished):
                return event.result
        raise AssertionError("the stream always ends with Finished or an error")

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[Event]:
        """Answer one query about one image, telling what happens as it happens.

        Closing the iterator stops the reasoner. The arguments are checked at the call, not at
        the first event.

        Raises:
            InputError: The image or the query cannot be used.
            TruncatedReplyError: The reply stopped inside its answer.
            AnswerParseError: The reply has no usable answer, or a box outside the image.
            ReasoningError: The reasoner failed in another way.
            SegmentationError: The encoder or the decoder failed.
            OutOfMemoryError: The device has too little memory.
            CancelledError: `cancel` was set.
        """
        return self._events(check_rgb_image(image), clean_query(query), cancel)

    def _events(
        self, image: RgbImage, query: str, cancel: threading.Event | None
    ) -> Iterator[Event]:
        clock = _Clock()
        size_wh = (int(image.shape[1]), int(image.shape[0]))
        pool = ThreadPoolExecutor(1, thread_name_prefix="segzero-encoder")
        try:
            encoding = pool.submit(_encode, self.encoder, image)
            pieces = _pieces(self.reasoner, image, query, cancel, encoding, clock)
            reasoning = yield from _reason(pieces, self.description.frame_wh, size_wh)
            clock.stop_reasoner()
            embedding, encoder_ms = _wait_for(encoding, cancel)
        finally:
            # An encoder cannot be stopped half-way; after an error nobody waits for it.
            pool.shutdown(wait=False, cancel_futures=True)
        start = time.perf_counter()
        segmentation = _decode(self.segmenter, embedding, reasoning.prompts)
        timings = clock.timings(encoder_ms, decoder_ms=_ms_since(start))
        yield MasksReady(segmentation)
        yield Finished(Result(query, reasoning, segmentation, timings, self.identity, size_wh))


class _Clock:
    """Measures one answer, from its construction."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first_piece_ms: float | None = None
        self._reasoner_ms = 0.0
        self._pieces = 0

    def count_piece(self) -> None:
        if self._first_piece_ms is None:
            self._first_piece_ms = _ms_since(self._start)
        self._pieces += 1

    def stop_reasoner(self) -> None:
        self._reasoner_ms = _ms_since(self._start)

    def timings(self, encoder_ms: float, decoder_ms: float) -> Timings:
        first = self._reasoner_ms if self._first_piece_ms is None else self._first_piece_ms
        total = _ms_since(self._start)
        return Timings(first, self._reasoner_ms, encoder_ms, decoder_ms, total, self._pieces)


def _pieces(
    reasoner: Reasoner,
    image: RgbImage,
    query: str,
    cancel: threading.Event | None,
    encoding: Future[tuple[Embedding, float]],
    clock: _Clock,
) -> Iterator[str]:
    """Yield the reply while watching for cancellation and for a failure of the encoder."""
    told: list[str] = []
    pieces: Iterator[str] | None = None
    try:
        pieces = reasoner.stream(image, query, cancel=cancel)
        for piece in pieces:
            clock.count_piece()
            told.append(piece)
            _stop_if(cancel)
            if encoding.done():
                encoding.result()
            yield piece
        _stop_if(cancel)
    except SegZeroError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough memory for the reasoner: {error}") from error
        raise ReasoningError(f"the reasoner failed: {error!r}", "".join(told)) from error
    finally:
        if close := getattr(pieces, "close", None):
            close()


def _reason(
    pieces: Iterator[str], frame_wh: SizeWH, image_wh: SizeWH
) -> Generator[Event, None, Reasoning]:
    """Tell the reply as it comes; return it with prompts in pixels of the input image."""
    reader = StreamReader()
    announced: dict[int, ObjectPrompt] = {}
    for piece in pieces:
        for event in reader.feed(piece):
            if not isinstance(event, PromptFound):
                yield event
            elif prompt := _in_image(event.prompt, frame_wh, image_wh):
                announced[event.index] = prompt
                yield PromptFound(event.index, prompt)
    spoken = reader.finish()
    prompts: list[ObjectPrompt] = []
    for index, prompt_seen in enumerate(spoken.prompts):
        prompt = _in_image(prompt_seen, frame_wh, image_wh)
        if prompt is None:
            raise AnswerParseError(
                f"object {index + 1}: its box {list(prompt_seen.box.xyxy)} lies outside the"
                f" picture of {frame_wh[0]}x{frame_wh[1]} that the model speaks about",
                spoken.completion,
            )
        if announced.get(index) != prompt:
            yield PromptFound(index, prompt)
        prompts.append(prompt)
    return Reasoning(spoken.thinking, tuple(prompts), spoken.completion)


def _in_image(prompt: ObjectPrompt, frame_wh: SizeWH, image_wh: SizeWH) -> ObjectPrompt | None:
    """Return the prompt in pixels of the image, or None if its box is not in the picture."""
    try:
        return to_image_frame(prompt, frame_wh, image_wh)
    except InputError:
        return None


def _encode(encoder: ImageEncoder, image: RgbImage) -> tuple[Embedding, float]:
    """Encode the image and measure how long that took; runs in the second thread."""
    start = time.perf_counter()
    try:
        return encoder.encode(image), _ms_since(start)
    except SegZeroError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough memory to encode the image: {error}") from error
        raise SegmentationError(f"the image encoder failed: {error!r}") from error


def _decode(
    segmenter: Segmenter, embedding: Embedding, prompts: tuple[ObjectPrompt, ...]
) -> Segmentation:
    try:
        return segmenter.segment(embedding, prompts)
    except SegZeroError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough memory for the masks: {error}") from error
        raise SegmentationError(f"the mask decoder failed: {error!r}") from error


def _wait_for(
    encoding: Future[tuple[Embedding, float]], cancel: threading.Event | None
) -> tuple[Embedding, float]:
    """Wait for the encoder, but not longer than until the caller cancels."""
    while cancel is not None and not encoding.done():
        _stop_if(cancel)
        wait([encoding], timeout=_CANCEL_CHECK_S)
    _stop_if(cancel)
    return encoding.result()


def _stop_if(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise CancelledError("cancelled by the caller")


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
