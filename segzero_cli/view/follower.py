"""Follows a node by its topics and writes what it sees and finds as a recording."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_cli import console
from segzero_cli.recording import Recording
from segzero_core.depth import camera_from_info, depth_in_meters
from segzero_core.errors import ConfigError, InputError, SegZeroError
from segzero_core.images.encodings import array_from_msg
from segzero_core.types import Box, ObjectPrompt, Point, RgbImage

try:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions
    from rclpy.validate_full_topic_name import validate_full_topic_name
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
    from std_msgs.msg import Header

    from segzero_ros import qos
    from segzero_ros.camera.image_buffer import CameraFrame, ImageBuffer
    from segzero_ros.messages.poses import points_from_msg, space_from_msg
    from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
    from segzero_ros.spatial.transforms import Transforms
except ModuleNotFoundError as missing:
    raise ConfigError(
        f"segzero view needs ROS 2 and the compiled interfaces, but there is no {missing.name}; "
        "run `make setup` in a checkout, or source a workspace that holds segzero_ros"
    ) from missing

KEPT: Final = 16
"""Images that wait for their depth, and for the trace that says which one is looked at."""
PAIR_TOLERANCE_S: Final = 0.02
"""As the node's own default."""
_NS_PER_S: Final = 1_000_000_000


class Follower:
    """Writes what comes on the topics of a node; in the executor's thread.

    The camera's topics are those that the node subscribes to, however they are remapped; the
    node's diagnostics name the one of images.

    Args:
        node: Subscribes.
        target: Full name of the node that is followed.
        recording: What is written.
        rate_hz: At most so many images; the one that an answer is about always.
    """

    def __init__(self, node: Node, target: str, recording: Recording, rate_hz: float) -> None:
        self.images = self.answers = 0
        self._node, self._target, self._recording = node, target, recording
        self._period_s = 1 / rate_hz
        self._shown_s = -self._period_s
        self._seen: set[str] = set()  # topics of the camera
        self._world = ""  # the frame of the last poses
        self._buffer = ImageBuffer(KEPT, PAIR_TOLERANCE_S)
        self._buffer.open()
        self._frames: deque[CameraFrame] = deque(maxlen=KEPT)
        self._query_id, self._read = "", 0  # the query of the trace, and how much of it was read
        self._asked: CameraFrame | None = None  # the image that this query is about
        self._transforms = Transforms(node)
        with suppress(ImportError):  # then the camera has no pose in another frame, and it says so
            self._transforms.listen()
        for kind, topic, take, profile in (
            (ReasoningTrace, f"{target}/reasoning", self._on_trace, qos.TRACE),
            (PointCloud2, f"{target}/object_cloud", self._on_cloud, qos.RESULT),
            (SegmentationResult, f"{target}/result", self._on_result, qos.RESULT),
            (Status, f"{target}/status", self._on_status, qos.LATCHED),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.RESULT),
        ):
            node.create_subscription(kind, topic, take, profile)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:  # of every node of the graph
            if status.name == f"{self._target.lstrip('/')}: camera":
                for each in status.values:
                    if each.key == "topic":
                        self._see(each.value)

    def _see(self, topic: str) -> None:
        """Subscribe to the topics of the node's camera that are known by now.

        They are found by their endpoints: a node that was killed stays in the graph for a while,
        and what is asked by its name may be about the dead one.
        """
        wanted: dict[str, tuple[Any, Callable[[bytes], object]]] = {
            "sensor_msgs/msg/CameraInfo": (CameraInfo, self._buffer.add_camera_info),
            "sensor_msgs/msg/CompressedImage": (
                CompressedImage,
                partial(self._on_image, CompressedImage),
            ),
            "sensor_msgs/msg/Image": (Image, self._buffer.add_depth),
        }
        for name, kinds in self._node.get_topic_names_and_types():
            if name in self._seen or kinds[0] not in wanted:
                continue
            subscribers = self._node.get_subscriptions_info_by_topic(name)
            if any(qos.full_name(info) == self._target for info in subscribers):
                kind, take = wanted[kinds[0]]
                if kind is Image and name == topic:
                    take = partial(self._on_image, Image)
                self._seen.add(name)
                self._node.create_subscription(kind, name, take, qos.CAMERA, raw=True)

    def _on_image(self, kind: Any, serialized: bytes) -> None:
        try:
            frame = self._buffer.add_image(serialized, kind)
        except InputError:
            return  # the node says so in its diagnostics
        assert frame is not None
        self._frames.append(frame)
        # The one before: its depth has had the time to come.
        if len(self._frames) > 1 and frame.arrived_s - self._shown_s >= self._period_s:
            self._shown_s = frame.arrived_s
            self._show(self._frames[-2])

    def _show(self, frame: CameraFrame) -> RgbImage | None:
        """Write an image with its depth; return it, or None where it cannot be read."""
        write = self._recording
        write.at(stamp_ns=frame.stamp_ns, arrived_s=time.time())
        try:
            pixels = frame.rgb()
            write.image(pixels)
            self.images += 1
            if (info := frame.camera_info) is not None and self._place(frame.header):
                write.camera(camera_from_info(info, rectified=False))
                if (depth := frame.depth) is not None:
                    write.depth(depth_in_meters(array_from_msg(depth), depth.encoding))
        except InputError as error:
            write.warn(str(error))
            return None
        return pixels

    def _place(self, header: Header) -> bool:
        """Write the camera's pose in the frame of the last poses; return whether it is known."""
        world = self._world or header.frame_id
        try:
            pose = self._transforms.camera_pose(world, header, 0.0)
        except SegZeroError as error:
            self._recording.remove_camera()
            self._recording.warn(f"the camera cannot be placed: {error}")
            return False
        self._recording.axes(z_up=world != header.frame_id)
        self._recording.pose(pose.rotation, pose.position_m)
        return True

    def _on_trace(self, msg: ReasoningTrace) -> None:
        if msg.query_id != self._query_id:
            self._recording.end_thinking()
            self._query_id, self._read, self._asked = msg.query_id, 0, None
        if self._asked is None and msg.stage >= ReasoningTrace.THINKING:
            self._asked = self._frame_of(msg.header)
        self._at(msg.header)
        self._recording.thinking(msg.thinking[self._read :])
        self._read = len(msg.thinking)

    def _on_result(self, msg: SegmentationResult) -> None:
        self.answers += 1
        self._write_result(msg)
        outcome = f"error {msg.error_code}" if msg.error_code else f"{len(msg.instances)} found"
        console.write(f"query {msg.query_id}: {outcome}\n", sys.stdout)

    def _write_result(self, msg: SegmentationResult) -> None:
        write = self._recording
        self._at(msg.header)
        if msg.error_code != SegmentationResult.OK:
            write.end_thinking()
            reason = f"no answer to {msg.query!r} (error {msg.error_code}): {msg.error_msg}"
            write.note("answer", reason, "ERROR")
            return
        frame = self._asked if msg.query_id == self._query_id else self._frame_of(msg.header)
        self._world = msg.pose_header.frame_id
        pixels = self._show(frame) if frame is not None else None
        self._at(msg.header)
        try:
            if pixels is None:
                raise InputError("its image did not come here")
            prompts, ids = objects_of(msg, pixels.shape[:2])
            spaces = [space_from_msg(each) for each in msg.instances]
        except (InputError, ValueError) as error:
            write.end_thinking()
            write.note("answer", f"{len(msg.instances)} found: {msg.query}")
            write.warn(f"the answer to query {msg.query_id} is not drawn: {error}")
            return
        write.answer(msg.query, prompts, [each.score for each in msg.instances], ids)
        write.space(spaces)

    def _on_cloud(self, msg: PointCloud2) -> None:
        self._at(msg.header)
        with suppress(InputError):
            self._recording.cloud(*points_from_msg(msg))

    def _on_status(self, msg: Status) -> None:
        self._recording.at(arrived_s=time.time())
        self._recording.note("status", msg.detail, "DEBUG")

    def _at(self, header: Header) -> None:
        self._recording.at(stamp_ns=_stamp_ns(header), arrived_s=time.time())

    def _frame_of(self, header: Header) -> CameraFrame | None:
        stamp_ns = _stamp_ns(header)
        return next((each for each in reversed(self._frames) if each.stamp_ns == stamp_ns), None)


def objects_of(
    msg: SegmentationResult, size_hw: tuple[int, int]
) -> tuple[list[ObjectPrompt], NDArray[np.uint16]]:
    """Return the prompts of an answer, and which object each pixel belongs to.

    Raises:
        InputError: A box, point or mask is none, or lies outside of an image of this size.
    """
    ids = np.zeros(size_hw, np.uint16)
    # Where masks overlap, the one with the higher score is on top; as `Segmentation`.
    numbered = list(enumerate(msg.instances, start=1))
    for number, each in sorted(numbered, key=lambda pair: pair[1].score):
        if not each.area_px:
            continue
        left, top = each.mask_x_offset, each.mask_y_offset
        crop = array_from_msg(each.mask).astype(np.bool_)
        window = ids[max(top, 0) : top + len(crop), max(left, 0) : left + crop.shape[1]]
        if window.shape != crop.shape:
            raise InputError(f"the mask of object {number} lies outside of the image")
        window[crop] = number
    prompts = [
        ObjectPrompt(
            Box(*map(float, each.box_xyxy)),
            tuple(Point(point.x, point.y) for point in each.points),
        )
        for each in msg.instances
    ]
    return prompts, ids


def _stamp_ns(header: Header) -> int:
    return int(header.stamp.sec) * _NS_PER_S + int(header.stamp.nanosec)


def follow(
    target: str,
    open_recording: Callable[[], Recording],
    *,
    rate_hz: float,
    seconds: int | None,
    patience_s: float,
) -> Follower:
    """Follow a node until this process is interrupted; return what was followed.

    Args:
        target: The node's full name.
        open_recording: Called when the node has been found.
        rate_hz: See `Follower`.
        seconds: End after this long; None: only when interrupted.
        patience_s: Longest wait for the node.

    Raises:
        InputError: The name or the rate is none.
        ConfigError: There is no such node.
    """
    if not rate_hz > 0:
        raise InputError(f"--rate: expected more than 0 Hz, got {rate_hz:g}")
    target = "/" + target.strip("/")
    try:
        validate_full_topic_name(target)
    except Exception as error:  # rclpy's, with a drawing of several lines
        reason = str(error).splitlines()[0]
        raise InputError(f"{target!r} is no full name of a node: {reason}") from None
    # An interrupt that is raised inside of rclpy's compiled code turns into another error.
    interrupts: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: interrupts.append(signum))
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("segzero_view", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin_until(condition: Callable[[], object], timeout_s: float | None) -> bool:
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition() and not interrupts:
            if end_s is not None and time.monotonic() > end_s:
                return False
            executor.spin_once(timeout_sec=0.1)
        return True

    try:
        if not spin_until(lambda: node.count_publishers(f"{target}/status"), patience_s):
            raise ConfigError(
                f"no node {target} within {patience_s:g} s; is it started, and in this "
                "ROS_DOMAIN_ID?"
            )
        with open_recording() as recording:
            follower = Follower(node, target, recording, rate_hz)
            print(f"segzero view: following {target}  (Ctrl-C ends it)", flush=True)
            spin_until(lambda: False, seconds)
            return follower
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
