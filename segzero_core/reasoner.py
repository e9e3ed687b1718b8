"""Reasoners: they look at a picture and think aloud about a query."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from segzero_core.description import ABSOLUTE, ModelDescription
from segzero_core.errors import (
    CancelledError,
    ConfigError,
    InputError,
    ModelLoadError,
    OutOfMemoryError,
    ReasoningError,
    SegZeroError,
    is_out_of_memory,
    shown,
)
from segzero_core.parser import TAGS, StreamReader
from segzero_core.prompt import build_messages
from segzero_core.types import RgbImage, SizeWH, check_rgb_image

# How long a thread may take to notice that it shall stop: one token of a large model on a CPU.
_JOIN_TIMEOUT_S: Final = 30.0
# How often a wait looks for a cancellation [s].
_CANCEL_CHECK_S: Final = 0.05
_BROKEN_CHARACTER: Final = "\ufffd"


class Reasoner(Protocol):
    """Answers about one image at a time, in text that `parse_completion` reads."""

    @property
    def description(self) -> ModelDescription:
        """How this reasoner is asked, and the frame of its numbers."""

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[str]:
        """Reply in pieces of text, as they come.

        One piece per token where the reasoner knows its tokens; a piece may be empty. The reply
        ends with `</answer>`, or where the reasoner has no more to say. Closing the iterator
        stops the work, and so does `cancel`, between two tokens.

        Args:
            image: uint8 [H, W, 3], RGB, of any size; it is not changed.
            query: What to find, such as "the red mug".
            cancel: Set by any thread to stop.

        Raises:
            InputError: The image or the query cannot be used.
            CancelledError: `cancel` was set.
            ReasoningError: The model failed; carries the reply so far.
            OutOfMemoryError: The device has too little memory.
        """


def squash(image: RgbImage, size_wh: SizeWH) -> Image.Image:
    """Resize an image to the size a model sees, without keeping its aspect ratio.

    Source: Seg-Zero's inference code (PIL, bilinear).
    """
    return Image.fromarray(check_rgb_image(image)).resize(size_wh, Image.Resampling.BILINEAR)


class QwenReasoner:
    """A Qwen2.5-VL model of any size, through transformers; greedy.

    Safe to call from any thread; replies are made one after the other, because the model keeps
    the positions of the reply it is making.

    Args:
        model_dir: Folder in the format of the Hub: configuration, safetensors, processor.
        description: How the model is asked; may name another template or limit than the
            folder's `segzero.json`.
        device: A torch device.
        dtype: Name of a torch type; by default float32 on a CPU and bfloat16 elsewhere.
        max_new_tokens: Longest reply, in place of the description's.

    Raises:
        ConfigError: The processor would resize the picture that the description promises.
        ModelLoadError: Weights or processor are missing, damaged or do not fit.
        OutOfMemoryError: The device has too little memory.
    """

    def __init__(
        self,
        model_dir: str | Path,
        description: ModelDescription,
        device: str = "cpu",
        dtype: str | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        if max_new_tokens is not None:
            description = replace(description, max_new_tokens=max_new_tokens)
        self._description = description
        self._device = device
        dtype = dtype or ("float32" if device.startswith("cpu") else "bfloat16")
        self._model, self._processor = _load(Path(model_dir), device, dtype)
        self._turn = threading.Lock()
        self._reserved = _reserved_texts(self._processor.tokenizer)
        self._check_seen_size()

    @property
    def description(self) -> ModelDescription:
        """How this model is asked."""
        return self._description

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[str]:
        """Generate a reply token by token; see `Reasoner`."""
        picture = squash(image, self._description.seen_size_wh)
        asked = query.lower() if self._description.lowercase_query else query
        messages = build_messages(self._description.prompt_template, asked)
        if taken := next((text for text in self._reserved if text in query), None):
            raise InputError(
                f"query: {shown(taken)} is a special token of the model; leave it out"
            )
        return self._generate(picture, messages, cancel)

    def _generate(
        self, picture: Image.Image, messages: list[dict[str, Any]], cancel: threading.Event | None
    ) -> Iterator[str]:
        try:
            inputs = self._inputs(picture, messages)
        except Exception as error:  # the processor's own errors have no common root
            raise _as_segzero_error(error, "") from error
        tokenizer = self._processor.tokenizer
        generation = _Generation(_Detokenizer(tokenizer), _end_ids(self._model, tokenizer))
        limit = self._description.max_new_tokens
        thread = threading.Thread(
            target=generation.run,
            args=(self._model, inputs, limit, self._turn),
            name="segzero-reasoner",
            daemon=True,
        )
        thread.start()
        try:
            while (piece := _next_piece(generation.pieces, cancel)) is not None:
                yield piece
        finally:
            generation.stop.set()
            thread.join(_JOIN_TIMEOUT_S)
        if generation.error is not None:
            raise _as_segzero_error(generation.error, generation.text) from generation.error

    def _inputs(self, picture: Image.Image, messages: list[dict[str, Any]]) -> Any:
        text = self._processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        batch = self._processor(text=[text], images=[picture], return_tensors="pt")
        return batch.to(self._device)

    def _check_seen_size(self) -> None:
        """Refuse a processor that resizes again: the model would speak in another frame."""
        width, height = self._description.seen_size_wh
        blank = Image.fromarray(np.zeros((height, width, 3), np.uint8))
        processor = self._processor.image_processor
        try:
            grid = processor(images=[blank], return_tensors="pt")["image_grid_thw"][0].tolist()
        except Exception as error:  # the processor's own errors have no common root
            raise ConfigError(
                f"seen_size_wh: the processor cannot take {width}x{height}: {error}"
            ) from error
        seen = (int(grid[2]) * processor.patch_size, int(grid[1]) * processor.patch_size)
        if self._description.coordinates == ABSOLUTE and seen != (width, height):
            raise ConfigError(
                f"seen_size_wh: the description says {width}x{height}, but the model's processor"
                f" makes {seen[0]}x{seen[1]} of it; both must agree, in multiples of"
                f" {processor.patch_size * processor.merge_size}"
            )


def _load(model_dir: Path, device: str, dtype: str) -> tuple[Any, Any]:
    """Load model and processor from a folder, as data: no code of the folder is run."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        processor = AutoProcessor.from_pretrained(model_dir, **options)
        model, report = AutoModelForImageTextToText.from_pretrained(
            model_dir,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused by the next line
            **options,
        )
        _check_report(model_dir, report)
        return model.eval().requires_grad_(requires_grad=False).to(device), processor
    except SegZeroError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors share no root
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough memory on {device} for {model_dir}") from error
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelLoadError(
            f"{model_dir} holds no reasoner that can be loaded: {line[:300]}"
        ) from error


def _check_report(model_dir: Path, report: dict[str, Any]) -> None:
    """Refuse weights that do not fit; transformers would fill the gaps with random numbers."""
    for fault in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        if found := sorted(map(str, report.get(fault) or ())):
            raise ModelLoadError(
                f"{model_dir}: the weights do not fit the configuration: {len(found)}"
                f" {fault.replace('_', ' ')}, such as {found[0]}"
            )


def _next_piece(
    pieces: queue.SimpleQueue[str | None], cancel: threading.Event | None
) -> str | None:
    """Wait for the next piece, but not longer than until the caller cancels."""
    while True:
        if cancel is not None and cancel.is_set():
            raise CancelledError("cancelled by the caller")
        with contextlib.suppress(queue.Empty):
            return pieces.get(timeout=None if cancel is None else _CANCEL_CHECK_S)


def _reserved_texts(tokenizer: Any) -> list[str]:
    """Return the special tokens as text; in a query they would act as markup."""
    return [text for text in tokenizer.all_special_tokens if text not in TAGS]


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None}


def _as_segzero_error(error: BaseException, completion: str) -> SegZeroError:
    if is_out_of_memory(error):
        return OutOfMemoryError(f"not enough memory for the reasoner: {error}")
    return ReasoningError(f"the reasoner failed: {error!r}", completion)


class _Detokenizer:
    """Turns tokens into text one by one, in time proportional to their number.

    A token may be half a character, and how a token reads can depend on the one before it: so
    a token is decoded together with those since the last whole character, and the one before.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # The tags may be special tokens; all others (such as the end) are no text.
        special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        self._silent = {int(i) for i, text in special if text.lower() not in TAGS}
        self._context: list[int] = []
        self._pending: list[int] = []

    def add(self, token: int) -> str:
        """Return the text that this token completes, often a word, sometimes nothing."""
        if token in self._silent:
            return ""
        self._pending.append(token)
        text = self._new_text()
        if text.endswith(_BROKEN_CHARACTER):
            return ""
        self._context, self._pending = self._pending[-1:], []
        return text

    def flush(self) -> str:
        """Return what is left of an unfinished character."""
        return self._new_text() if self._pending else ""

    def _new_text(self) -> str:
        return self._decode(self._context + self._pending)[len(self._decode(self._context)) :]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


class _Generation:
    """One run of `generate` in a thread; to transformers it is streamer and stop criterion.

    Attributes:
        pieces: The text, one piece per token, then None.
        stop: Set to end the run at the next token.
        error: What went wrong, once `pieces` has ended.
        text: The reply so far.
    """

    def __init__(self, detokenizer: _Detokenizer, end_ids: set[int]) -> None:
        self.pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._detokenizer = detokenizer
        self._end_ids = end_ids
        self._reader = StreamReader()
        self._prompt_seen = False

    @property
    def text(self) -> str:
        return self._reader.text

    def run(self, model: Any, inputs: Any, max_new_tokens: int, turn: threading.Lock) -> None:
        """Generate until the answer closes, the limit is reached, or `stop` is set.

        Args:
            model: The model.
            inputs: What the processor made of picture and prompt.
            max_new_tokens: The limit.
            turn: Held while the model works.
        """
        try:
            while not turn.acquire(timeout=_CANCEL_CHECK_S):
                if self.stop.is_set():
                    return
            try:
                self._generate(model, inputs, max_new_tokens)
            finally:
                turn.release()
            if rest := self._detokenizer.flush():
                self._tell(rest)
        except BaseException as error:  # crosses to the reading thread, which raises it
            self.error = error
        finally:
            self.pieces.put(None)

    def _generate(self, model: Any, inputs: Any, max_new_tokens: int) -> None:
        import torch
        from transformers import StoppingCriteriaList

        if self.stop.is_set():
            return
        with torch.inference_mode():
            model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=max_new_tokens,
                streamer=self,
                stopping_criteria=StoppingCriteriaList([self._should_stop]),
            )

    def put(self, tokens: Any) -> None:
        """Take the prompt, then one token at a time (transformers calls this)."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in tokens.flatten().tolist():
            if token not in self._end_ids:
                self._tell(self._detokenizer.add(token))

    def end(self) -> None:
        """Do nothing: the run itself ends the pieces, also after an error."""

    def _tell(self, piece: str) -> None:
        self._reader.feed(piece)
        self.pieces.put(piece)

    def _should_stop(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        """Say for each reply whether it is over; there is one."""
        import torch

        over = self.stop.is_set() or self._reader.answer_closed
        return torch.full((len(input_ids),), over, dtype=torch.bool, device=input_ids.device)
