"""The demo: a recorded clip is played to the running node, one question of each kind is asked.

    make demo                           all six kinds; exit code 0 only if every answer is right
    make demo QUERY="the red mug"       something else, about the first picture

The node runs in a process and a ROS domain of its own. Overlay, mask and result of each question
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image as PilImage

from segzero_cli.console import printable
from segzero_cli.demo.clip import TOPICS, read_clip
from segzero_cli.main import Parser
from segzero_core.errors import ConfigError, SegZeroError
from segzero_core.geometry import MATCH_IOU, mask_iou
from segzero_core.prompt import clean_query
from segzero_ros.ros_domain import isolated_environment

try:
    from segzero_cli.demo.ros_graph import CameraAndPerson, NodeProcess
    from segzero_ros.conversions.images import array_from_msg
    from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
except ModuleNotFoundError as missing:
    raise ConfigError(
        f"the demo needs ROS 2 and the compiled interfaces, but there is no {missing.name}; "
        "run `make setup` in a checkout, or source a workspace that holds segzero_ros"
    ) from missing

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from numpy.typing import NDArray

    from segzero_cli.demo.clip import Shot

CLIP: Final = Path("demo/clip.mcap")
LOAD_TIMEOUT_S: Final = 180.0
ANSWER_TIMEOUT_S: Final = 120.0
TICK_S: Final = 1.0
PICTURE_TIMEOUT_S: Final = 120.0
"""Pictures travel best effort and may be lost; so long a query is asked again."""


class DemoError(SegZeroError):
    """Why the demo cannot go on."""


@dataclass(frozen=True, eq=False)
class Reply:
    """What the node published about one query."""

    result: SegmentationResult
    mask: NDArray[np.uint8] | None
    overlay: NDArray[np.uint8] | None


class Terminal:
    """Writes the stream of thinking, and a line that tells how long one waits already."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._stage = -1

    def line(self, text: str = "") -> None:
        """Write a whole line."""
        print(text, flush=True)

    def waiting(self, what: str, seconds: float) -> None:
        """Tell that one waits; on a terminal the line is overwritten."""
        if self._is_terminal:
            print(f"\r{what} … {seconds:.0f} s", end="", flush=True)
        elif seconds > 1 and round(seconds) % 10 == 0:
            print(f"{what} … {seconds:.0f} s", flush=True)

    def waited(self) -> None:
        """End the line of `waiting`."""
        if self._is_terminal:
            print("\r\033[K", end="", flush=True)

    def trace(self, msg: ReasoningTrace) -> None:
        """Write the next piece of the model's text."""
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


def wait_until_ready(
    heard: queue.SimpleQueue[tuple[str, Any]], node: NodeProcess, terminal: Terminal
) -> None:
    """Wait until the model is loaded.

    Raises:
        DemoError: It cannot be loaded.
    """
    began = time.monotonic()
    while True:
        seconds = time.monotonic() - began
        if node.has_ended or seconds > LOAD_TIMEOUT_S:
            what = "ended" if node.has_ended else f"is not ready after {seconds:.0f} s"
            raise DemoError(f"the node {what}; it said:\n{node.last_lines()}")
        try:
            topic, msg = heard.get(timeout=TICK_S)
        except queue.Empty:
            terminal.waiting("loading the model", seconds)
            continue
        if topic == "status" and msg.state == Status.ERROR:
            raise DemoError(msg.detail)
        if topic == "status" and msg.state == Status.READY:
            terminal.waited()
            terminal.line(f"model {msg.model} ready after {seconds:.1f} s ({msg.encoder_backend})")
            return


def ask(
    graph: CameraAndPerson, node: NodeProcess, shot: Shot, text: str, terminal: Terminal
) -> Reply:
    """Ask about a shot and follow the answer.

    A picture of 640x480 is larger than the middleware's shared memory, and on a busy machine
    half of them are lost: the node then answers about the shot before, or has none.

    Raises:
        DemoError: No answer came, or not about this shot.
    """
    stamp = shot.camera["color"].header.stamp
    missing = (SegmentationResult.NO_IMAGE, SegmentationResult.STALE_IMAGE)
    began = time.monotonic()
    while time.monotonic() - began < PICTURE_TIMEOUT_S:
        graph.play(shot)
        while not graph.heard.empty():
            graph.heard.get()  # what is left of the query before
        graph.ask(text)
        reply = _follow(graph.heard, node, stamp, terminal)
        if reply.result.header.stamp == stamp and reply.result.error_code not in missing:
            return reply
    raise DemoError(
        f"the picture did not reach the node within {PICTURE_TIMEOUT_S:.0f} s; its last answer "
        f"was about another: {reply.result.error_msg or reply.result.completion}"
    )


def _follow(
    heard: queue.SimpleQueue[tuple[str, Any]], node: NodeProcess, stamp: Time, terminal: Terminal
) -> Reply:
    """Collect what is published about one query until its result and overlay are there."""
    got: dict[str, Any] = {}
    began = time.monotonic()
    while True:
        seconds = time.monotonic() - began
        if node.has_ended or seconds > ANSWER_TIMEOUT_S:
            raise DemoError(
                f"no answer after {seconds:.0f} s; the node said:\n{node.last_lines()}"
            )
        try:
            topic, msg = heard.get(timeout=TICK_S)
        except queue.Empty:
            continue
        if topic == "reasoning":
            if msg.header.stamp == stamp:  # not what it thinks about the picture before
                terminal.trace(msg)
            got["done"] = got.get("done") or msg.done
        elif topic in ("mask", "overlay", "result"):
            got[topic] = msg
        result = got.get("result")
        wanted = ("done", "mask", "overlay") if result and not result.error_code else ("done",)
        if result is not None and all(got.get(key) for key in wanted) and _agree(got):
            pictures = {key: array_from_msg(got[key]) for key in ("mask", "overlay") if key in got}
            return Reply(result, pictures.get("mask"), pictures.get("overlay"))


def _agree(got: dict[str, Any]) -> bool:
    """Whether the pictures belong to the result; those of an earlier try may come late."""
    stamp = got["result"].header.stamp
    return all(got[key].header.stamp == stamp for key in ("mask", "overlay") if key in got)


def verdict(shot: Shot, reply: Reply, *, with_truth: bool) -> dict[str, Any]:
    """Judge a reply, for people and for demo/result.json."""
    result = reply.result
    right = result.error_code == SegmentationResult.OK
    record: dict[str, Any] = {
        "kind": shot.question.kind if with_truth else "own",
        "query": result.query,
        "error_code": result.error_code,
        "error_msg": result.error_msg,
        "objects": [
            {
                "box_xyxy": [int(edge) for edge in instance.box_xyxy],
                "points_xy": [[point.x, point.y] for point in instance.points],
                "score": round(instance.score, 4),
                "area_px": instance.area_px,
            }
            for instance in result.instances
        ],
        "thinking": result.thinking,
        "completion": result.completion,
        "model": result.model,
        "model_hash": result.model_hash,
        "image_stamp": [result.header.stamp.sec, result.header.stamp.nanosec],
        "total_ms": round(result.total_ms, 1),
        "tokens": result.tokens,
    }
    if with_truth:
        record["scene_seed"] = shot.scene.seed
        overlap = 0.0 if reply.mask is None else mask_iou(reply.mask > 0, shot.truth())
        record["iou"] = round(overlap, 4)
        # Nothing may be said to be there where nothing fits, not even an empty mask.
        right &= overlap >= MATCH_IOU and bool(result.instances) == bool(shot.question.ids)
    record["right"] = right
    return record


def save(folder: Path, name: str, reply: Reply, record: dict[str, Any]) -> None:
    """Write one question's pictures and result."""
    (folder / f"result{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    for kind, pixels in (("overlay", reply.overlay), ("mask", reply.mask)):
        path = folder / f"{kind}{name}.png"
        path.unlink(missing_ok=True)
        if pixels is not None:
            PilImage.fromarray(np.ascontiguousarray(pixels)).save(path)


def describe(record: dict[str, Any]) -> str:
    """Say in one line what came of a question."""
    mark = "✓" if record["right"] else "✗"
    if record["error_code"]:
        return f"  {mark} error {record['error_code']}: {record['error_msg']}"
    count = len(record["objects"])
    found = f"{count} object{'s' * (count != 1)}" if count else "nothing matches"
    compared = f", IoU {record['iou']:.2f}" if "iou" in record and count else ""
    return f"  {mark} {found}{compared}, {record['total_ms'] / 1000:.1f} s"


def questions(shots: list[Shot], query: str | None) -> list[tuple[Shot, str, bool]]:
    """List what is asked: shot, text, and whether the truth is known."""
    if query:
        return [(shots[0], query, False)]
    return [(shot, shot.question.text, True) for shot in shots]


def run(
    clip: Path,
    query: str | None,
    out: Path,
    node_command: Callable[[], Sequence[str]],
) -> bool:
    """Start the node, ask, and write what came.

    Returns:
        Whether everything was right.

    Raises:
        DemoError: The demo could not be carried out.
    """
    terminal = Terminal()
    try:
        shots = read_clip(clip)
    except (OSError, ValueError) as error:
        raise DemoError(f"cannot play the clip: {error}") from error
    out.mkdir(parents=True, exist_ok=True)
    with isolated_environment() as isolation:
        os.environ.update(isolation)  # before rclpy starts in this process
        domain = isolation["ROS_DOMAIN_ID"]
        terminal.line(f"segzero demo, ROS domain {domain} of this machine only")
        node = NodeProcess(node_command(), dict(os.environ), out / "node.log")
        try:
            records = ask_all(node, shots, query, out, terminal)
        finally:
            exit_code = node.end()
    right = sum(record["right"] for record in records)
    everything = {"right": right, "asked": len(records), "queries": records}
    (out / "result.json").write_text(json.dumps(everything, indent=1) + "\n")
    terminal.line(f"\n{right} of {len(records)} right; pictures and results are in {out}/")
    if exit_code:
        raise DemoError(f"the node ended with exit code {exit_code}:\n{node.last_lines()}")
    return right == len(records)


def ask_all(
    node: NodeProcess, shots: list[Shot], query: str | None, out: Path, terminal: Terminal
) -> list[dict[str, Any]]:
    """Ask one question after the other, write what came, and return the verdicts.

    Raises:
        DemoError: The node cannot be asked.
    """
    records = []
    with CameraAndPerson() as graph:
        graph.play(shots[0])
        wait_until_ready(graph.heard, node, terminal)
        if not graph.is_heard():
            raise DemoError(f"the node does not hear the camera; it said:\n{node.last_lines()}")
        asked = questions(shots, query)
        for number, (shot, text, with_truth) in enumerate(asked, start=1):
            kind = f"{shot.question.kind}: " if with_truth else ""
            terminal.line(f"\n[{number}/{len(asked)}] {kind}“{printable(text)}”")
            reply = ask(graph, node, shot, text, terminal)
            record = verdict(shot, reply, with_truth=with_truth)
            records.append(record)
            terminal.line(describe(record))
            if with_truth:
                save(out, f"_{record['kind']}", reply, record)
            if number == 1:
                save(out, "", reply, record)
    return records


def node_command(model: str | None) -> list[str]:
    """Build the command that starts the node on the clip's camera."""
    command = [sys.executable, "-m", "segzero_ros.main", "--ros-args"]
    command += ["-r", f"image:={TOPICS['color']}"]
    return command + (["-p", f"model:={model}"] if model else [])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the demo's arguments."""
    parser.add_argument("query", nargs="?", help="ask this instead of the clip's six questions")
    parser.add_argument("--model", help="instead of the bundled one")
    parser.add_argument(
        "--clip", type=Path, default=CLIP, help="recorded by segzero_cli.demo.record"
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results")


def main(argv: list[str] | None = None) -> int:
    """Command line; the query may also stand in the environment, as `make` passes it.

    Returns:
        0 when everything was right, 1 when an answer was wrong.

    Raises:
        DemoError: The demo could not be carried out.
        InputError: The query cannot be asked.
    """
    parser = Parser(
        prog="segzero demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    query = arguments.query or os.environ.get("QUERY") or None
    if query is not None:
        clean_query(query)  # refused before anything is started
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one of them
            # As Ctrl-C: the node must not outlive the demo.
            signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    right = run(arguments.clip, query, arguments.out, lambda: node_command(arguments.model))
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"{time.monotonic() - began:.0f} s, peak memory of the node {peak_gb:.1f} GB")
    return 0 if right else 1
