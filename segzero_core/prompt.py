"""The prompt templates, and what may stand in a query.

The texts of `single_object` and `multi_object` are those the published models were trained with,
letter for letter: parts of the original are joined without spaces ("points.Compare"), and a nicer
text answers worse. `multi_object_spaced` writes its example as ViSurf does, and `qwen_native` is
how Qwen-VL models are asked for boxes. The others are for studies: `…_direct` asks for the answer
without thinking, `…_no_example` leaves out the example of an answer.

Source: Seg-Zero (arXiv:2503.06520) for `single_object`, VisionReasoner (arXiv:2505.12081) for
`multi_object`, ViSurf (arXiv:2510.10606) for `multi_object_spaced`: the inference variants of
their public code; the cookbooks of Qwen3-VL for `qwen_native`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

from segzero_core.errors import ConfigError, InputError, shown

MULTI_OBJECT: Final = "multi_object"
SINGLE_OBJECT: Final = "single_object"
MULTI_OBJECT_DIRECT: Final = "multi_object_direct"
SINGLE_OBJECT_DIRECT: Final = "single_object_direct"
SINGLE_OBJECT_NO_EXAMPLE: Final = "single_object_no_example"
MULTI_OBJECT_SPACED: Final = "multi_object_spaced"
QWEN_NATIVE: Final = "qwen_native"

MAX_QUERY_CHARS: Final = 2000
"""Longer texts are no queries, and would push the image out of a small model's context."""

_SINGLE_OBJECT_TASK = (
    "Please find '{Question}' with bbox and points."
    "Compare the difference between objects and find the most closely matched one."
)
_SINGLE_OBJECT_FORMAT = (
    "Output the one bbox and points of two largest inscribed circles inside the interested object"
    " in JSON format."
)
_SINGLE_OBJECT_EXAMPLE = (
    "<answer>{'bbox': [10,100,200,210], 'points_1': [30,110], 'points_2': [35,180]}</answer>"
)
_MULTI_OBJECT_TASK = (
    'Please find "{Question}" with bboxs and points.'
    "Compare the difference between object(s) and find the most closely matched object(s)."
)
_MULTI_OBJECT_FORMAT = (
    "Output the bbox(es) and point(s) inside the interested object(s) in JSON format."
)
_MULTI_OBJECT_EXAMPLE = (
    '<answer>[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]},'
    ' {"bbox_2d": [225,296,706,786], "point_2d": [302,410]}]</answer>'
)
_THINK = (
    "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
)
_NO_THINK = "Output the final answer in <answer> </answer> tags."
_EXAMPLE = "i.e., <think> thinking process here </think>"
SEG_ZERO_TEMPLATES: Final = {
    MULTI_OBJECT: (
        _MULTI_OBJECT_TASK + _THINK + _MULTI_OBJECT_FORMAT + _EXAMPLE + _MULTI_OBJECT_EXAMPLE
    ),
    SINGLE_OBJECT: (
        _SINGLE_OBJECT_TASK + _THINK + _SINGLE_OBJECT_FORMAT + _EXAMPLE + _SINGLE_OBJECT_EXAMPLE
    ),
    MULTI_OBJECT_DIRECT: (
        _MULTI_OBJECT_TASK + _NO_THINK + _MULTI_OBJECT_FORMAT + "i.e., " + _MULTI_OBJECT_EXAMPLE
    ),
    SINGLE_OBJECT_DIRECT: (
        _SINGLE_OBJECT_TASK + _NO_THINK + _SINGLE_OBJECT_FORMAT + "i.e., " + _SINGLE_OBJECT_EXAMPLE
    ),
    SINGLE_OBJECT_NO_EXAMPLE: _SINGLE_OBJECT_TASK + _THINK + _SINGLE_OBJECT_FORMAT,
}
"""Templates whose replies have their answer in `<answer>`, with a point or two for each box."""

TEMPLATES: Final = {
    **SEG_ZERO_TEMPLATES,
    MULTI_OBJECT_SPACED: (
        SEG_ZERO_TEMPLATES[MULTI_OBJECT].removesuffix(_MULTI_OBJECT_EXAMPLE)
        + _MULTI_OBJECT_EXAMPLE.replace(", ", ",").replace(",", ", ")
    ),
    QWEN_NATIVE: 'Locate "{Question}", report the bboxes coordinates in JSON format.',
}
"""All templates."""


def is_single_object(template: str) -> bool:
    """Say whether a template asks for one object with two points."""
    return template.startswith(SINGLE_OBJECT)


def is_native(template: str) -> bool:
    """Say whether replies are in Qwen's own form: a list of boxes, without tags and points."""
    return template == QWEN_NATIVE


def asks_to_think(template: str) -> bool:
    """Say whether a template asks for the thinking before the answer."""
    return not template.endswith("_direct")


# Tags and special tokens by which a query could speak in the place of the template or the model.
_MARKUP = re.compile(
    r"</?\s*(?:think|answer|image|video|tool_call|tool_response|tools|im_start|im_end|s)\s*/?>"
    r"|<\|[^<>|]{0,40}\|>",
    re.IGNORECASE,
)
_SPACES = re.compile(r"\s+")


def clean_query(query: str) -> str:
    """Return the query, such as "the red mug", with single spaces and without a final full stop.

    Raises:
        InputError: It is empty, longer than `MAX_QUERY_CHARS`, or holds control characters,
            broken Unicode, or markup that belongs to the prompt (`</answer>`, `<|im_end|>`).
    """
    if not isinstance(query, str):
        raise InputError(f"query: expected text, got {type(query).__name__}")
    if len(query) > MAX_QUERY_CHARS:
        raise InputError(
            f"query: {len(query)} characters, at most {MAX_QUERY_CHARS} are allowed;"
            " name the object in a phrase"
        )
    text = _SPACES.sub(" ", query).strip().rstrip(". ")
    if not text:
        raise InputError('query: it is empty; name what to find, such as "the red mug"')
    if markup := _MARKUP.search(text):
        raise InputError(
            f"query: {shown(markup.group())} is markup of the prompt and cannot be asked for"
        )
    for char in text:
        if unicodedata.category(char) in ("Cc", "Cs"):
            raise InputError(f"query: {char!a} is not a printable character; leave it out")
    return text


def build_prompt(template: str, query: str) -> str:
    """Return the text that stands beside the image in the question to the model.

    The single-object templates lower-case the query, as in their training.

    Raises:
        ConfigError: There is no such template.
        InputError: The query cannot be used; see `clean_query`.
    """
    if template not in TEMPLATES:
        raise ConfigError(f"template: no {shown(str(template))}; there are {sorted(TEMPLATES)}")
    text = clean_query(query)
    if is_single_object(template):
        text = text.lower().strip(".").strip()
    return TEMPLATES[template].replace("{Question}", text)


def build_messages(template: str, query: str) -> list[dict[str, Any]]:
    """Return the conversation for a processor's chat template: one image, one text."""
    content = [{"type": "image"}, {"type": "text", "text": build_prompt(template, query)}]
    return [{"role": "user", "content": content}]
