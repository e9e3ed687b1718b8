"""What the reasoner's training has to know about the world that its scenes are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from training.bundle.reasoner.encoding import EncodedQuestion
from training.bundle.reasoner.text import Prompt
from worlds.common.scene import Scene, SceneObject


class SeenScene(NamedTuple):
    """A scene after its image was cropped, mirrored and resized.

    Attributes:
        objects: Boxes in pixels of the cropped image.
        prompts: By object id, true box and points in pixels of the image that the model sees.
        size_wh: Size of the cropped image [px].
        facts: What `World.read` returned beside the scene.
    """

    objects: tuple[SceneObject, ...]
    prompts: dict[int, Prompt]
    size_wh: tuple[int, int]
    facts: Any


class Sampler(Protocol):
    """Draws an encoded question about a scene."""

    def __call__(self, rng: np.random.Generator, seen: SeenScene) -> EncodedQuestion:
        """Draw one question."""
        ...


@dataclass(frozen=True)
class World:
    """A world of rendered scenes.

    Attributes:
        name: Also the name of the model.
        kinds: Object classes that the image tokens learn to tell.
        colors: Colors that they learn to tell.
        seen_size_px: Side of the square image that the model sees.
        mirrors: Whether questions still hold in a mirrored image.
        query_kinds: The kinds of question.
        kind_shares: How often each is asked, unless the command line says otherwise.
        fixed_texts: Parts of questions and completions that are one token each.
        read: Reads the folder of a scene, without its pixels.
        sampler: Makes a `Sampler` from a tokenizer and the shares, with the keywords
            `choices_only` (completions end where the choice has fallen) and `augment` (some
            questions are surrounded by words that do not matter).
        texts: Questions and thoughts about some scene files, to learn the tokens from.
    """

    name: str
    kinds: tuple[str, ...]
    colors: tuple[str, ...]
    seen_size_px: int
    mirrors: bool
    query_kinds: tuple[str, ...]
    kind_shares: tuple[float, ...]
    fixed_texts: tuple[str, ...]
    read: Callable[[Path], tuple[Scene, Any]]
    sampler: Callable[..., Sampler]
    texts: Callable[[Sequence[Path], int], list[str]]
