"""Describes a reasoner beside its weights: `segzero.json`.

The prompt it was trained with, the size of the image it sees and the coordinates it answers in
belong to the weights. Guessing them costs accuracy silently, so they are written down.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from segzero_core.config import MAX_NEW_TOKENS
from segzero_core.errors import ConfigError, shown
from segzero_core.files import read_regular
from segzero_core.limits import MAX_JSON_BYTES
from segzero_core.prompt import (
    MULTI_OBJECT,
    MULTI_OBJECT_SPACED,
    QWEN_NATIVE,
    SINGLE_OBJECT,
    TEMPLATES,
)
from segzero_core.types import SizeWH

FILE_NAME: Final = "segzero.json"

ABSOLUTE: Final = "absolute"
"""Coordinates are pixels of the image the model sees."""
NORMALIZED_1000: Final = "normalized_1000"
"""Coordinates are thousandths of width and height."""
COORDINATES: Final = (ABSOLUTE, NORMALIZED_1000)

_MAX_SIDE = 4096
_MAX_TEXT_CHARS = 500
_QWEN3_VL_SIZES: Final = ("2B", "4B", "8B")
_EXAMPLE: Final = {
    "name": "my-model",
    "prompt_template": MULTI_OBJECT,
    "templates": [MULTI_OBJECT],
    "seen_size_wh": [840, 840],
    "coordinates": ABSOLUTE,
    "segmenter": "facebook/sam2-hiera-large",
    "max_new_tokens": 1024,
}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """How to ask a reasoner, and how to read its numbers."""

    name: str  # what results call the model
    prompt_template: str  # the template asked with unless the caller chooses another
    templates: tuple[str, ...]  # the templates the model was trained with
    seen_size_wh: SizeWH  # the image is resized to this width and height before the model sees it
    coordinates: str  # `absolute` or `normalized_1000`
    # The segmenter that goes with it: a Hub id, or a folder relative to the reasoner's.
    segmenter: str
    max_new_tokens: int  # longest reply
    lowercase_query: bool = False  # the query is put into lower case, for a model whose words are
    strip_query: str = ""  # these characters are taken from both ends of the query
    # The model's chat template opens `<think>` itself, so that a server's reply begins within it.
    # A local model shows it by itself.
    opens_thinking: bool = False
    # An object whose box's longer side is below this share of the image's shorter side is
    # segmented in a close-up; see `segzero_core.segmenter.close_up`.
    close_up_share: float = 0.0

    def __post_init__(self) -> None:
        for field in ("name", "prompt_template", "coordinates", "segmenter"):
            value = getattr(self, field)
            if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT_CHARS:
                expected = f"a text of 1 to {_MAX_TEXT_CHARS} characters"
                raise _wrong(field, expected, value)
            if not value.isprintable():
                raise _wrong(field, "printable characters", value)
        templates = tuple(self.templates) if isinstance(self.templates, list | tuple) else ()
        if not templates or any(template not in TEMPLATES for template in templates):
            raise _wrong("templates", f"a list of some of {sorted(TEMPLATES)}", self.templates)
        if self.prompt_template not in templates:
            raise _wrong("prompt_template", f"one of {list(templates)}", self.prompt_template)
        if self.coordinates not in COORDINATES:
            raise _wrong("coordinates", f"one of {list(COORDINATES)}", self.coordinates)
        if not _is_size(self.seen_size_wh):
            expected = f"[width, height], each from 1 to {_MAX_SIDE}"
            raise _wrong("seen_size_wh", expected, self.seen_size_wh)
        limit = self.max_new_tokens
        if type(limit) is not int or not 1 <= limit <= MAX_NEW_TOKENS:
            raise _wrong("max_new_tokens", f"an integer from 1 to {MAX_NEW_TOKENS}", limit)
        for field in ("lowercase_query", "opens_thinking"):
            if type(getattr(self, field)) is not bool:
                raise _wrong(field, "true or false", getattr(self, field))
        share = self.close_up_share
        if type(share) not in (int, float) or not 0 <= share <= 1:
            raise _wrong("close_up_share", "a number from 0 to 1", share)
        if not isinstance(self.strip_query, str) or len(self.strip_query) > _MAX_TEXT_CHARS:
            raise _wrong("strip_query", "a short text", self.strip_query)
        object.__setattr__(self, "templates", templates)
        object.__setattr__(self, "seen_size_wh", tuple(self.seen_size_wh))

    @property
    def frame_wh(self) -> SizeWH:
        """Width and height of the frame that the model's numbers are in."""
        return self.seen_size_wh if self.coordinates == ABSOLUTE else (1000, 1000)

    def asked(self, query: str) -> str:
        """Return a query in the words in which the model is asked."""
        text = query.lower() if self.lowercase_query else query
        return text.strip(self.strip_query) or text if self.strip_query else text

    @classmethod
    def from_file(cls, path: Path) -> ModelDescription:
        """Read a `segzero.json`.

        Raises:
            ConfigError: It is missing, unreadable, or one of its fields is wrong.
        """
        try:
            values = json.loads(read_regular(path, MAX_JSON_BYTES))
        except FileNotFoundError:
            raise ConfigError(
                f"{path.parent} has no {FILE_NAME}, which says how to ask this model; write one"
                f" such as {json.dumps(_EXAMPLE)}"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
        return cls.from_values(values, str(path))

    @classmethod
    def from_values(cls, values: Any, source: str) -> ModelDescription:
        """Build a description from the values of a JSON object; errors name its source.

        Raises:
            ConfigError: A field is missing, unknown or wrong.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"{source}: expected an object, got {type(values).__name__}")
        known = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if missing := sorted(needed - values.keys()):
            raise ConfigError(f"{source}: {missing} missing; an example is {json.dumps(_EXAMPLE)}")
        if unknown := sorted(values.keys() - known):
            raise ConfigError(f"{source}: unknown fields {unknown}; there are {sorted(known)}")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None


def _wrong(field: str, expected: str, got: object) -> ConfigError:
    return ConfigError(f"{field}: expected {expected}, got {shown(repr(got))}")


def _is_size(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(type(side) is int and 1 <= side <= _MAX_SIDE for side in value)
    )


def _published(name: str, template: str, max_new_tokens: int = 1024) -> ModelDescription:
    """Describe a published model; those on Qwen2.5-VL see 840x840; all go with SAM 2.0 large."""
    size, sam = (840, 840), "facebook/sam2-hiera-large"
    return ModelDescription(name, template, (template,), size, ABSOLUTE, sam, max_new_tokens)


def _qwen3_vl(size: str, kind: str) -> ModelDescription:
    """Describe a Qwen3-VL, which sees 1024 image tokens as its makers advise for grounding."""
    return replace(
        _published(f"Qwen/Qwen3-VL-{size}-{kind}", QWEN_NATIVE),
        seen_size_wh=(1024, 1024),
        coordinates=NORMALIZED_1000,
        max_new_tokens=4096 if kind == "Thinking" else 1024,
        opens_thinking=kind == "Thinking",
    )


def _lower(description: ModelDescription, strip: str) -> ModelDescription:
    return replace(description, lowercase_query=True, strip_query=strip)


# Source: the inference scripts of the public Seg-Zero, VisionReasoner and ViSurf code. The
# Qwen2.5-VL models were trained with neither template; the multi-object one is the closest to
# their own format.
BUILT_IN: Final = {
    description.name: description
    for description in (
        _published("Ricky06662/Seg-Zero-3B", SINGLE_OBJECT),
        _published("Ricky06662/Seg-Zero-7B", SINGLE_OBJECT),
        _published("Ricky06662/Seg-Zero-7B-Best-on-ReasonSegTest", SINGLE_OBJECT),
        _lower(_published("Ricky06662/VisionReasoner-7B", MULTI_OBJECT, 2000), '."?!'),
        *(
            _lower(_published(f"Ricky06662/Visurf-7B-{kind}", MULTI_OBJECT_SPACED, 2048), '"!')
            for kind in ("Best-on-gRefCOCO", "NoThink-Best-on-gRefCOCO")
        ),
        _published("Qwen/Qwen2.5-VL-3B-Instruct", MULTI_OBJECT),
        _published("Qwen/Qwen2.5-VL-7B-Instruct", MULTI_OBJECT),
        *(_qwen3_vl(size, kind) for size in _QWEN3_VL_SIZES for kind in ("Instruct", "Thinking")),
    )
}
"""Descriptions of published models, by Hub id."""
