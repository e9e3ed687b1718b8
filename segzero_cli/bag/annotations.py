"""Writes a bag's images and the answers about them for Foxglove, as an mcap file.

Answers are messages foxglove_msgs/ImageAnnotations, which Foxglove draws over the images: box,
outline, points and label of each object. The mcap carries their definition, so that neither ROS
nor foxglove_msgs is needed. Source of the fields: https://docs.foxglove.dev/docs/sdk/schemas.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_cli.bag.reader import BagImage
from segzero_core.errors import InputError
from segzero_core.images.palette import Color, choose_colors
from segzero_core.types import Box, Result

SUFFIX: Final = ".mcap"
TOPIC: Final = "/segzero/annotations"
KIND: Final = "foxglove_msgs/msg/ImageAnnotations"
DEFINITIONS: Final = {
    "Point2": "float64 x\nfloat64 y",
    "Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a",
    "CircleAnnotation": "builtin_interfaces/Time timestamp\nPoint2 position\nfloat64 diameter\n"
    "float64 thickness\nColor fill_color\nColor outline_color",
    "PointsAnnotation": "builtin_interfaces/Time timestamp\nuint8 UNKNOWN=0\nuint8 POINTS=1\n"
    "uint8 LINE_LOOP=2\nuint8 LINE_STRIP=3\nuint8 LINE_LIST=4\nuint8 type\nPoint2[] points\n"
    "Color outline_color\nColor[] outline_colors\nColor fill_color\nfloat64 thickness",
    "TextAnnotation": "builtin_interfaces/Time timestamp\nPoint2 position\nstring text\n"
    "float64 font_size\nColor text_color\nColor background_color",
    "ImageAnnotations": "CircleAnnotation[] circles\nPointsAnnotation[] points\n"
    "TextAnnotation[] texts",
}
"""The fields of each message; those of other packages are of ROS 2 itself."""
_LINE_PX: Final = 2.0
_POINT_PX: Final = 8.0
_FONT_PX: Final = 14.0
_TINT: Final = 0.35


def typestore() -> Any:
    """Return the message types of ROS 2 and those of `DEFINITIONS`."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name, text in DEFINITIONS.items():
        types |= get_types_from_msg(text, f"foxglove_msgs/msg/{name}")
    store.register(types)
    return store


class AnnotationWriter:
    """Writes images as they were recorded, each with the annotations of its answer.

    Args:
        path: Of the mcap file; one that is there is replaced when all is written.
        topic: Of the images.
    """

    def __init__(self, path: Path, topic: str) -> None:
        self._path, self._topic = path, topic
        self._store = typestore()
        self._connections: dict[str, Any] = {}
        self._colors: list[Color] = []
        self._stack = ExitStack()

    def __enter__(self) -> AnnotationWriter:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        try:
            # Beside the file, so that it only has to be renamed.
            folder = tempfile.TemporaryDirectory(dir=self._path.parent, prefix=".segzero-")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error}") from error
        self._folder = Path(self._stack.enter_context(folder)) / "bag"
        self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            self._writer.close()
            if kind is not None:  # cut off: what is there stays
                return
            shutil.move(next(self._folder.glob("*.mcap")), self._path)

    def write(self, image: BagImage, result: Result | None, _error: str) -> None:
        """Write an image and its annotations; none where there is no answer."""
        if image.message is not None:
            kind, data = image.message
            self._add(self._topic, kind, image.recorded_ns, data)
        msg = self._annotations(image, result)
        self._add(TOPIC, KIND, image.recorded_ns, self._store.serialize_cdr(msg, KIND))

    def _add(self, topic: str, kind: str, recorded_ns: int, data: bytes) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store
            )
        self._writer.write(self._connections[topic], recorded_ns, data)

    def _annotations(self, image: BagImage, result: Result | None) -> Any:
        circles: list[Any] = []
        points: list[Any] = []
        texts: list[Any] = []
        if result is not None and image.pixels is not None:
            found = result.segmentation
            self._colors = choose_colors(image.pixels, found.masks, self._colors)
            stamp = self._store.types["builtin_interfaces/msg/Time"](
                sec=image.stamp_ns // 10**9, nanosec=image.stamp_ns % 10**9
            )
            prompts = result.reasoning.prompts
            each = zip(prompts, found.masks, found.scores, self._colors, strict=True)
            for number, (prompt, mask, score, color) in enumerate(each, start=1):
                points.append(self._loop(stamp, _corners(prompt.box), color, 0.0))
                points += [self._loop(stamp, line, color, _TINT) for line in outlines(mask)]
                circles += [self._circle(stamp, point.xy, color) for point in prompt.points]
                text = f"{number}: {score:.2f}"
                texts.append(self._text(stamp, prompt.box.xyxy[:2], text, color))
        return self._make("ImageAnnotations", circles=circles, points=points, texts=texts)

    def _loop(self, stamp: Any, corners: NDArray[np.float64], color: Color, tint: float) -> Any:
        return self._make(
            "PointsAnnotation",
            timestamp=stamp,
            type=self._store.types["foxglove_msgs/msg/PointsAnnotation"].LINE_LOOP,
            points=[self._point(*xy) for xy in corners.tolist()],
            outline_color=self._color(color),
            outline_colors=[],
            fill_color=self._color(color, tint),
            thickness=_LINE_PX,
        )

    def _circle(self, stamp: Any, xy: tuple[float, float], color: Color) -> Any:
        return self._make(
            "CircleAnnotation",
            timestamp=stamp,
            position=self._point(*xy),
            diameter=_POINT_PX,
            thickness=_LINE_PX,
            fill_color=self._color((255, 255, 255)),
            outline_color=self._color(color),
        )

    def _text(self, stamp: Any, xy: tuple[float, ...], text: str, color: Color) -> Any:
        return self._make(
            "TextAnnotation",
            timestamp=stamp,
            position=self._point(*xy),
            text=text,
            font_size=_FONT_PX,
            text_color=self._color((255, 255, 255)),
            background_color=self._color(color),
        )

    def _point(self, x: float, y: float) -> Any:
        return self._make("Point2", x=float(x), y=float(y))

    def _color(self, color: Color, alpha: float = 1.0) -> Any:
        red, green, blue = (value / 255 for value in color)
        return self._make("Color", r=red, g=green, b=blue, a=alpha)

    def _make(self, name: str, **fields: Any) -> Any:
        return self._store.types[f"foxglove_msgs/msg/{name}"](**fields)


def _corners(box: Box) -> NDArray[np.float64]:
    x_min, y_min, x_max, y_max = box.xyxy
    return np.array([(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)])


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the outline of each part of a mask through the centers of its pixels, [N, 2] [px]."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0].astype(np.float64) + 0.5 for contour in found if len(contour) > 2]
