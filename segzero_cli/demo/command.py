"""The demo: plays a recorded clip to the running node and asks one query of each kind.

    make demo                           all six kinds; exit code 0 only if every answer is right
    make demo QUERY="the red mug"       another query, about the first image

The node runs in a process and a ROS domain of its own. Overlay, mask and result of each query
are written to the folder demo/.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_cli.arguments import Parser
from segzero_cli.demo.clip import TOPICS, Shot, clip_of, read_clip
from segzero_core.errors import ConfigError, SegZeroError, printable
from segzero_core.geometry import MATCH_IOU, mask_iou
from segzero_core.images.files import save_image
from segzero_core.images.lettering import add_caption
from segzero_core.prompt import clean_query
from segzero_core.terminal.progress_bar import ProgressBar
from segzero_ros.ros_domain import isolated_environment

try:
    from builtin_interfaces.msg import Time

    from segzero_cli.demo.ros_graph import DemoGraph, NodeProcess
    from segzero_core.images.encodings import array_from_msg
    from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
except ModuleNotFoundError as missing:
    raise ConfigError(
        f"the demo needs ROS 2 and the compiled interfaces, but there is no {missing.name}; "
        "run `make setup` in a checkout, or source a workspace that holds segzero_ros"
    ) from missing

LOAD_TIMEOUT_S: Final = 180.0
ANSWER_TIMEOUT_S: Final = 120.0
TICK_S: Final = 1.0
IMAGE_TIMEOUT_S: Final = 120.0
"""Images travel best effort and may be lost; for this long a query is asked again."""


class DemoError(SegZeroError):
    """The demo cannot be carried out."""


@dataclass(frozen=True, eq=False)
class DemoAnswer:
    """What the node published about one query."""

    result: SegmentationResult
    mask: NDArray[Any] | None
    overlay: NDArray[Any] | None


class TraceWriter:
    """Prints the reasoning as it streams in, each stage on a line of its own."""

    def __init__(self) -> None:
        self._stage = -1

    def write(self, msg: ReasoningTrace) -> None:
        """Print the next part of the model's text."""
        names = {ReasoningTrace.THINKING: "thinking", ReasoningTrace.ANSWERING: "answer"}
        if msg.delta:
            if msg.stage in names and msg.stage != self._stage:
                start = "" if self._stage == -1 else "\n"
                print(f"{start}  {names[msg.stage]:>8} │ ", end="")
                self._stage = msg.stage
            text = printable(msg.delta).replace("\n", "\n           │ ")
            print(text, end="", flush=True)
        if msg.done:
            print("" if self._stage == -1 else "\n", end="", flush=True)
            self._stage = -1


def published(
    graph: DemoGraph, node: NodeProcess, limit_s: float, late: str
) -> Iterator[tuple[str, Any]]:
    """Yield what the node publishes, or an empty topic each second, until it ends or is late."""
    end_s = time.monotonic() + limit_s
    while not node.has_ended and time.monotonic() < end_s:
        try:
            yield graph.messages.get(timeout=TICK_S)
        except queue.Empty:
            yield "", None
    what = "the node ended" if node.has_ended else f"{late} after {limit_s:.0f} s"
    raise DemoError(f"{what}; it printed:\n{node.last_lines()}")


def wait_until_ready(graph: DemoGraph, node: NodeProcess) -> None:
    """Wait until the model is loaded; a DemoError where it cannot be."""
    began = time.monotonic()
    # On a terminal only.
    with ProgressBar(
        desc="loading the model", bar_format="{desc} … {elapsed}", leave=False, disable=None
    ) as waiting:
        for topic, msg in published(graph, node, LOAD_TIMEOUT_S, "the node is not ready"):
            waiting.refresh()
            if topic == "status" and msg.state == Status.ERROR:
                raise DemoError(msg.detail)
            if topic == "status" and msg.state == Status.READY:
                break
    seconds = time.monotonic() - began
    _print(f"model {msg.model} ready after {seconds:.1f} s ({msg.encoder_backend})")


def ask(graph: DemoGraph, node: NodeProcess, shot: Shot, text: str) -> DemoAnswer:
    """Ask about a shot and print the reasoning; a DemoError where no answer about it comes.

    An image of 640x480 is larger than the middleware's shared memory, and on a busy machine half
    of them are lost: the node then answers about the previous shot, or has no image.
    """
    stamp = shot.camera["color"].header.stamp
    missing = (SegmentationResult.NO_IMAGE, SegmentationResult.STALE_IMAGE)
    began = time.monotonic()
    while time.monotonic() - began < IMAGE_TIMEOUT_S:
        graph.play(shot)
        while not graph.messages.empty():
            graph.messages.get()  # what is left of the previous query
        graph.ask(text)
        answer = _follow(graph, node, stamp)
        if answer.result.header.stamp == stamp and answer.result.error_code not in missing:
            return answer
    raise DemoError(
        f"the image did not reach the node within {IMAGE_TIMEOUT_S:.0f} s; its last answer "
        f"was about another: {answer.result.error_msg or answer.result.completion}"
    )


def _follow(graph: DemoGraph, node: NodeProcess, stamp: Time) -> DemoAnswer:
    """Collect what is published about one query until its result and overlay are there."""
    received: dict[str, Any] = {}
    traces, is_done = TraceWriter(), False
    for topic, msg in published(graph, node, ANSWER_TIMEOUT_S, "the node gave no answer"):
        if topic == "reasoning":
            if msg.header.stamp == stamp:  # not the reasoning about the previous image
                traces.write(msg)
            is_done = is_done or msg.done
        elif topic in ("mask", "overlay", "result"):
            received[topic] = msg
        result = received.get("result")
        if result is None or not is_done:
            continue
        # A refused query has no images; those of an earlier try may come late.
        pixels = {
            key: array_from_msg(received[key])
            for key in ("mask", "overlay")
            if key in received and received[key].header.stamp == result.header.stamp
        }
        if result.error_code or len(pixels) == 2:
            return DemoAnswer(result, pixels.get("mask"), pixels.get("overlay"))
    raise AssertionError("it ends with an answer or an error")


def verdict(shot: Shot, answer: DemoAnswer, *, with_truth: bool) -> dict[str, Any]:
    """Judge an answer; the verdict is what demo/result.json holds about it."""
    result = answer.result
    right = result.error_code == SegmentationResult.OK
    texts = ("thinking", "completion", "model", "model_hash", "tokens")
    record: dict[str, Any] = {
        "kind": shot.question.kind if with_truth else "own",
        **{name: getattr(result, name) for name in ("query", "error_code", "error_msg")},
        "objects": [
            {
                "box_xyxy": [int(edge) for edge in instance.box_xyxy],
                "points_xy": [[point.x, point.y] for point in instance.points],
                "score": round(instance.score, 4),
                "area_px": instance.area_px,
            }
            for instance in result.instances
        ],
        **{name: getattr(result, name) for name in texts},
        "image_stamp": [result.header.stamp.sec, result.header.stamp.nanosec],
        "total_ms": round(result.total_ms, 1),
    }
    if with_truth:
        record["scene_seed"] = shot.scene.seed
        iou = 0.0 if answer.mask is None else float(mask_iou(answer.mask > 0, shot.truth()))
        record["iou"] = round(iou, 4)
        # Where nothing matches, no object may be reported, not even with an empty mask.
        right &= iou >= MATCH_IOU and bool(result.instances) == bool(shot.question.ids)
    record["right"] = right
    return record


def save(folder: Path, name: str, answer: DemoAnswer, record: dict[str, Any]) -> None:
    """Write one query's images and result."""
    (folder / f"result{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    for kind, pixels in (("overlay", answer.overlay), ("mask", answer.mask)):
        path = folder / f"{kind}{name}.png"
        path.unlink(missing_ok=True)
        if pixels is not None:
            pixels = np.ascontiguousarray(pixels)
            if kind == "overlay":
                pixels = add_caption(pixels, answer.result.query, answer.result.thinking)
            save_image(path, pixels)


def describe(record: dict[str, Any]) -> str:
    """Summarize a verdict in one line."""
    mark = "✓" if record["right"] else "✗"
    if record["error_code"]:
        return f"  {mark} error {record['error_code']}: {record['error_msg']}"
    count = len(record["objects"])
    found = f"{count} object{'s' * (count != 1)}" if count else "nothing matches"
    iou = f", IoU {record['iou']:.2f}" if "iou" in record and count else ""
    return f"  {mark} {found}{iou}, {record['total_ms'] / 1000:.1f} s"


def run(
    clip: Path, query: str | None, out: Path, node_command: Callable[[], Sequence[str]]
) -> bool:
    """Start the node, ask, write the results, and return whether every answer was right."""
    try:
        shots = read_clip(clip)
    except (OSError, ValueError) as error:
        raise DemoError(f"cannot play the clip: {error}") from error
    out.mkdir(parents=True, exist_ok=True)
    with isolated_environment() as isolation:
        os.environ.update(isolation)  # before rclpy starts in this process
        _print(f"segzero demo, ROS domain {isolation['ROS_DOMAIN_ID']} of this machine only")
        node = NodeProcess(node_command(), dict(os.environ), out / "node.log")
        try:
            records = ask_all(node, shots, query, out)
        finally:
            exit_code = node.end()
    right = sum(record["right"] for record in records)
    everything = {"right": right, "asked": len(records), "queries": records}
    (out / "result.json").write_text(json.dumps(everything, indent=1) + "\n")
    _print(f"\n{right} of {len(records)} right; images and results are in {out}/")
    if exit_code:
        raise DemoError(f"the node ended with exit code {exit_code}:\n{node.last_lines()}")
    return right == len(records)


def ask_all(
    node: NodeProcess, shots: list[Shot], query: str | None, out: Path
) -> list[dict[str, Any]]:
    """Ask each shot's own query, or one of the user about the first shot; return the verdicts."""
    records = []
    with closing(DemoGraph()) as graph:
        graph.play(shots[0])
        wait_until_ready(graph, node)
        if not graph.has_subscribers():
            raise DemoError(
                f"the node has not subscribed to the camera; it printed:\n{node.last_lines()}"
            )
        asked = shots[:1] if query else shots
        for number, shot in enumerate(asked, start=1):
            kind = "" if query else f"{shot.question.kind}: "
            text = query or shot.question.text
            _print(f"\n[{number}/{len(asked)}] {kind}“{printable(text)}”")
            answer = ask(graph, node, shot, text)
            record = verdict(shot, answer, with_truth=not query)
            records.append(record)
            _print(describe(record))
            if not query:
                save(out, f"_{record['kind']}", answer, record)
            if number == 1:
                save(out, "", answer, record)
    return records


def node_command(model: str | None) -> list[str]:
    """Return the command that starts the node on the clip's camera."""
    command = [sys.executable, "-m", "segzero_ros.main", "--ros-args"]
    command += ["-r", f"image:={TOPICS['color']}"]
    return command + (["-p", f"model:={model}"] if model else [])


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero demo",
        examples=["", '"something to drive a nail with"', "--model libero"],
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("query", nargs="?", help="ask this instead of the clip's own queries")
    parser.add_argument("--model", help="instead of the bundled one")
    parser.add_argument(
        "--clip", type=Path, help="recorded by segzero_cli.demo.record (default: the model's)"
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `segzero demo`, 1 when an answer was wrong; `make` has the query in the environment."""
    arguments = build_parser().parse_args(argv)
    query = arguments.query or os.environ.get("QUERY") or None
    if query is not None:
        clean_query(query)  # refused before anything is started
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            # As Ctrl-C: the node must not outlive the demo.
            signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    clip = arguments.clip or clip_of(arguments.model)
    right = run(clip, query, arguments.out, lambda: node_command(arguments.model))
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"{time.monotonic() - began:.0f} s, peak memory of the node {peak_gb:.1f} GB")
    return 0 if right else 1


def _print(line: str) -> None:
    print(line, flush=True)
