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
    """A scene after its image was cropped, mirrored and resized."""

    objects: tuple[SceneObject, ...]  # boxes in pixels of the cropped image
    # By object id, true box and points in pixels of the image that the model sees.
    prompts: dict[int, Prompt]
    size_wh: tuple[int, int]  # size of the cropped image [px]
    facts: Any  # what `World.read` returned beside the scene, which is not mirrored
    mirrored: bool = False


class Sampler(Protocol):
    """Draws an encoded question about a scene."""

    def __call__(self, rng: np.random.Generator, seen: SeenScene) -> EncodedQuestion:
        """Draw one question."""
        ...


@dataclass(frozen=True)
class World:
    """A world of rendered scenes."""

    name: str  # also the name of the model
    kinds: tuple[str, ...]  # object classes that the image tokens learn to tell
    colors: tuple[str, ...]  # colors that they learn to tell
    seen_size_px: int  # side of the square image that the model sees
    close_up_share: float  # see `ModelDescription`
    # Of the images, so many are mirrored; the sampler asks what still holds in them.
    mirror_share: float
    query_kinds: tuple[str, ...]  # the kinds of question
    # How often each is asked, unless the command line says otherwise.
    kind_shares: tuple[float, ...]
    fixed_texts: tuple[str, ...]  # parts of questions and completions that are one token each
    read: Callable[[Path], tuple[Scene, Any]]  # reads the folder of a scene, without its pixels
    # Makes a `Sampler` from a tokenizer and the shares, with the keywords `choices_only`
    # (completions end where the choice has fallen) and `augment` (some questions are surrounded by
    # words that do not matter).
    sampler: Callable[..., Sampler]
    # Questions and thoughts about some scene files, to learn the tokens from.
    texts: Callable[[Sequence[Path], int], list[str]]
