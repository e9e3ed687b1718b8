"""`make grasp`: the node sees a simulated table, gets a question, and a gripper lifts the object.

    make grasp                                       # the first question of the default table
    make grasp SEED=1600012 QUERY="the green can"
    python -m examples.grasp_cell --film docs/grasp.gif

Colour, depth and calibration of the cell's camera go over ROS to the node, which runs as a process
of its own; the question and the answer, with its grasps, go over the action `~/segment`. The
client is that of `examples/grasp_client.py`, and the gripper is `worlds.tabletop.cell`.

Exit code 0: an object that was meant is 10 cm up and stays there for a second, and nothing else
rose; or nothing fits and nothing moved. 1: not so. 2: it could not be tried. What a question means
is known for those of the table itself (`--list` shows them); of any other, it is taken to mean the
object that the answer's mask shows.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from examples.film import Film
from examples.grasp_client import Client, Place, Step, answer_from_msg, decide, pick
from segzero_cli.demo.ros_graph import NodeProcess
from segzero_core.errors import SegZeroError, printable
from segzero_core.images.encodings import array_from_msg
from segzero_core.prompt import clean_query
from segzero_ros import qos
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.executor import ExecutorThread
from segzero_ros.msg import SegmentationResult, Status
from segzero_ros.ros_domain import isolated_environment
from worlds.tabletop.camera import Camera, RenderedImage
from worlds.tabletop.cell import Cell, MotionError
from worlds.tabletop.hand import GRASP_SETTINGS
from worlds.tabletop.render import Stage, stage_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED: Final = 1_600_000
FRAME_ID: Final = "camera_color_optical_frame"
TOPICS: Final = {
    "image": "/camera/color/image_raw",
    "depth/image": "/camera/depth/image_raw",
    "camera_info": "/camera/color/camera_info",
}
FRAME_RATE_HZ: Final = 5.0
LOAD_TIMEOUT_S: Final = 180.0
FRAME_TIMEOUT_S: Final = 60.0
MAX_UNMEASURED: Final = 4
"""Answers without a place in space, after which it is believed that the object has none."""
IMAGE_TIMEOUT_S: Final = 120.0
"""So long a question is asked again when no image, or none with depth, has come."""
_NO_IMAGE: Final = (SegmentationResult.NO_IMAGE, SegmentationResult.STALE_IMAGE)


class CellError(SegZeroError):
    """Why nothing could be tried."""


class CellCamera:
    """The cell's RGB-D camera on the graph, which also hears what the node says of itself.

    A context manager: it publishes between enter and exit, in a thread.

    Args:
        stage: Its calibration.
        image: What it sees.
        context: Of rclpy.
    """

    def __init__(self, stage: Stage, image: RenderedImage, context: rclpy.Context) -> None:
        self._node = Node("cell_camera", context=context)
        self._info, self._image = _calibration(stage), image
        self.states: queue.SimpleQueue[Status] = queue.SimpleQueue()
        self._publishers = {
            name: self._node.create_publisher(
                CameraInfo if name == "camera_info" else Image, topic, 1
            )
            for name, topic in TOPICS.items()
        }
        self._node.create_subscription(Status, "/segzero/status", self.states.put, qos.LATCHED)
        self._node.create_timer(1.0 / FRAME_RATE_HZ, self._publish)
        self._frames, self._heard_frames = threading.Condition(), 0
        self._spinner: ExecutorThread | None = None

    def show(self) -> bool:
        """Wait until two more frames went out to a node that listens; False if none does."""
        with self._frames:
            enough = self._heard_frames + 2
            return self._frames.wait_for(lambda: self._heard_frames >= enough, FRAME_TIMEOUT_S)

    def __enter__(self) -> CellCamera:
        self._spinner = ExecutorThread(self._node)
        return self

    def __exit__(self, *_: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()
        self._node.destroy_node()

    def _publish(self) -> None:
        header = Header(frame_id=FRAME_ID, stamp=self._node.get_clock().now().to_msg())
        self._info.header = header
        # Depth and calibration first: they are there when the image comes.
        depth = msg_from_array(self._image.depth_mm, "16UC1", header)
        self._publishers["depth/image"].publish(depth)
        self._publishers["camera_info"].publish(self._info)
        self._publishers["image"].publish(msg_from_array(self._image.color, "rgb8", header))
        with self._frames:
            listeners = min(each.get_subscription_count() for each in self._publishers.values())
            self._heard_frames += listeners > 0
            self._frames.notify_all()


def _calibration(stage: Stage) -> CameraInfo:
    """Build the camera_info; the renderer's origin is a pixel's corner, ROS's its centre."""
    fx, fy, cx, cy = (stage.scene.intrinsics[name] for name in ("fx", "fy", "cx", "cy"))
    cx, cy = cx - 0.5, cy - 0.5
    width, height = stage.scene.image_size_wh
    return CameraInfo(
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=np.eye(3).ravel().tolist(),
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def node_command(model: str | None) -> list[str]:
    """Build the command that starts the node on the cell's camera, with the gripper's sizes."""
    command = [sys.executable, "-m", "segzero_ros.main", "--ros-args"]
    for name, topic in TOPICS.items():
        command += ["-r", f"{name}:={topic}"]
    for name, value in GRASP_SETTINGS.items():
        command += ["-p", f"{name}:={value}"]
    return command + (["-p", f"model:={model}"] if model else [])


def wait_until_ready(camera: CellCamera, node: NodeProcess) -> None:
    """Wait until the model is loaded.

    Raises:
        CellError: It cannot be.
    """
    end_s = time.monotonic() + LOAD_TIMEOUT_S
    while not node.has_ended and time.monotonic() < end_s:
        try:
            status = camera.states.get(timeout=1.0)
        except queue.Empty:
            continue
        if status.state == Status.ERROR:
            raise CellError(status.detail)
        if status.state == Status.READY:
            print(f"model {status.model} is ready")
            return
    raise CellError(f"the node is not ready; it said:\n{node.last_lines()}")


def ask(client: Client, camera: CellCamera, query: str) -> SegmentationResult:
    """Ask until the answer is about an image with depth.

    Images travel best effort, and on a busy machine many of them are lost.

    Raises:
        CellError: No image with depth reached the node.
    """
    end_s, unmeasured = time.monotonic() + IMAGE_TIMEOUT_S, 0
    while time.monotonic() < end_s:
        if not camera.show():
            break
        thinking = Thinking()
        result = client.ask(query, thinking)
        thinking.end()
        measured = any(each.has_pose for each in result.instances)
        if result.error_code in _NO_IMAGE:
            continue
        unmeasured += 1
        last = unmeasured == MAX_UNMEASURED
        if result.error_code or not result.instances or measured or last:
            return result
        print("  found, but its depth did not arrive or shows no whole object; asking again")
    raise CellError("no image with usable depth reached the node; is the machine very busy?")


class Thinking:
    """Prints the reasoning as it comes; nothing where there is none."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, text: str) -> None:
        """Print the next piece."""
        if text:
            start = "" if self._begun else "  thinking │ "
            print(start + printable(text), end="", flush=True)
            self._begun = True

    def end(self) -> None:
        """End the line."""
        if self._begun:
            print()


def mask_of(instance: Any, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """Return bool [H, W]: an instance's mask, put back where it was cropped from."""
    width, height = size_wh
    mask = np.zeros((height, width), np.bool_)
    if instance.area_px:
        crop = array_from_msg(instance.mask) > 0
        top, left = instance.mask_y_offset, instance.mask_x_offset
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return mask


def meant_ids(stage: Stage, query: str) -> tuple[int, ...] | None:
    """Return the things that one of the table's own questions means; None for another one."""
    wanted = clean_query(query)
    for each in stage.scene.queries:
        if clean_query(each.text) == wanted:
            return each.ids
    return None


def carry_out(
    cell: Cell, stage: Stage, image: RenderedImage, result: SegmentationResult, film: Film | None
) -> bool:
    """Do what the answer says, and tell whether it was right."""
    decision = decide(answer_from_msg(result))
    meant = meant_ids(stage, result.query)
    if decision.step is not Step.GRASP:
        print(f"  {decision.step.value} {decision.detail}".rstrip())
        return decision.step is Step.NOTHING and meant == ()
    mask = mask_of(result.instances[decision.index], stage.scene.image_size_wh)
    if meant is None:
        seen = image.instances[mask]
        meant = (int(np.bincount(seen[seen > 0]).argmax()),) if seen.any() else ()
        print("  this question is not one of the table's own: the mask decides what it means")
    if film is not None:
        film.title(image.color, mask, result.query, result.thinking)
        film.start()
    place = Place(stage.pose.rotation, stage.pose.position_m)
    best = place.of(decision.grasps[0])
    x, y, z = best.position_m
    print(f"  grasping at x {x:.3f} y {y:.3f} z {z:.3f} m, {1000 * best.width_m:.0f} mm open")
    step = pick(cell, [place.of(grasp) for grasp in decision.grasps])
    lift = cell.hold()
    names = [f"{obj.color} {obj.kind}" for obj in stage.world.objects]
    lifted = " and ".join(names[i] for i in lift.lifted) or "nothing"
    others = ", ".join(names[i] for i in lift.disturbed)
    print(f"  {step.value}; lifted: {lifted}" + (f"; also rose: {others}" if others else ""))
    return len(lift.lifted) == 1 and lift.lifted[0] + 1 in meant and not lift.disturbed


def run(stage: Stage, camera: Camera, arguments: argparse.Namespace, log: Path) -> bool:
    """Start the node, ask, move; returns whether the object that was meant was lifted.

    Raises:
        CellError: It could not be tried.
    """
    film = Film(camera, stage.pose) if arguments.film else None
    query = arguments.query or stage.scene.queries[0].text
    cell = Cell(stage.world)
    if film is not None:
        cell.on_step = lambda time_s: film.step(cell.world, time_s, f"“{query}”")
    image = cell.shoot(camera, stage.pose)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = NodeProcess(node_command(arguments.model), dict(os.environ), log)
    try:
        with CellCamera(stage, image, context) as eye:
            wait_until_ready(eye, node)
            client = Client(context=context)
            try:
                print(f"“{printable(query)}”")
                result = ask(client, eye, query)
            finally:
                client.close()
        right = carry_out(cell, stage, image, result, film)
    finally:
        node.end()
        rclpy.try_shutdown(context=context)
    if film is not None and right:
        print(f"{arguments.film}: {film.save(arguments.film) / 1e6:.2f} MB")
    return right


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; question and seed may also stand in the environment (`make`)."""
    parser = argparse.ArgumentParser(
        prog="grasp_cell",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("query", nargs="?", default=os.environ.get("QUERY") or None)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or SEED))
    parser.add_argument("--model", help="instead of the bundled one")
    parser.add_argument("--film", type=Path, metavar="FILE", help="write a GIF of a success")
    parser.add_argument("--list", action="store_true", help="show the table's own questions")
    arguments = parser.parse_args(argv)
    if arguments.seed < 0:
        parser.error("--seed must be at least 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = parse(argv)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        # As Ctrl-C: the node must not outlive this.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.query is not None:
            clean_query(arguments.query)  # refused before anything is started
        with Camera() as camera, tempfile.TemporaryDirectory() as folder:
            stage = stage_scene(camera, arguments.seed)
            if arguments.list:
                for each in stage.scene.queries:
                    print(f"{each.kind:10} {each.text}")
                return 0
            with isolated_environment() as isolation:
                os.environ.update(isolation)  # before rclpy starts in this process
                right = run(stage, camera, arguments, Path(folder) / "node.log")
    except (SegZeroError, MotionError, RuntimeError) as error:
        print(f"grasp_cell: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ngrasp_cell: interrupted", file=sys.stderr)
        return 130
    print("lifted what was meant" if right else "did not lift what was meant")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
