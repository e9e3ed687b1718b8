"""Rendered scenes as the evaluation reads them, with one clear error for whatever is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segzero_core.errors import InputError
from segzero_core.types import Box, RgbImage
from training.data.mask_prompts import mask_to_prompt
from worlds.common.scene import Query, Scene, load_scene

QUERY_KINDS = ("name", "attribute", "relation", "function", "many", "none")
LIBERO_KINDS = ("instruction", "place", "object", "fixture", "target")
"""What is asked in LIBERO's world and about its benchmark besides."""


@dataclass(frozen=True, eq=False)
class EvaluationScene:
    """One image with its questions and true masks."""

    folder: Path  # where it was read from
    image: RgbImage  # uint8 [H, W, 3], RGB
    instances: NDArray[np.uint16]  # uint16 [H, W]: 0 is background, else an object's id
    object_kinds: dict[int, str]  # what each object is, by id
    questions: tuple[Query, ...]  # everything that can be asked about it

    @classmethod
    def read(cls, folder: Path) -> EvaluationScene:
        """Read a rendered folder.

        Raises:
            InputError: A file is missing or damaged, or the files contradict one another.
        """
        try:
            scene, image, _, instances = load_scene(folder)
        except (OSError, ValueError, TypeError, SyntaxError) as error:
            raise InputError(f"{folder} is not a rendered scene: {error}") from error
        if instances.shape != image.shape[:2]:
            raise InputError(f"{folder}: color.png and instances.png differ in size")
        kinds = {obj.id: obj.kind for obj in scene.objects}
        visible = set(np.unique(instances).tolist())
        for question in scene.queries:
            if missing := [index for index in question.ids if index not in visible]:
                raise InputError(f"{folder}: {question.text!r} means {missing}, not in the image")
        return cls(folder, np.ascontiguousarray(image), instances, kinds, scene.queries)

    @property
    def visible_ids(self) -> list[int]:
        """Ids of the objects with at least one pixel, in order."""
        return [int(index) for index in np.unique(self.instances) if index]

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Give the visible pixels of an object: bool [H, W]."""
        return np.asarray(self.instances == index, np.bool_)

    def union(self, ids: Iterable[int]) -> NDArray[np.bool_]:
        """Give the visible pixels of several objects: bool [H, W]."""
        return np.asarray(np.isin(self.instances, list(ids)), np.bool_)

    def boxes(self, ids: Iterable[int]) -> list[Box]:
        """Give the tight boxes of objects, in their order [px]."""
        return [Box(*mask_to_prompt(self.mask(index), max_points=0).box_xyxy) for index in ids]


def open_scenes(data: Path) -> list[Path]:
    """List the scene folders of a rendered data set, in order.

    Raises:
        InputError: There is no such folder, or no scene in it.
    """
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; make one with python -m worlds.tabletop.render")
    folders = sorted(path.parent for path in data.glob("*/scene.json"))
    if not folders:
        raise InputError(f"{data} holds no rendered scenes (*/scene.json)")
    return folders


def read_record(folder: Path) -> Scene:
    """Read what is known about a scene, without its images.

    Raises:
        InputError: Its scene.json is missing or damaged.
    """
    try:
        return Scene.from_json((folder / "scene.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} is not a rendered scene: {error}") from error
