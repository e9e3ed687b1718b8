"""The instances file of COCO: images and annotations by number, masks read when needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from segzero_core.errors import InputError, shown
from segzero_core.types import SizeWH
from training.data.errors import ANNOTATION_DAMAGED, ANNOTATION_MISSING, PATH_OUTSIDE, SampleError
from training.data.sources.base import read_annotations
from training.data.sources.rle import Rle, rle_from_segmentation


@dataclass(frozen=True, eq=False)
class Instances:
    """COCO's images and annotations by their numbers, still as they were in the file."""

    images: Mapping[int, Mapping[str, Any]]  # by id
    annotations: Mapping[int, Mapping[str, Any]]  # by id
    folder: Path  # where the images lie
    name: str  # of the file, for messages

    def image(self, image_id: int) -> tuple[Path, SizeWH]:
        """Find an image's file and size.

        Raises:
            SampleError: There is none, or its entry is damaged.
        """
        entry = self.images.get(image_id)
        if entry is None:
            raise SampleError(ANNOTATION_MISSING, f"{self.name} has no image {image_id}")
        name, width, height = (entry.get(key) for key in ("file_name", "width", "height"))
        if not isinstance(name, str) or type(width) is not int or type(height) is not int:
            raise SampleError(ANNOTATION_DAMAGED, f"image {image_id} has no name or no size")
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or not parts:
            raise SampleError(
                PATH_OUTSIDE, f"the image {shown(name)} is not inside the images folder"
            )
        path = self.folder / name
        try:  # a link may lead elsewhere
            is_inside = path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, RuntimeError, UnicodeError) as error:  # a ring of links, half a character
            raise SampleError(ANNOTATION_DAMAGED, f"the image {shown(name)}: {error}") from error
        if not is_inside:
            raise SampleError(PATH_OUTSIDE, f"the image {shown(name)} is a link out of its folder")
        return path, (width, height)

    def mask(self, annotation_id: int, image_id: int, size_wh: SizeWH) -> Rle:
        """Decode an annotation's mask.

        Raises:
            SampleError: There is none, or it cannot be used.
        """
        entry = self.annotations.get(annotation_id)
        if entry is None:
            raise SampleError(ANNOTATION_MISSING, f"{self.name} has no annotation {annotation_id}")
        if entry.get("image_id") != image_id:
            raise SampleError(
                ANNOTATION_DAMAGED,
                f"annotation {annotation_id} belongs to image {entry.get('image_id')!r},"
                f" the reference to {image_id}",
            )
        return rle_from_segmentation(entry.get("segmentation"), size_wh)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: It is missing, or no JSON.
    """
    try:
        return json.loads(read_annotations(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON, or half of a file: {error}") from error
