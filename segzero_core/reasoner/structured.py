"""Well-formed replies as a regular expression, for the structured output of servers."""

from __future__ import annotations

import re
from typing import Any, Final

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.prompt import asks_to_think, is_native, is_single_object

# How each server takes it, by the owner that it names in its list of models.
STRUCTURED: Final[dict[str, Any]] = {
    "vllm": lambda regex: {"structured_outputs": {"regex": regex}},
    "sglang": lambda regex: {"regex": regex},
}

# Bounded, because a model may otherwise go on with blanks for ever.
_SPACE: Final = r"[ \n\t]{0,4}"
_NUMBER: Final = r"[0-9]{1,4}"


def reply_regex(description: ModelDescription) -> str:
    """Return a regular expression that whole replies match; the thinking is any text without `<`.

    It uses nothing that the engines of structured output lack.
    """
    template = description.prompt_template
    thinking = "[^<]*</think>" + _SPACE
    if is_native(template):
        objects = _list(_members({"bbox_2d": 4}) + rf',{_SPACE}"label":{_SPACE}"[^"\n]{{0,200}}"')
        opening = f"({thinking})?" if description.opens_thinking else ""
        return rf"{opening}(```json{_SPACE})?{objects}({_SPACE}```)?"
    if is_single_object(template):
        one = _members({"bbox": 4, "points_1": 2, "points_2": 2})
        objects = rf"(\[\]|\{{{one}\}})"
    else:
        objects = _list(_members({"bbox_2d": 4, "point_2d": 2}))
    opening = f"<think>{thinking}" if asks_to_think(template) else ""
    return f"{opening}<answer>{objects}</answer>"


def _members(counts: dict[str, int]) -> str:
    """Return names with lists of so many numbers, in any quotes."""
    between = rf",{_SPACE}"
    parts = [
        rf"""['"]{re.escape(name)}['"]:{_SPACE}\[{between.join([_NUMBER] * count)}\]"""
        for name, count in counts.items()
    ]
    return between.join(parts)


def _list(members: str) -> str:
    item = rf"\{{{members}\}}"
    return rf"\[{_SPACE}({item}(,{_SPACE}{item})*{_SPACE})?\]"
