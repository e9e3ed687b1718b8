"""A model's chat template: a small program of its folder, run once while the model loads.

All conversations here have one form, an image and a text. So the template is rendered once, in a
process of its own with limits, and what it puts before and behind the text is kept. No query runs
it again: none can be slow, take memory, or be turned into something else by it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segzero_core.checkpoints.isolation import IsolatedError, run_isolated
from segzero_core.errors import ConfigError
from segzero_core.limits import MAX_TEMPLATE_CHARS

_PROBES: Final = ("SEGZERO-PROBE", "Probe \"two\"\n<b>&amp; 'c' {{ d }} é")
_SCRIPT: Final = Path(__file__).with_name("render_template.py")
_CPU_S: Final = 10
_MEMORY_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The text before and after a question, with the image's placeholder."""

    before: str  # up to the text
    behind: str  # from there to where the model goes on

    def render(self, text: str) -> str:
        """Return the conversation that asks about an image with a text."""
        return f"{self.before}{text}{self.behind}"


def read_template(processor: Any) -> ChatTemplate:
    """Render a processor's template.

    Raises:
        ConfigError: There is none, it fails or takes too much, it changes the text or leaves it
            out, or it has no place for the image.
    """
    source = processor.chat_template
    source = source.get("default") if isinstance(source, Mapping) else source
    if not isinstance(source, str) or len(source) > MAX_TEMPLATE_CHARS:
        raise ConfigError(f"chat template: expected a text of at most {MAX_TEMPLATE_CHARS}")
    variables = {k: v for k, v in processor.tokenizer.special_tokens_map.items() if v is not None}
    return _rendered(source, json.dumps(variables, default=str), processor.image_token)


@functools.lru_cache(maxsize=8)
def _rendered(source: str, variables: str, image_token: str) -> ChatTemplate:
    content = [[{"type": "image"}, {"type": "text", "text": probe}] for probe in _PROBES]
    request = {
        "template": source,
        "conversations": [[{"role": "user", "content": each}] for each in content],
        "variables": json.loads(variables),
        "max_chars": MAX_TEMPLATE_CHARS,
    }
    try:
        texts = run_isolated(_SCRIPT, json.dumps(request).encode(), _CPU_S, _MEMORY_BYTES)
    except IsolatedError as error:
        raise ConfigError(f"chat template: {error}") from error
    first, *others = [text.split(probe) for text, probe in zip(texts, _PROBES, strict=True)]
    if len(first) != 2 or any(other != first for other in others):
        raise ConfigError("chat template: it does not say the question once and unchanged")
    if (count := "".join(first).count(image_token)) != 1:
        raise ConfigError(
            f"chat template: it has {count} places for the image ({image_token}) instead of one,"
            " and the model would answer without having seen it"
        )
    return ChatTemplate(*first)
