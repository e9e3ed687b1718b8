"""The answer that a visitor saves as an image: drawn from what the page sends back.

The server keeps no answer, so the page sends it all: a line of JSON, and the encoded image.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_cli.web.examples import Example
from segzero_cli.web.uploads import decode_image, encode_image
from segzero_core.errors import InputError
from segzero_core.images.files import UNREADABLE_IMAGE, open_image
from segzero_core.images.lettering import add_caption
from segzero_core.images.overlay import draw_lines, draw_overlay
from segzero_core.images.palette import Color
from segzero_core.types import Box, ObjectPrompt, Point, RgbImage, Segmentation, SizeWH

MAX_MASKS_PX: Final = 400_000_000
"""Pixels of all masks of an answer."""
MAX_OBJECTS: Final = 1000
_UNUSABLE: Final = (KeyError, TypeError, OverflowError, RecursionError, *UNREADABLE_IMAGE)


def draw_answer(body: bytes, examples: Mapping[str, Example]) -> bytes:
    """Return a PNG of an answer, with question and thinking below.

    Args:
        body: A line of JSON and, unless it names an example, the encoded image. The JSON has
            `query`, `thinking`, `example` or null, and `objects`, each with `box_xyxy`, `points`,
            `label`, `color`, `png` and `offset_xy` of its mask or null, and `lines`.
        examples: By name.

    Raises:
        InputError: It is no such thing.
    """
    head, _, data = body.partition(b"\n")
    try:
        answer = json.loads(head)
        name = answer["example"]
        pixels = decode_image(data) if name is None else examples[name].color
        return encode_image(_drawn(pixels, answer))
    except InputError:
        raise
    except _UNUSABLE as error:
        raise InputError("this is no answer that can be drawn; load the page again") from error


def _drawn(pixels: RgbImage, answer: dict[str, Any]) -> RgbImage:
    objects, (height, width) = answer["objects"], pixels.shape[:2]
    if len(objects) > min(MAX_OBJECTS, MAX_MASKS_PX / (height * width)):
        raise InputError("the answer has too many objects to be drawn; switch some off")
    masks = np.zeros((len(objects), height, width), np.bool_)
    for mask, each in zip(masks, objects, strict=True):
        _paste(mask, each)
    prompts = [
        ObjectPrompt(Box(*each["box_xyxy"]), tuple(Point(*xy) for xy in each["points"]))
        for each in objects
    ]
    colors = [_color(each["color"]) for each in objects]
    labels = [str(each["label"]) for each in objects]
    found = Segmentation(masks, np.ones(len(masks), np.float32))
    drawn = draw_overlay(pixels, found, prompts, labels=labels, colors=colors)
    for each, color in zip(objects, colors, strict=True):
        for ink, ends in ((color, each["lines"]), ((255, 255, 255), each["grasp_lines"])):
            draw_lines(drawn, _segments(ends, (width, height)), ink)
    return add_caption(drawn, str(answer["query"]), str(answer["thinking"]))


def _paste(mask: NDArray[np.bool_], each: dict[str, Any]) -> None:
    """Put an object's mask, which was cut out, where it belongs."""
    if each["png"] is None:
        return
    png = base64.b64decode(each["png"], validate=True)
    with open_image(png, ("PNG",), max_px=mask.size) as image:
        crop = np.asarray(image.convert("L")) > 127
    left, top = map(int, each["offset_xy"])
    if left < 0 or top < 0:
        raise ValueError("a mask outside of the image")
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop


def _segments(ends: Any, size_wh: SizeWH) -> NDArray[np.float64]:
    """Return lines [N, 2, 2] of pairs of ends, kept near the image."""
    points = np.array(ends or np.zeros((0, 2)), np.float64).reshape(-1, 2, 2)
    if not np.isfinite(points).all():
        raise ValueError("a line without end")
    far = np.array(size_wh)
    return points.clip(-far, 2 * far)


def _color(values: Any) -> Color:
    red, green, blue = (min(255, max(0, int(value))) for value in values)
    return red, green, blue
