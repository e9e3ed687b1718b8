"""Writes answers as a recording for the viewer Rerun.

What becomes which entity:

    world                     the frame in which poses are
    world/camera              the camera: intrinsics, and its pose in that frame
    world/camera/image        the image, as JPEG
    world/camera/depth        depth, of which the viewer makes a cloud
    world/camera/instances    which object each pixel belongs to, 0 for the background
    world/camera/boxes        the reasoner's boxes, with number, query and score
    world/camera/points       the reasoner's points
    world/objects/cloud       the objects' surfaces, in the colors of the image
    world/objects/boxes       the box around each object that was measured
    world/objects/grasps      a gripper at the best grasp of each
    trace/…                   query, thinking, answer and notes, as lines of a log

Objects are numbered from 1; the number is the class, so that an object has one color everywhere.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segzero_core.depth import CameraModel, Grasp, OrientedBox
from segzero_core.errors import ConfigError, InputError
from segzero_core.events import Event, Finished, ThinkingDelta
from segzero_core.images.palette import Color, choose_colors
from segzero_core.types import ObjectPrompt, Result, RgbImage

if int(np.__version__.partition(".")[0]) < 2:
    raise ConfigError(
        f"Rerun needs NumPy 2, and this environment has {np.__version__}, which a ROS "
        "distribution's cv_bridge keeps; run `make setup` without that distribution, or "
        "pip install 'segzero[rerun]' in an environment of its own"
    )
try:
    import rerun as rr
    import rerun.blueprint as rrb
except ModuleNotFoundError as missing:
    raise ConfigError(
        f"a recording needs the package {missing.name}; pip install 'segzero[rerun]'"
    ) from missing

Space: TypeAlias = tuple[OrientedBox, Sequence[Grasp]]
"""The box around an object, and its grasps, best first."""

JPEG_QUALITY: Final = 90
CONNECT_TIMEOUT_S: Final = 5.0
_LABEL_CHARS: Final = 40
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_FARTHEST_MM: Final = np.iinfo(np.uint16).max


class Recording:
    """A recording that goes to a file or a viewer; a context manager.

    Args:
        timeline: On which it is shown first; see `at`.
        with_space: Whether there will be depth.
        path: Of the file; one that is there is replaced.
        url: Of a viewer that runs, such as rerun+http://127.0.0.1:9876/proxy. Without path and
            url a viewer is started.

    Raises:
        InputError: The file cannot be written.
        ConfigError: There is no viewer.
    """

    def __init__(
        self, timeline: str, *, with_space: bool, path: Path | None = None, url: str | None = None
    ) -> None:
        self._stream = rr.RecordingStream("segzero")
        self._pixels: RgbImage | None = None  # the image written last
        self._colors: list[Color] = []  # of the objects, by their numbers
        self._unfinished = ""  # the sentence of the thinking that has not ended yet
        blueprint = _blueprint(timeline, with_space=with_space)
        try:
            if path is not None:
                self._stream.save(path, default_blueprint=blueprint)
            elif url is not None:
                self._stream.connect_grpc(url, default_blueprint=blueprint)
                self._stream.flush(timeout_sec=CONNECT_TIMEOUT_S)
            else:
                # Where pip put the viewer beside this Python; the environment may not be active.
                os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
                self._stream.spawn(default_blueprint=blueprint)
        except RuntimeError as error:  # rerun's only one
            reason = str(error).splitlines()[0]
            if path is not None:
                raise InputError(f"{path}: cannot be written: {reason}") from error
            raise ConfigError(
                f"no viewer: {reason}; start `rerun` and name it with --connect, or write a file "
                "with --save"
            ) from error

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_thinking()
        self._stream.disconnect()

    def at(
        self,
        *,
        stamp_ns: int = 0,
        elapsed_s: float | None = None,
        arrived_s: float | None = None,
        frame: int | None = None,
    ) -> None:
        """Say when what follows happened, on the timelines of these names without the unit.

        Args:
            stamp_ns: Of the camera; 0 where it gives none.
            elapsed_s: Since the query.
            arrived_s: On the clock of this machine, since 1970.
            frame: Number of the image.
        """
        self._stream.reset_time()
        if stamp_ns:
            self._stream.set_time("stamp", timestamp=np.datetime64(stamp_ns, "ns"))
        if arrived_s is not None:
            self._stream.set_time("arrived", timestamp=arrived_s)
        if elapsed_s is not None:
            self._stream.set_time("elapsed", duration=elapsed_s)
        if frame is not None:
            self._stream.set_time("frame", sequence=frame)

    def image(self, pixels: RgbImage) -> None:
        """Write the camera's image, uint8 [H, W, 3]."""
        self._pixels = pixels
        compressed = rr.Image(pixels).compress(jpeg_quality=JPEG_QUALITY)
        self._stream.log("world/camera/image", compressed)

    def camera(self, model: CameraModel) -> None:
        """Write the camera's intrinsics; Rerun knows no distortion."""
        pinhole = rr.Pinhole(
            image_from_camera=model.k,
            resolution=model.size_wh,
            camera_xyz=rr.ViewCoordinates.RDF,
        )
        self._stream.log("world/camera", pinhole)

    def pose(self, rotation: NDArray[np.float64], position_m: NDArray[np.float64]) -> None:
        """Write where the camera is: p_world = rotation · p_camera + position_m."""
        self._stream.log("world/camera", rr.Transform3D(translation=position_m, mat3x3=rotation))

    def axes(self, *, z_up: bool) -> None:
        """Say which way is up: in a robot's frame z, in the camera's own frame minus y."""
        axes = rr.ViewCoordinates.RIGHT_HAND_Z_UP if z_up else rr.ViewCoordinates.RDF
        self._stream.log("world", axes)

    def remove_camera(self) -> None:
        """Take the camera out of the space: its pose is not known any more."""
        for path in ("world/camera", "world/camera/depth"):
            self._stream.log(path, rr.Clear(recursive=False))

    def depth(self, depth_m: NDArray[np.float32]) -> None:
        """Write depth, float32 [H, W] [m], NaN where unknown, in whole millimeters."""
        millimeters = np.nan_to_num(depth_m * 1000).round().clip(0, _FARTHEST_MM).astype(np.uint16)
        self._stream.log("world/camera/depth", rr.DepthImage(millimeters, meter=1000.0))

    def answer(
        self,
        query: str,
        prompts: Sequence[ObjectPrompt],
        scores: Iterable[float],
        instance_ids: NDArray[np.uint16],
    ) -> None:
        """Write an answer about the image written last, in place of the one before.

        Where there is depth, `space` or `clear_space` is to follow.

        Args:
            query: What was asked.
            prompts: One for each object.
            scores: One for each object.
            instance_ids: [H, W], 0 for the background, k for object k.
        """
        self.end_thinking()
        name = textwrap.shorten(query, _LABEL_CHARS, placeholder=" …")
        numbers = range(1, len(prompts) + 1)
        self._choose_colors(instance_ids, numbers)
        labels = [f"{n}: {name} {score:.2f}" for n, score in zip(numbers, scores, strict=True)]
        log = self._stream.log
        log("world/camera/instances", rr.SegmentationImage(instance_ids, opacity=0.5))
        boxes = np.reshape([prompt.box.xyxy for prompt in prompts], (-1, 4))
        log(
            "world/camera/boxes",
            rr.Boxes2D(
                array=boxes, array_format=rr.Box2DFormat.XYXY, labels=labels, class_ids=numbers
            ),
        )
        points = [
            (point.xy, n)
            for n, each in zip(numbers, prompts, strict=True)
            for point in each.points
        ]
        places = np.reshape([xy for xy, _ in points], (-1, 2))
        log(
            "world/camera/points",
            rr.Points2D(places, class_ids=[n for _, n in points], radii=3, show_labels=False),
        )
        self.note("answer", f"{len(prompts)} found: {query}" if prompts else f"nothing: {query}")

    def _choose_colors(self, instance_ids: NDArray[np.uint16], numbers: range) -> None:
        """Give each number that is new a color, for the whole recording.

        The viewer takes colors only from an annotation context that holds at all times.
        """
        assert self._pixels is not None
        masks = instance_ids == np.array(numbers, np.uint16)[:, None, None]
        chosen = choose_colors(self._pixels, masks, self._colors)
        if len(chosen) > len(self._colors) or not self._colors:
            self._colors += chosen[len(self._colors) :]
            classes = [(0, "background", (0, 0, 0, 0))]
            colored = enumerate(self._colors, start=1)
            classes += [(n, f"object {n}", (*color, 255)) for n, color in colored]
            self._stream.log("world", rr.AnnotationContext(classes), static=True)

    def space(self, objects: Sequence[Space | None]) -> None:
        """Write box and best grasp of each object of the answer; None where it was not measured.

        All are in the world's frame.
        """
        measured = [(n, each) for n, each in enumerate(objects, start=1) if each is not None]
        boxes, numbers = [box for _, (box, _) in measured], [n for n, _ in measured]
        self._stream.log(
            "world/objects/boxes",
            rr.Boxes3D(
                centers=np.reshape([box.center_m for box in boxes], (-1, 3)),
                half_sizes=np.reshape([box.size_m for box in boxes], (-1, 3)) / 2,
                rotation_axis_angles=[_axis_angle(box.rotation) for box in boxes],
                labels=[f"{n}: {_centimeters(each)}" for n, (each, _) in measured],
                class_ids=numbers,
            ),
        )
        best = [(n, grasps[0]) for n, (_, grasps) in measured if grasps]
        lines = [line for _, grasp in best for line in grasp.gripper_lines_m().reshape(-1, 2, 3)]
        # A line is one of four of a gripper.
        self._stream.log(
            "world/objects/grasps",
            rr.LineStrips3D(
                lines,
                colors=[(255, 255, 255)],
                labels=[f"{n}: {grasp.score:.2f}" for n, grasp in best for _ in range(4)],
                show_labels=False,
            ),
        )

    def cloud(self, points_m: NDArray[Any], rgb: NDArray[np.uint8]) -> None:
        """Write the objects' points, [N, 3] in the world's frame, with their colors [N, 3]."""
        self._stream.log("world/objects/cloud", rr.Points3D(points_m, colors=rgb, radii=0.002))

    def clear(self) -> None:
        """Take the answer before away: nothing of it holds any more."""
        for path in ("instances", "boxes", "points"):
            self._stream.log(f"world/camera/{path}", rr.Clear(recursive=False))
        self.clear_space()

    def clear_space(self) -> None:
        """Take the objects in space away."""
        self._stream.log("world/objects", rr.Clear(recursive=True))

    def note(self, kind: str, text: str, level: str = rr.TextLogLevel.INFO) -> None:
        """Write a line of the log trace/KIND."""
        self._stream.log(f"trace/{kind}", rr.TextLog(text, level=level))

    def warn(self, text: str) -> None:
        """Write why something is not there."""
        self.note("notes", text, rr.TextLogLevel.WARN)

    def thinking(self, text: str) -> None:
        """Write thinking as it comes, a line of the log for each sentence."""
        *sentences, self._unfinished = _SENTENCE_END.split(self._unfinished + text)
        for sentence in filter(None, sentences):
            self.note("thinking", sentence)

    def end_thinking(self) -> None:
        """Write what has come of a sentence without an end."""
        if rest := self._unfinished.strip():
            self.note("thinking", rest)
        self._unfinished = ""

    def result(self, result: Result) -> None:
        """Write an answer of a model."""
        found = result.segmentation
        prompts = result.reasoning.prompts
        self.answer(result.query, prompts, found.scores, found.instance_ids())

    def follow(self, image: RgbImage, query: str, events: Iterable[Event]) -> Iterator[Event]:
        """Write the events of an answer on the timeline `elapsed`, and pass them on."""
        began_s = time.monotonic()
        self.at(elapsed_s=0.0)
        self.image(image)
        self.note("query", query)
        try:
            for event in events:
                self.at(elapsed_s=time.monotonic() - began_s)
                if isinstance(event, ThinkingDelta):
                    self.thinking(event.text)
                elif isinstance(event, Finished):
                    self.result(event.result)
                yield event
        except Exception as error:
            self.note("answer", str(error), rr.TextLogLevel.ERROR)
            raise


def _axis_angle(rotation: NDArray[np.float64]) -> rr.RotationAxisAngle:
    vector = cv2.Rodrigues(rotation)[0].ravel()
    angle = float(np.linalg.norm(vector))
    return rr.RotationAxisAngle(axis=vector / angle if angle else (0, 0, 1), radians=angle)


def _centimeters(box: OrientedBox) -> str:
    return " × ".join(f"{100 * side:.1f}" for side in box.size_m) + " cm"


def _blueprint(timeline: str, *, with_space: bool) -> rrb.Blueprint:
    """Lay out image, log, space and time."""
    drawn = ["$origin/**", "- $origin/depth"]
    if with_space:
        drawn += ["+ /world/objects/boxes", "+ /world/objects/grasps"]
    views: rrb.Container = rrb.Vertical(
        rrb.Spatial2DView(origin="/world/camera", contents=drawn, name="Image"),
        rrb.TextLogView(origin="/trace", name="Trace"),
        row_shares=[2, 1],
    )
    if with_space:
        # From beside the camera, at what lies before it: else the eye is as far as the background.
        eye = rrb.EyeControls3D(position=(0.5, -0.6, -0.2), look_target=(0, 0.1, 0.8))
        space = rrb.Spatial3DView(origin="/world", name="Space", eye_controls=eye)
        views = rrb.Horizontal(views, space)
    panels = [panel(state="collapsed") for panel in (rrb.BlueprintPanel, rrb.SelectionPanel)]
    time_panel = rrb.TimePanel(timeline=timeline, state="collapsed")
    return rrb.Blueprint(views, *panels, time_panel)
