"""`segzero bag`: one query about every image of a recorded bag, no ROS."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from segzero_cli import console
from segzero_cli.arguments import (
    RECORDING_SUFFIX,
    Parser,
    UsageError,
    check_output_path,
    positive,
)
from segzero_cli.bag.annotations import SUFFIX, AnnotationWriter
from segzero_cli.bag.depth import BagDepth, open_depth
from segzero_cli.bag.reader import BagImage, BagTopic, open_topic
from segzero_cli.bag.video import Video
from segzero_cli.segment import to_json
from segzero_core.errors import InputError, ReasoningError, SegZeroError
from segzero_core.images.files import save_image
from segzero_core.images.lettering import add_caption
from segzero_core.images.overlay import draw_overlay
from segzero_core.images.palette import Color, choose_colors
from segzero_core.prompt import clean_query
from segzero_core.types import Result

VIDEO_NAME, MASKS_NAME = "overlay.mp4", "masks"
JSON_NAME, ROWS_NAME = "result.json", "result.jsonl"
_ANSWER_KEYS = ("thinking", "completion", "size_wh", "objects", "timings", "answered_by", "model")


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero bag",
        examples=[
            'demo/clip.mcap --topic /camera/color/image_raw --query "the red mug" --out found',
            'demo/clip.mcap --topic /camera/color/image_raw --query "the red mug" --out found'
            " --rerun found.rrd --depth /camera/depth/image_raw",
        ],
        description="Ask one query about the images of a recorded bag (mcap or sqlite3).",
        epilog=f"Writes into OUT: {MASKS_NAME}/NUMBER.png (16 bits; 0 background, k object k),"
        f" {VIDEO_NAME}, one line for each image in {ROWS_NAME} as soon as it is answered, and"
        f" {JSON_NAME} at the end. An image or answer that cannot be used is a line with its"
        " error; the others are still answered. Ctrl-C keeps what is done. Exit code 2 when"
        " nothing could be answered.",
    )
    parser.add_argument("bag", metavar="BAG", type=Path, help="folder, or a .mcap or .db3 file")
    parser.add_argument("--topic", required=True, help="of sensor_msgs Image or CompressedImage")
    parser.add_argument("--query", required=True, help='what to find, such as "the red mug"')
    parser.add_argument("--out", required=True, type=Path, help="folder; it is made if missing")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="each N-th image")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N images")
    parser.add_argument("--no-video", action="store_true", help=f"write no {VIDEO_NAME}")
    parser.add_rerun_argument()
    parser.add_argument(
        "--foxglove",
        type=Path,
        metavar="OUT.mcap",
        help="write the images with annotations for Foxglove; a file that is there is replaced",
    )
    parser.add_argument(
        "--depth",
        metavar="TOPIC",
        help="of sensor_msgs/Image, registered to the camera: objects in space, in the recording",
    )
    parser.add_argument(
        "--camera-info", metavar="TOPIC", help="default: camera_info beside the images"
    )
    parser.add_model_arguments()
    parser.add_fallback_argument()
    parser.add_device_argument()
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero bag` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    query = clean_query(arguments.query)
    if arguments.depth and not arguments.rerun:
        raise UsageError("--depth is for the recording; give --rerun too")
    with ExitStack() as stack:
        topic = stack.enter_context(open_topic(arguments.bag, arguments.topic))
        # Everything that can be refused without a model is refused before loading one.
        depth = _open_depth(stack, arguments) if arguments.depth else None
        if arguments.rerun:
            from segzero_cli.bag.recorder import BagRecorder

            check_output_path(arguments.rerun, RECORDING_SUFFIX)
        if arguments.foxglove:
            check_output_path(arguments.foxglove, SUFFIX)
        try:
            (arguments.out / MASKS_NAME).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {arguments.out}: cannot be made: {error}") from error
        from segzero_core.pipeline import SegZero

        console.quieten_libraries()
        model = SegZero.load(
            arguments.model,
            fallbacks=arguments.fallback,
            segmenter=arguments.segmenter,
            device=arguments.device,
        )
        recorders: list[Any] = []
        if arguments.rerun:
            recorders.append(stack.enter_context(BagRecorder(arguments.rerun, query, depth)))
        if arguments.foxglove:
            writer = AnnotationWriter(arguments.foxglove, arguments.topic)
            recorders.append(stack.enter_context(writer))
        rows: list[dict[str, Any]] = []
        try:
            _answer_all(model, query, topic, arguments, rows, recorders)
        finally:  # also after Ctrl-C or a damaged bag: what is answered is kept
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
            _write(arguments.out / JSON_NAME, json.dumps(record, indent=1) + "\n", "w")
            found = sum(bool(row.get("objects")) for row in rows)
            print(
                f"{answered} of {len(rows)} images answered, {found} with objects:"
                f" {arguments.out}",
                flush=True,
            )
    if not answered:
        first = rows[0]["error"] if rows else "the bag holds fewer messages than it says"
        raise InputError(f"nothing could be answered; the first: {first}")
    return 0


def _open_depth(stack: ExitStack, arguments: argparse.Namespace) -> BagDepth:
    beside = arguments.topic.removesuffix("/compressed").rpartition("/")[0]
    camera_info = arguments.camera_info or f"{beside}/camera_info"
    return stack.enter_context(open_depth(arguments.bag, arguments.depth, camera_info))


def _answer_all(
    model: Any,
    query: str,
    topic: BagTopic,
    arguments: argparse.Namespace,
    rows: list[dict[str, Any]],
    recorders: Sequence[Any],
) -> None:
    """Ask about each image; write its mask, frame and row at once, and append the row."""
    total = len(range(0, topic.count, arguments.every)[: arguments.limit])
    video = None if arguments.no_video else Video(arguments.out / VIDEO_NAME)
    lines = arguments.out / ROWS_NAME
    colors: list[Color] = []
    _write(lines, "", "w")
    try:
        for image in topic.images(arguments.every, arguments.limit):
            row, result = _answer(model, query, image)
            drawn, thinking = image.pixels, ""
            if result is not None and image.pixels is not None:
                row["mask"] = f"{MASKS_NAME}/{image.number:06d}.png"
                save_image(arguments.out / row["mask"], result.segmentation.instance_ids())
                colors = choose_colors(image.pixels, result.segmentation.masks, colors)
                prompts, thinking = result.reasoning.prompts, result.reasoning.thinking
                drawn = draw_overlay(image.pixels, result.segmentation, prompts, colors=colors)
            for recorder in recorders:
                recorder.write(image, result, row.get("error", ""))
            if video is not None and drawn is not None:
                video.add(add_caption(drawn, query, thinking, is_fixed=True), image.stamp_ns)
            _write(lines, json.dumps(row) + "\n", "a")
            rows.append(row)
            outcome = row.get("error") or f"{len(row['objects'])} objects"
            line = f"{len(rows)}/{total}: {console.printable(outcome)}"
            print(line, file=sys.stderr, flush=True)
    finally:
        if video is not None:
            video.close()


def _answer(model: Any, query: str, image: BagImage) -> tuple[dict[str, Any], Result | None]:
    """Return the row of an image, and its result where there is one."""
    row: dict[str, Any] = {
        "number": image.number,
        "stamp_ns": image.stamp_ns,
        "recorded_ns": image.recorded_ns,
        "frame_id": image.frame_id,
    }
    if image.pixels is None:
        return row | {"error": image.error}, None
    try:
        result = model.segment(image.pixels, query)
    except ReasoningError as error:
        return row | {"error": str(error), "completion": error.completion}, None
    except SegZeroError as error:
        return row | {"error": str(error)}, None
    answer = to_json(result)
    return row | {name: answer[name] for name in _ANSWER_KEYS}, result


def _write(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}") from error
