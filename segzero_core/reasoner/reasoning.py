"""Drives one reply of a reasoner: text in, events out, and the prompts for the segmenter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from segzero_core.completion.parser import StreamReader
from segzero_core.errors import AnswerParseError, InputError, SegZeroError, raise_if_cancelled
from segzero_core.events import Event, MaskReady, PromptFound
from segzero_core.geometry import to_image_frame
from segzero_core.prompt import is_native
from segzero_core.reasoner.base import Reasoner, reasoner_error
from segzero_core.types import ObjectPrompt, Reasoning, RgbImage, SizeWH


class MaskRequests(Protocol):
    """Takes prompts while the reply is still growing, and gives masks as they are made."""

    def found(self, event: PromptFound) -> None:
        """Request the mask of an object; does not wait."""

    def ready(self) -> Iterator[MaskReady]:
        """Yield the masks that are there and were not yielded before; does not wait."""


def reason(
    reasoner: Reasoner,
    image: RgbImage,
    query: str,
    masks: MaskRequests,
    *,
    cancel: threading.Event | None,
    on_chunk: Callable[[], None],
) -> Generator[Event, None, Reasoning]:
    """Yield the events of one reply as it grows; return the thinking and the prompts.

    Args:
        reasoner: Generates the reply.
        image: uint8 [H, W, 3], RGB.
        query: What to find.
        masks: Is asked for the mask of each object as soon as its prompt is complete.
        cancel: Set by any thread to stop between two chunks.
        on_chunk: Called for every chunk of the reply; may raise to end the reply.

    Returns:
        The reasoning, with prompts in pixels of the input image.

    Raises:
        TruncatedReplyError: The reply stopped inside its answer.
        AnswerParseError: The reply has no usable answer, or a box outside the image.
        SegZeroError: As `Reasoner.stream`, or from `on_chunk`.
    """
    description = reasoner.description
    frame_wh = description.frame_wh
    image_wh = (int(image.shape[1]), int(image.shape[0]))
    reader = StreamReader(native=is_native(description.prompt_template))
    announced: dict[int, ObjectPrompt] = {}
    chunks = _chunks(reasoner, image, query, cancel, on_chunk)
    for chunk in chunks:
        for event in reader.feed(chunk):
            if not isinstance(event, PromptFound):
                yield event
            elif prompt := _in_image(event.prompt, frame_wh, image_wh):
                announced[event.index] = prompt
                found = PromptFound(event.index, prompt)
                masks.found(found)
                yield found
        yield from masks.ready()
        if reader.is_too_long:
            chunks.close()
    # The whole reply has the last word: an object may have been replaced since it was announced.
    reply = reader.finish()
    prompts: list[ObjectPrompt] = []
    for index, prompt_seen in enumerate(reply.prompts):
        prompt = _in_image(prompt_seen, frame_wh, image_wh)
        if prompt is None:
            raise AnswerParseError(
                f"object {index + 1}: its box {list(prompt_seen.box.xyxy)} lies outside the"
                f" image of {frame_wh[0]}x{frame_wh[1]} that the model answers about",
                reply.completion,
            )
        if announced.get(index) != prompt:
            found = PromptFound(index, prompt)
            masks.found(found)
            yield found
        prompts.append(prompt)
    return Reasoning(reply.thinking, tuple(prompts), reply.completion)


def _chunks(
    reasoner: Reasoner,
    image: RgbImage,
    query: str,
    cancel: threading.Event | None,
    on_chunk: Callable[[], None],
) -> Generator[str, None, None]:
    """Yield the reply; errors of other libraries become ours, and the model stops with us."""
    so_far: list[str] = []
    chunks: Iterator[str] | None = None
    try:
        chunks = reasoner.stream(image, query, cancel=cancel)
        for chunk in chunks:
            so_far.append(chunk)
            raise_if_cancelled(cancel)
            on_chunk()
            yield chunk
        raise_if_cancelled(cancel)
    except SegZeroError:
        raise
    except Exception as error:
        raise reasoner_error(error, "".join(so_far)) from error
    finally:
        # A reasoner may return any iterator, such as one of a list, which cannot be closed.
        if close := getattr(chunks, "close", None):
            close()


def _in_image(prompt: ObjectPrompt, frame_wh: SizeWH, image_wh: SizeWH) -> ObjectPrompt | None:
    """Return the prompt in pixels of the image, or None if its box lies outside."""
    try:
        return to_image_frame(prompt, frame_wh, image_wh)
    except InputError:
        return None
