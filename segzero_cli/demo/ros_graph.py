"""The demo's part of the ROS graph: the node as a process, a camera and a query client."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from segzero_cli.demo.clip import TOPICS, Shot
from segzero_ros import qos
from segzero_ros.executor import ExecutorThread
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status

FRAME_RATE_HZ: Final = 10.0
FRAME_TIMEOUT_S: Final = 60.0
NODE_END_TIMEOUT_S: Final = 60.0


class NodeProcess:
    """The segzero node in a process of its own; `log` gets everything that it prints."""

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self._log_path = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command), env=env, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def last_lines(self, count: int = 5) -> str:
        """Return the end of what it printed."""
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-count:])

    def end(self) -> int:
        """Interrupt it as Ctrl-C does, kill it if that does not help, and return its exit code."""
        try:
            if not self.has_ended:
                self._process.send_signal(signal.SIGINT)
                self._process.wait(NODE_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass  # the exit code shows it
        finally:  # also when a second Ctrl-C ends the waiting
            self._process.kill()
        return self._process.wait()


class DemoGraph:
    """Plays one shot of the clip at a time, publishes queries, and subscribes to the node.

    Its executor runs in a thread until it is closed.
    """

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = Node("segzero_demo", context=self._context)
        # What the node published: names of topics below /segzero, and messages.
        self.messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._shot: Shot | None = None
        self._frames = threading.Condition()
        self._frame_count = 0
        self._cameras = {
            key: self._node.create_publisher(kind, TOPICS[key], 1)
            for key, kind in (("color", Image), ("depth", Image), ("info", CameraInfo))
        }
        self._queries = self._node.create_publisher(String, "/segzero/query", qos.QUERY)
        # A node discovers subscriptions in the order in which they were made. The status comes
        # last: once it has arrived, the node knows the other subscriptions too.
        for topic, kind, profile in (
            ("reasoning", ReasoningTrace, qos.TRACE),
            ("mask", Image, qos.RESULT),
            ("overlay", Image, qos.RESULT),
            ("result", SegmentationResult, qos.RESULT),
            ("status", Status, qos.LATCHED),
        ):
            self._node.create_subscription(
                kind,
                f"/segzero/{topic}",
                lambda msg, topic=topic: self.messages.put((topic, msg)),
                profile,
            )
        self._node.create_timer(1.0 / FRAME_RATE_HZ, self._publish_frame)
        self._executor = ExecutorThread(self._node)

    def close(self) -> None:
        """Leave the ROS graph."""
        self._executor.stop()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def has_subscribers(self) -> bool:
        """Wait for subscribers of queries and camera; return whether there are any."""
        publishers = (self._queries, self._cameras["color"])
        return self._wait(lambda: all(each.get_subscription_count() for each in publishers))

    def play(self, shot: Shot) -> None:
        """Publish a shot again and again, and return when two frames of it are out."""
        self._shot = shot
        enough = self._frame_count + 3  # the first may be of the previous shot
        self._wait(lambda: self._frame_count >= enough)

    def ask(self, text: str) -> None:
        """Publish a query."""
        self._queries.publish(String(data=text))

    def _wait(self, condition: Callable[[], Any]) -> bool:
        """Check a condition after every frame; return whether it held in time."""
        with self._frames:
            return bool(self._frames.wait_for(condition, FRAME_TIMEOUT_S))

    def _publish_frame(self) -> None:
        if self._shot is not None:
            for key, publisher in self._cameras.items():
                publisher.publish(self._shot.camera[key])
        with self._frames:
            self._frame_count += 1
            self._frames.notify_all()
