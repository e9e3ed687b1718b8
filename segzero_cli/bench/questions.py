"""Images and queries for `segzero bench`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from segzero_core.errors import ConfigError
from segzero_core.images.files import load_image
from segzero_core.types import RgbImage

_DEFAULT_QUERIES: Final = ("the red mug", "every mug", "something to drive a nail with")
# Of the scenes that no training has seen.
_FIRST_SEED: Final = 1_700_000


def load_questions(
    paths: Sequence[Path] | None, queries: Sequence[str] | None, count: int
) -> list[tuple[RgbImage, str, str]]:
    """Return images, each with a first and a second query about it.

    Without paths: `count` rendered scenes with their own queries, so that none comes twice; where
    scenes cannot be rendered, the images of the demo's clip; without the clip, drawn images.

    Raises:
        ConfigError: Only one image is named. The second query must find its image remembered and
            the first must not, so images have to alternate.
    """
    if paths is not None and len(paths) < 2:
        raise ConfigError("--image: name two images or more, so that a first query is one")
    if paths:
        images, texts = [load_image(path) for path in paths], list(_DEFAULT_QUERIES)
    elif not queries and (rendered := _rendered(count)):
        return rendered
    else:
        images, texts = _from_clip()
    texts = list(queries or texts)
    return [
        (image, texts[index % len(texts)], texts[(index + 1) % len(texts)])
        for index, image in enumerate(images)
    ]


def _rendered(count: int) -> list[tuple[RgbImage, str, str]]:
    """Render test scenes; none where the renderer is not installed."""
    try:
        from worlds.tabletop.camera import Camera
        from worlds.tabletop.render import render_scene

        with Camera() as camera:
            scenes = (render_scene(camera, _FIRST_SEED + index) for index in range(count))
            return [
                (image.color.copy(), scene.queries[0].text, scene.queries[-1].text)
                for scene, image in scenes
            ]
    except Exception as error:  # a missing or broken renderer raises anything
        print(f"no rendered scenes: {error}", file=sys.stderr)
        return []


def _from_clip() -> tuple[list[RgbImage], list[str]]:
    from segzero_cli.demo.clip import CLIP, read_clip
    from segzero_core.segmenter.encoder_parity import drawn_scene

    path = Path(__file__).resolve().parents[2] / CLIP
    try:
        shots = read_clip(path) if path.is_file() else []
    except ImportError:  # rosbags is not installed
        shots = []
    if not shots:
        return [drawn_scene(seed)[0] for seed in range(3)], list(_DEFAULT_QUERIES)
    return [shot.color.copy() for shot in shots], [shot.question.text for shot in shots]
