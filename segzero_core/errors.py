"""The exceptions of segzero.

    SegZeroError
    ├── ConfigError (ValueError)        a setting or description is wrong
    ├── InputError (ValueError)         the caller's image, query, box or point is unusable
    │   └── ShapeError                  an array has the wrong type or shape
    ├── ModelLoadError                  weights are missing, damaged or do not fit
    │   └── EngineMismatchError         an engine was built for another machine or input
    ├── ReasoningError                  the reasoner gave nothing usable; has `.completion`
    │   ├── TruncatedReplyError         `<answer>` was opened and never closed
    │   └── AnswerParseError            the reply breaks a rule of the answer format
    ├── SegmentationError               encoder or decoder failed on a valid input
    ├── OutOfMemoryError                the device has too little memory for this model or image
    └── CancelledError                  the caller asked to stop

A message says what was wrong, what was found and what to do. Nothing found in the image is a
result with zero objects, not an error.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SHOWN_CHARS = 80


class SegZeroError(Exception):
    """Base class of all errors that segzero raises on purpose."""


class ConfigError(SegZeroError, ValueError):
    """A setting, a model description or a combination of them is wrong."""


class InputError(SegZeroError, ValueError):
    """The image, query, box or point that the caller passed cannot be used."""


class ShapeError(InputError):
    """An array does not have the type and shape that it must have.

    Args:
        name: What the array is, such as `masks`.
        expected: Type and shape in words, such as `bool [N, H, W]`.
        got: The array or whatever else was passed; only its type and shape are kept.
    """

    def __init__(self, name: str, expected: str, got: object) -> None:
        super().__init__(f"{name}: expected {expected}, got {_describe(got)}")
        self._arguments = (name, expected, _describe(got))

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy keeps the description of the array, not the array.
        return (type(self), self._arguments)


def _describe(value: object) -> str:
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        return f"{dtype} {list(shape)}"
    return value if isinstance(value, str) else type(value).__name__


class ModelLoadError(SegZeroError):
    """Weights are missing, unreadable, or do not fit their configuration."""


class EngineMismatchError(ModelLoadError):
    """An engine file was built for another GPU, TensorRT version or input size."""


class ReasoningError(SegZeroError):
    """The reasoner failed or gave no usable answer."""

    def __init__(self, message: str, completion: str = "") -> None:
        super().__init__(message)
        self.completion = completion  # the whole reply as far as it came, for logs and scores

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (str(self), self.completion))


class TruncatedReplyError(ReasoningError):
    """`<answer>` was opened and never closed, usually by the token limit."""


class AnswerParseError(ReasoningError):
    """The reply has no answer, or its answer breaks a rule; the message names the rule."""


class SegmentationError(SegZeroError):
    """The image encoder or the mask decoder failed on a valid input."""


class OutOfMemoryError(SegZeroError):
    """The device has too little memory for this model or this image."""


class CancelledError(SegZeroError):
    """The work was stopped because the caller asked for it."""


def raise_if_cancelled(cancel: threading.Event | None) -> None:
    """Raise `CancelledError` if the caller has set `cancel`."""
    if cancel is not None and cancel.is_set():
        raise CancelledError("cancelled by the caller")


def shown(text: str, limit: int = _SHOWN_CHARS) -> str:
    """Quote text for an error message: one line, printable, and short."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return ascii(cut) if any(0xD800 <= ord(char) <= 0xDFFF for char in cut) else repr(cut)


def printable(text: str) -> str:
    """Replace control characters, because a model's text must not control the terminal."""
    return "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" else char
        for char in text
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether any library's error means that memory ran out; torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, Exception) and "allocate memory" in str(error)


@contextmanager
def segmentation_errors(work: str) -> Iterator[None]:
    """Turn errors of any library in some work into `OutOfMemoryError` or `SegmentationError`."""
    try:
        yield
    except SegZeroError:
        raise
    except Exception as error:  # PyTorch, ONNX Runtime and TensorRT have no common root
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough memory for the {work}: {error}") from error
        raise SegmentationError(f"the {work} failed: {error!r}") from error
