"""`segzero bag`: one query about every picture of a recorded bag, no ROS."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_cli import console
from segzero_cli.bag.reader import BagPicture, BagTopic, open_topic
from segzero_cli.main import Parser
from segzero_cli.segment import to_json
from segzero_core.errors import ConfigError, InputError, ReasoningError
from segzero_core.images.files import save_image
from segzero_core.images.overlay import draw_overlay
from segzero_core.prompt import clean_query
from segzero_core.types import Result, RgbImage

VIDEO_NAME, JSON_NAME, MASKS_NAME = "overlay.mp4", "result.json", "masks"
_MAX_PLAYED_FPS: Final = 30.0
_ALONE_FPS: Final = 1.0
"""Of a video of one picture, or of pictures without stamps."""


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero bag",
        description="Ask one query about the pictures of a recorded bag (mcap or sqlite3).",
        epilog=f"Writes {MASKS_NAME}/NUMBER.png (0 background, k object k), {VIDEO_NAME} and"
        f" {JSON_NAME} into OUT. A picture or reply that cannot be read is told in the json and"
        " does not stop the rest. Exit code 2 when nothing could be answered.",
    )
    parser.add_argument("bag", metavar="BAG", type=Path, help="folder, or a .mcap or .db3 file")
    parser.add_argument("--topic", required=True, help="of sensor_msgs Image or CompressedImage")
    parser.add_argument("--query", required=True, help='what to find, such as "the red mug"')
    parser.add_argument("--out", required=True, type=Path, help="folder; it is made if missing")
    parser.add_argument(
        "--every", type=_positive, default=1, metavar="N", help="each N-th picture"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="at most so many pictures")
    parser.add_argument("--no-video", action="store_true", help=f"write no {VIDEO_NAME}")
    parser.add_argument("--model", default="tabletop", help="tabletop, a folder, or a Hub id")
    parser.add_argument("--segmenter", help="folder or Hub id, in place of the model's own")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:1")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def main(argv: Sequence[str]) -> int:
    """Run `segzero bag` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    query = clean_query(arguments.query)
    with open_topic(arguments.bag, arguments.topic) as topic:
        # Everything that can be refused without a model is refused before loading one.
        _make_folder(arguments.out / MASKS_NAME)
        video = None if arguments.no_video else Video(arguments.out / VIDEO_NAME)
        from segzero_core.pipeline import SegZero

        console.quieten_libraries()
        model = SegZero.load(
            arguments.model, segmenter=arguments.segmenter, device=arguments.device
        )
        rows = _answer_all(model, query, topic, arguments, video)
    answered = sum("error" not in row for row in rows)
    record = {
        "bag": str(arguments.bag),
        "topic": arguments.topic,
        "query": query,
        "pictures_in_bag": topic.count,
        "asked": len(rows),
        "answered": answered,
        "pictures": rows,
    }
    try:
        text = json.dumps(record, indent=1) + "\n"
        (arguments.out / JSON_NAME).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{arguments.out / JSON_NAME}: cannot be written: {error}") from error
    found = sum(bool(row.get("objects")) for row in rows)
    print(f"{answered} of {len(rows)} pictures answered, {found} with objects: {arguments.out}")
    if not answered:
        first = rows[0]["error"] if rows else "the bag holds fewer messages than it says"
        raise InputError(f"nothing could be answered; the first: {first}")
    return 0


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be made: {error}") from error


def _answer_all(
    model: Any, query: str, topic: BagTopic, arguments: Any, video: Video | None
) -> list[dict[str, Any]]:
    """Ask about each picture, and write what came of it at once."""
    rows: list[dict[str, Any]] = []
    total = -(-topic.count // arguments.every)
    total = min(total, arguments.limit or total)
    try:
        for picture in topic.pictures(arguments.every, arguments.limit):
            row, result = _answer(model, query, picture)
            if result is not None and picture.pixels is not None:
                name = f"{MASKS_NAME}/{picture.number:06d}.png"
                save_image(arguments.out / name, _label_image(result))
                row["mask"] = name
            if video is not None and picture.pixels is not None:
                video.add(_drawn(picture.pixels, result), picture.stamp_ns)
            rows.append(row)
            told = row.get("error") or f"{len(row['objects'])} objects"
            print(f"{len(rows)}/{total}: {console.printable(told)}", file=sys.stderr, flush=True)
    finally:
        if video is not None:
            video.close()
    return rows


def _answer(model: Any, query: str, picture: BagPicture) -> tuple[dict[str, Any], Result | None]:
    row: dict[str, Any] = {
        "number": picture.number,
        "stamp_ns": picture.stamp_ns,
        "recorded_ns": picture.recorded_ns,
        "frame_id": picture.frame_id,
    }
    if picture.pixels is None:
        return row | {"error": picture.error}, None
    try:
        result = model.segment(picture.pixels, query)
    except ReasoningError as error:
        return row | {"error": str(error), "completion": error.completion}, None
    except InputError as error:
        return row | {"error": str(error)}, None
    told = to_json(result)
    kept = ("thinking", "completion", "size_wh", "objects", "timings", "model")
    return row | {name: told[name] for name in kept}, result


def _label_image(result: Result) -> NDArray[np.uint8]:
    return np.minimum(result.segmentation.instance_ids(), 255).astype(np.uint8)


def _drawn(pixels: RgbImage, result: Result | None) -> RgbImage:
    if result is None:
        return pixels
    return draw_overlay(pixels, result.segmentation, result.reasoning.prompts)


class Video:
    """Writes an mp4 (MPEG-4 Part 2) by OpenCV, as fast as the pictures were taken.

    The rate is known once the second picture is there; until then the first one waits.

    Raises:
        ConfigError: OpenCV is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import cv2
        except ModuleNotFoundError as error:
            raise ConfigError(
                "the overlay video needs OpenCV; pip install 'segzero[bags]', or give --no-video"
            ) from error
        self._cv2: Any = cv2
        self._path = path
        self._writer: Any = None
        self._first: tuple[RgbImage, int] | None = None
        self._size_wh = (0, 0)

    def add(self, pixels: RgbImage, stamp_ns: int) -> None:
        """Add a picture, fitted to the size of the first.

        Raises:
            InputError: The file cannot be written.
        """
        if self._writer is None and self._first is None:
            self._first = (pixels, stamp_ns)
            return
        if self._first is not None:
            first, first_ns = self._first
            seconds = (stamp_ns - first_ns) / 1e9
            self._open(first, 1 / seconds if seconds > 0 else _ALONE_FPS)
        self._write(pixels)

    def _open(self, pixels: RgbImage, fps: float) -> None:
        height, width = pixels.shape[:2]
        # The coder takes even sizes only.
        self._size_wh = (max(2, width // 2 * 2), max(2, height // 2 * 2))
        code = self._cv2.VideoWriter_fourcc(*"mp4v")
        fps = round(min(max(fps, 0.1), _MAX_PLAYED_FPS), 3)
        self._writer = self._cv2.VideoWriter(str(self._path), code, fps, self._size_wh)
        if not self._writer.isOpened():
            raise InputError(f"{self._path}: cannot be written as a video; give --no-video")
        self._first = None
        self._write(pixels)

    def _write(self, pixels: RgbImage) -> None:
        if pixels.shape[1::-1] != self._size_wh:
            pixels = self._cv2.resize(pixels, self._size_wh)
        self._writer.write(np.ascontiguousarray(pixels[..., ::-1]))

    def close(self) -> None:
        """End the file; a single picture becomes a video of one second."""
        if self._first is not None:
            self._open(self._first[0], _ALONE_FPS)
        if self._writer is not None:
            self._writer.release()
            self._writer = None
