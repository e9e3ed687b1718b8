"""Depth and calibration of a bag's images, and what they say about the objects of an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_cli.bag.reader import CAMERA_INFO, IMAGE, header_ns, open_topic
from segzero_core.depth import (
    CameraModel,
    GraspConfig,
    Measurement,
    camera_from_info,
    depth_in_meters,
    measure_object,
)
from segzero_core.errors import InputError
from segzero_core.images.encodings import array_from_msg
from segzero_core.types import Segmentation

TOLERANCE_NS: Final = 20_000_000
"""Depth belongs to an image when their stamps differ by at most this; as the node's default."""


class BagDepth:
    """Finds the depth of images that are asked for in the order of their stamps.

    Args:
        messages: Of the depth topic, in that order.
        camera: The first calibration of the bag.
    """

    def __init__(self, messages: Iterator[Any], camera: CameraModel) -> None:
        self.camera = camera
        self._messages = messages
        self._near: list[Any] = []  # the last two that were read

    def at(self, stamp_ns: int) -> NDArray[np.float32]:
        """Return depth [m] at a stamp, float32 [H, W]; an InputError where there is none."""
        while not self._near or header_ns(self._near[-1]) < stamp_ns:
            if (msg := next(self._messages, None)) is None:
                break
            self._near = [*self._near[-1:], msg]
        msg = min(self._near, key=lambda each: abs(header_ns(each) - stamp_ns), default=None)
        if msg is None or abs(header_ns(msg) - stamp_ns) > TOLERANCE_NS:
            raise InputError("no depth of the image's stamp")
        return depth_in_meters(array_from_msg(msg), msg.encoding)


@contextmanager
def open_depth(path: Path, depth: str, camera_info: str) -> Iterator[BagDepth]:
    """Open a bag's depth by the names of its topics; as `open_topic`, or uncalibrated."""
    with open_topic(path, camera_info, (CAMERA_INFO,)) as topic:
        info = next(topic.messages(), None)
        if info is None:
            raise InputError(f"bag {path}: no message of {camera_info} can be decoded")
        camera = camera_from_info(info, rectified=False)
    with open_topic(path, depth, (IMAGE,)) as topic:
        yield BagDepth(topic.messages(), camera)


def measure_all(
    found: Segmentation, depth_m: NDArray[np.float32], camera: CameraModel
) -> tuple[list[Measurement | None], list[str]]:
    """Measure each object; None where it cannot be, with the reasons."""
    objects: list[Measurement | None] = []
    reasons = []
    for number, mask in enumerate(found.masks, start=1):
        try:
            objects.append(measure_object(mask, depth_m, camera, grasping=GraspConfig()))
        except InputError as error:
            objects.append(None)
            reasons.append(f"object {number}: {error}")
    return objects, reasons


def cloud_of(objects: Sequence[Measurement | None], pixels: NDArray[np.uint8]) -> tuple[Any, Any]:
    """Return the points of the measured objects [N, 3] [m] and their colors [N, 3]."""
    clouds = [each.cloud for each in objects if each is not None]
    places = np.concatenate([np.zeros((0, 2), np.int32), *(each.pixels_xy for each in clouds)])
    points = np.concatenate([np.zeros((0, 3), np.float32), *(each.points_m for each in clouds)])
    return points, pixels[places[:, 1], places[:, 0]]
