"""A running node that answers the page's questions by its action; see `answers.Answerer`."""

from __future__ import annotations

import queue
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final

import rclpy
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header

from segzero_cli.web.answers import PageEvent, Question, cropped_mask_record
from segzero_cli.web.camera import RobotCamera
from segzero_cli.web.examples import Example
from segzero_cli.web.space import space_record
from segzero_cli.web.uploads import decode_image, encode_image
from segzero_core.depth import CameraModel
from segzero_core.errors import CancelledError, SegZeroError
from segzero_core.images.encodings import array_from_msg
from segzero_ros import qos
from segzero_ros.action import Segment
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.executor import ExecutorThread
from segzero_ros.messages.poses import space_from_msg
from segzero_ros.msg import ObjectInstance, ReasoningTrace, SegmentationResult, Status

GONE_S: Final = 2.0
"""A node that is not to be seen for this long has ended."""
_LOOK_S: Final = 0.1
_NS_PER_S: Final = 1_000_000_000
_RESTARTED: Final = (Status.UNCONFIGURED, Status.LOADING)


class RobotError(SegZeroError):
    """The node is not there, or did not answer."""


class Robot:
    """Asks one node; see `Answerer`.

    Args:
        target: The node's full name.
        topic: Of its camera's images.
    """

    is_robot = True

    def __init__(self, target: str, topic: str) -> None:
        self.name = "/" + target.strip("/")
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("segzero_web", context=self._context)
        self._status: Status | None = None
        self._changes: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._actions = ActionClient(
            self._node, Segment, f"{self.name}/segment", goal_service_qos_profile=qos.GOAL
        )
        self._camera = RobotCamera(self._node, topic, f"{self.name}/object_cloud")
        # After the action client: a node whose status came knows it; see segzero_ros.client.
        self._node.create_subscription(Status, f"{self.name}/status", self._on_status, qos.LATCHED)
        self._executor = ExecutorThread(self._node)

    def close(self) -> None:
        """Leave the ROS graph."""
        self._executor.stop()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    @property
    def state(self) -> str:
        """Whether the node is ready, or what it says, or that it is not there."""
        if self._status is None or not self._actions.server_is_ready():
            return f"the node is not there; start it in this ROS_DOMAIN_ID ({self.name})"
        return "ready" if self._status.state == Status.READY else self._status.detail

    def prepare(self) -> None:
        """Nothing: the node loads its model itself."""

    def camera_jpeg(self) -> bytes:
        """Return the newest image of the camera; see `RobotCamera.jpeg`."""
        return self._camera.jpeg()

    def answer(self, question: Question, cancel: threading.Event) -> Iterator[PageEvent]:
        """Yield what happens while the node answers.

        Raises:
            RobotError: The node is not there, refuses, fails or ends.
            CancelledError: `cancel` was set; the goal is cancelled.
        """
        if self._status is None or not self._actions.server_is_ready():
            raise RobotError(self.state)
        goal = Segment.Goal(query=question.text)
        if question.image is not None:
            is_example = isinstance(question.image, Example)
            pixels = question.image.color if is_example else decode_image(question.image)
            goal.image = msg_from_array(pixels, "rgb8", Header())
        self._changes = changes = queue.SimpleQueue()
        yield "started", {"model": self.name}

        def hear(msg: Any) -> None:
            changes.put(("feedback", msg.feedback))

        sent = self._executor.do(lambda: self._actions.send_goal_async(goal, hear))
        sent.add_done_callback(lambda future: changes.put(("sent", future.result())))
        try:
            msg = yield from self._follow(changes, cancel)
        except CancelledError:
            # Also a goal that is not answered yet: the node may work on it already.
            self._executor.do(lambda: sent.add_done_callback(_cancel_goal))
            raise
        yield from self._found(msg, with_camera=question.image is None)

    def _follow(
        self, changes: queue.SimpleQueue[tuple[str, Any]], cancel: threading.Event
    ) -> Iterator[PageEvent]:
        """Yield the thinking; return the result's message."""
        thinking, seen_s, is_taken, is_held = "", time.monotonic(), False, False
        while True:
            try:
                kind, value = changes.get(timeout=_LOOK_S)
            except queue.Empty:
                kind, value = "", None
            if cancel.is_set():
                raise CancelledError("cancelled by the visitor")
            if kind == "sent":
                self._take_goal(value, changes)
                is_taken = True
            elif kind == "feedback":
                if value.stage >= ReasoningTrace.THINKING and not is_held:
                    self._camera.hold()
                    is_held = True
                if new := value.thinking[len(thinking) :]:
                    thinking = value.thinking
                    yield "thinking", {"text": new, "at": time.time()}
            elif kind == "result":
                return value
            if self._actions.server_is_ready():
                seen_s = time.monotonic()
            if time.monotonic() - seen_s > GONE_S or (kind == "restarted" and is_taken):
                raise RobotError(
                    f"{self.name} ended before it answered; ask again when it is back"
                )

    def _take_goal(
        self, handle: ClientGoalHandle, changes: queue.SimpleQueue[tuple[str, Any]]
    ) -> None:
        if not handle.accepted:
            assert self._status is not None
            raise RobotError(
                f"{self.name} does not take the question; it says: {self._status.detail}"
            )
        self._executor.do(handle.get_result_async).add_done_callback(
            lambda future: changes.put(("result", future.result().result.result))
        )

    def _on_status(self, msg: Status) -> None:
        self._status = msg
        if msg.state in _RESTARTED:  # whatever ran before has ended without a result
            self._changes.put(("restarted", None))

    def _found(self, msg: SegmentationResult, *, with_camera: bool) -> Iterator[PageEvent]:
        """Yield what a result says."""
        if msg.error_code != SegmentationResult.OK:
            reason = msg.error_msg or "it forgot the question; was it restarted?"
            raise RobotError(f"{self.name}: {reason}")
        if with_camera:
            stamp = msg.header.stamp
            if found := self._camera.held(stamp.sec * _NS_PER_S + stamp.nanosec):
                frame, is_same = found
                jpeg = b64encode(encode_image(frame.rgb(), "JPEG")).decode()
                yield "image", {"jpeg": jpeg, "is_same": is_same}
        # What is drawn into the image has to be in the camera's frame.
        in_camera = with_camera and msg.pose_header.frame_id == msg.header.frame_id
        camera = self._camera.model() if in_camera else None
        frame_id = "" if in_camera else msg.pose_header.frame_id
        for index, instance in enumerate(msg.instances):
            yield from _instance_events(index, instance, camera, frame_id)
        yield "done", result_record(msg)
        has_cloud = with_camera and any(instance.has_pose for instance in msg.instances)
        if has_cloud and (cloud := self._camera.cloud(msg.pose_header.stamp)):
            yield "cloud", cloud


def _cancel_goal(sent: Any) -> None:
    handle = sent.result()
    if handle is not None and handle.accepted:
        handle.cancel_goal_async()


def _instance_events(
    index: int, instance: ObjectInstance, camera: CameraModel | None, frame_id: str
) -> Iterator[PageEvent]:
    box = [float(edge) for edge in instance.box_xyxy]
    points = [[point.x, point.y] for point in instance.points]
    yield "object", {"index": index, "box_xyxy": box, "points": points}
    left, top = instance.mask_x_offset, instance.mask_y_offset
    if instance.area_px:
        mask = array_from_msg(instance.mask) > 0
        yield "mask", cropped_mask_record(index, mask, (left, top), instance.score)
    if (space := space_from_msg(instance)) is not None:
        record = space_record(*space, camera)
        yield "space", {"index": index, "frame": frame_id, **record}


def result_record(msg: SegmentationResult) -> dict[str, Any]:
    """Return a result with the fields of `segzero segment --json`."""
    objects = [
        {
            "box_xyxy": [float(edge) for edge in each.box_xyxy],
            "points": [[point.x, point.y] for point in each.points],
            "area_px": each.area_px,
            "score": round(each.score, 4),
        }
        for each in msg.instances
    ]
    stages = ("first_token_ms", "reasoner_ms", "encoder_ms", "decoder_ms", "total_ms", "tokens")
    return {
        "query": msg.query,
        "thinking": msg.thinking,
        "completion": msg.completion,
        "size_wh": [msg.image_width, msg.image_height],
        "objects": objects,
        "timings": {name: round(getattr(msg, name), 1) for name in stages},
        "answered_by": msg.answered_by,
        "model": {
            "name": msg.model,
            "weights_hash": msg.model_hash,
            "encoder_backend": msg.encoder_backend,
        },
    }
