"""A rendered scene in a folder: images, objects, camera and questions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMAT = 1
TRAINING_SEEDS_END = 800_000
VALIDATION_SEEDS_END = 1_000_000

Split = Literal["train", "validation", "test"]


def split_of_seed(seed: int) -> Split:
    """Return the part of the data that a seed belongs to; the parts never share a scene."""
    if seed < TRAINING_SEEDS_END:
        return "train"
    return "validation" if seed < VALIDATION_SEEDS_END else "test"


@dataclass(frozen=True)
class SceneObject:
    """One object in an image."""

    id: int  # value of its pixels in the instances image, from 1
    kind: str  # for instance "mug"
    color: str  # for instance "red"
    box_xyxy: tuple[int, int, int, int]  # extent of the visible pixels, half-open [px]
    area_px: int  # number of visible pixels
    visible_fraction: float  # visible pixels over the pixels it would have if it stood there alone
    position_m: tuple[float, float, float]  # center of the body in the world frame [m]
    # Orientation of the body in the world frame.
    quaternion_xyzw: tuple[float, float, float, float]
    size_m: tuple[float, float, float]  # extent along the body's own axes [m]


@dataclass(frozen=True)
class Query:
    """A question about the image."""

    kind: str  # name, attribute, relation, function, many or none
    text: str  # what the person says
    ids: tuple[int, ...]  # the objects that are meant; empty where nothing fits
    split: str = "train"  # "test" where the phrasing is one that training never sees
    # How the question picks its objects, for the writer of the training texts.
    topic: tuple[str, ...] = ()
    anchors: tuple[int, ...] = ()  # the objects that it compares the meant ones with
    candidates: tuple[int, ...] = ()  # the objects that it chooses from, the meant ones among them


@dataclass(frozen=True)
class Scene:
    """Everything about one image but its pixels; see `load_scene`."""

    seed: int  # the seed that makes it again
    image_size_wh: tuple[int, int]  # size of the image [px]
    intrinsics: dict[str, float]  # fx, fy, cx, cy of a pinhole without distortion [px]
    # The camera's optical center in the world frame [m].
    camera_position_m: tuple[float, float, float]
    # The optical frame (x right, y down, z forward) in the world frame.
    camera_quaternion_xyzw: tuple[float, float, float, float]
    objects: tuple[SceneObject, ...]  # in order of their ids
    queries: tuple[Query, ...]  # at most a few of each kind

    def to_json(self) -> str:
        """The text of `scene.json`."""
        record: dict[str, Any] = {
            "format": FORMAT,
            "seed": self.seed,
            "split": split_of_seed(self.seed),
            "image_size_wh": self.image_size_wh,
            "intrinsics": self.intrinsics,
            "camera_pose": {
                "position_m": self.camera_position_m,
                "quaternion_xyzw": self.camera_quaternion_xyzw,
            },
            "objects": [asdict(item) for item in self.objects],
            "queries": [_query_record(query) for query in self.queries],
        }
        return json.dumps(record, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """Read `scene.json`.

        Raises:
            ValueError: The text is not a scene of this format.
        """
        try:
            record = json.loads(text)
            if record["format"] != FORMAT:
                raise ValueError(f"scene format {record['format']!r}, expected {FORMAT}")
            return cls(
                seed=int(record["seed"]),
                image_size_wh=tuple(record["image_size_wh"]),
                intrinsics={key: float(value) for key, value in record["intrinsics"].items()},
                camera_position_m=tuple(record["camera_pose"]["position_m"]),
                camera_quaternion_xyzw=tuple(record["camera_pose"]["quaternion_xyzw"]),
                objects=tuple(SceneObject(**_with_tuples(item)) for item in record["objects"]),
                queries=tuple(Query(**_with_tuples(item)) for item in record["queries"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a scene.json of format {FORMAT}: {error!r}") from error


def load_scene(
    folder: Path,
) -> tuple[Scene, NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint16]]:
    """Read one rendered folder.

    Returns:
        The scene, color uint8 [H, W, 3] RGB, depth uint16 [H, W] in mm (0 = unknown), and
        instances uint16 [H, W] (0 = background, else the object's id).

    Raises:
        OSError: A file is missing or is no image.
        ValueError: `scene.json` is not a scene.
    """
    scene = Scene.from_json((folder / "scene.json").read_text(encoding="utf-8"))
    color = np.asarray(Image.open(folder / "color.png", formats=["PNG"]).convert("RGB"))
    depth = np.asarray(Image.open(folder / "depth.png", formats=["PNG"])).astype(np.uint16)
    instances = np.asarray(Image.open(folder / "instances.png", formats=["PNG"])).astype(np.uint16)
    return scene, color, depth, instances


def save_images(
    folder: Path,
    color: NDArray[np.uint8],
    depth_mm: NDArray[np.uint16],
    instances: NDArray[np.uint16],
    compress_level: int = -1,
) -> None:
    """Write the three images of a rendered folder; the level is zlib's, -1 its default."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in (("color", color), ("depth", depth_mm), ("instances", instances)):
        Image.fromarray(pixels).save(folder / f"{name}.png", compress_level=compress_level)


def save_scene(
    folder: Path,
    scene: Scene,
    color: NDArray[np.uint8],
    depth_mm: NDArray[np.uint16],
    instances: NDArray[np.uint16],
) -> None:
    """Write one rendered folder; `scene.json` comes last, so that its presence means complete."""
    save_images(folder, color, depth_mm, instances)
    (folder / "scene.json").write_text(scene.to_json() + "\n", encoding="utf-8")


def _with_tuples(item: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}


def _query_record(query: Query) -> dict[str, Any]:
    record = asdict(query)
    for name in ("anchors", "candidates"):
        if not record[name]:  # most worlds do not tell them
            del record[name]
    return record
