"""Writes the images and answers of a bag as a recording; see `segzero_cli.recording`."""

from __future__ import annotations

from pathlib import Path

from segzero_cli.bag.depth import BagDepth, cloud_of, measure_all
from segzero_cli.bag.reader import BagImage
from segzero_cli.recording import Recording
from segzero_core.errors import InputError
from segzero_core.types import Result


class BagRecorder(Recording):
    """Records images at their stamps; where a camera gives none, when they were recorded.

    Args:
        path: Of the file.
        query: What is asked about all images.
        depth: Of the bag, for objects in space.
    """

    def __init__(self, path: Path, query: str, depth: BagDepth | None) -> None:
        super().__init__("stamp", with_space=depth is not None, path=path)
        self._query = query
        self._depth = depth

    def write(self, image: BagImage, result: Result | None, error: str) -> None:
        """Write an image and its answer, or why there is none."""
        self.at(stamp_ns=image.stamp_ns or image.recorded_ns, frame=image.number)
        if image.pixels is not None:
            self.image(image.pixels)
        if result is None:
            self.clear()
            self.note("answer", f"no answer: {error}", "ERROR")
            return
        self.note("query", self._query)
        self.thinking(result.reasoning.thinking)
        self.result(result)
        if self._depth is not None:
            self._measure(self._depth, image, result)

    def _measure(self, depth: BagDepth, image: BagImage, result: Result) -> None:
        assert image.pixels is not None
        try:
            depth_m = depth.at(image.stamp_ns)
            if depth_m.shape != image.pixels.shape[:2]:
                raise InputError(f"depth is {depth_m.shape[::-1]}, the image {result.size_wh}")
        except InputError as error:
            self.clear_space()
            self.warn(f"no objects in space: {error}")
            return
        self.axes(z_up=False)
        self.camera(depth.camera)
        self.depth(depth_m)
        objects, reasons = measure_all(result.segmentation, depth_m, depth.camera)
        self.space([None if each is None else (each.box, each.grasps) for each in objects])
        self.cloud(*cloud_of(objects, image.pixels))
        for reason in reasons:
            self.warn(reason)
