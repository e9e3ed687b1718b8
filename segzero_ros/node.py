"""The ROS 2 node `segzero`: parameters, topics and one worker; other modules do the rest."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final, NoReturn

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from segzero_core.errors import ConfigError, InputError, SegZeroError
from segzero_core.prompt import clean_query
from segzero_ros import qos
from segzero_ros.answering import (
    Answer,
    Picture,
    Pipeline,
    answer_query,
    header_of,
    picture_trouble,
)
from segzero_ros.conversions import mask_to_msg, msg_from_array
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
from segzero_ros.parameters import check_change, declare_parameters, read_config
from segzero_ros.results import Query, failure_code, failure_to_msg, instances_to_msg
from segzero_ros.spinner import Spinner
from segzero_ros.traces import TraceWriter
from segzero_ros.worker import LatestWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segzero_core.config import NodeConfig

STOP_TIMEOUT_S: Final = 2.0
"""How long a running answer may take to notice that the node ends."""

FAREWELL_TIMEOUT_S: Final = 1.0
"""How long the node stays for subscribers that have not heard the last result yet."""


def load_pipeline(config: NodeConfig) -> Pipeline:
    """Load the model that the parameters name; takes seconds to minutes."""
    from segzero_core import SegZero

    return SegZero.load(
        config.model,
        segmenter=config.segmenter or None,
        device=config.device,
        template=config.template or None,
        max_new_tokens=config.max_new_tokens or None,
    )


def survive(callback: Callable[[SegZeroNode, Any], None]) -> Callable[[SegZeroNode, Any], None]:
    """Log what a callback raises; rclpy would end the node."""

    @functools.wraps(callback)
    def wrapped(self: SegZeroNode, msg: Any) -> None:
        try:
            callback(self, msg)
        except Exception:
            self.log_defect(f"in {callback.__name__}")

    return wrapped


class SegZeroNode(Node):
    """Answers queries about the newest picture of a camera.

    Args:
        load: Makes the pipeline from the settings, in the worker's thread.
        **node_arguments: For `rclpy.node.Node`.
    """

    def __init__(
        self, load: Callable[[NodeConfig], Pipeline] = load_pipeline, **node_arguments: Any
    ) -> None:
        super().__init__("segzero", **node_arguments)
        declare_parameters(self)
        self._config = read_config(self)
        self.add_on_set_parameters_callback(functools.partial(check_change, self))
        self._load = load
        self._pipeline: Pipeline | None = None
        self._load_error: Exception | None = None
        self._picture: Picture | None = None
        self._query_ids = itertools.count(1)
        self._status_lock = threading.Lock()
        self._create_publishers()
        self._worker = LatestWorker(self._prepare, self._answer, name="segzero-model")
        self._create_subscriptions()
        self._worker.start()

    def _create_publishers(self) -> None:
        self._result_pub = self.create_publisher(SegmentationResult, "~/result", qos.RESULT)
        self._mask_pub = self.create_publisher(Image, "~/mask", qos.RESULT)
        self._instances_pub = self.create_publisher(Image, "~/instances", qos.RESULT)
        self._overlay_pub = self.create_publisher(Image, "~/overlay", qos.RESULT)
        self._trace_pub = self.create_publisher(ReasoningTrace, "~/reasoning", qos.TRACE)
        self._status_pub = self.create_publisher(Status, "~/status", qos.LATCHED)

    def _create_subscriptions(self) -> None:
        if self._config.image_transport == "compressed":
            # As image_transport does: the base name is remapped, then the transport is appended.
            topic = self.resolve_topic_name("image") + "/compressed"
            self.create_subscription(CompressedImage, topic, self._on_image, qos.NEWEST_IMAGE)
        else:
            self.create_subscription(Image, "image", self._on_image, qos.NEWEST_IMAGE)
        self.create_subscription(String, "~/query", self._on_query, qos.QUERY)

    # Callbacks, in the executor's thread: all of them return at once.

    @survive
    def _on_image(self, msg: Image | CompressedImage) -> None:
        self._picture = Picture(msg)

    @survive
    def _on_query(self, msg: String) -> None:
        query = Query(str(next(self._query_ids)), msg.data)
        trace = self._trace(query)
        try:
            clean_query(query.text)
        except InputError as error:
            self._refuse(query, trace, SegmentationResult.INVALID_QUERY, str(error))
            return
        trace.add(ReasoningTrace.WAITING)
        given_up = self._worker.submit(query)
        if given_up is query:
            self._refuse(query, trace, SegmentationResult.INACTIVE, "the node is shutting down")
        elif given_up is not None:
            reason = f"replaced by the newer query {query.id}; ask again when it is answered"
            self._refuse(given_up, self._trace(given_up), SegmentationResult.CANCELLED, reason)

    # In the worker's thread.

    def _prepare(self) -> None:
        """Load the model; queries that come meanwhile wait."""
        self._tell(Status.LOADING, f"loading {self._config.model}")
        try:
            self._pipeline = self._load(self._config)
        except Exception as error:  # kept for the results of all queries
            self._load_error = error
            if isinstance(error, SegZeroError):
                self.get_logger().error(f"cannot load {self._config.model}: {error}")
            else:
                self.log_defect(f"while loading {self._config.model}")
            self._tell(Status.ERROR, f"cannot load {self._config.model}: {error}")
            return
        self.get_logger().info(f"ready: {self._config.model}")
        self._tell(Status.READY, "ready")

    def _answer(self, query: Query, cancel: threading.Event) -> None:
        """Answer one query; the last border before the thread would end."""
        try:
            self._answer_now(query, cancel)
        except Exception as error:
            self.log_defect(f"while answering query {query.id}")
            reason = f"{type(error).__name__}: {error}; the node's log has the traceback"
            self._refuse(query, self._trace(query), SegmentationResult.MODEL_FAILURE, reason)
            self._tell(Status.READY, "ready; the last query failed")

    def _answer_now(self, query: Query, cancel: threading.Event) -> None:
        trace, picture = self._trace(query), self.newest_picture
        if self._pipeline is None:
            error = self._load_error or RuntimeError("it was not loaded")
            reason = f"the model {self._config.model} cannot be used: {error}"
            self._refuse(query, trace, failure_code(error), reason)
            return
        trouble = picture_trouble(picture, read_config(self).max_image_age_s)
        if trouble is not None or picture is None:
            self._refuse(query, trace, *(trouble or (SegmentationResult.NO_IMAGE, "")))
            return
        self._tell(Status.BUSY, "answering", query)
        name = self.get_fully_qualified_name()
        answer = answer_query(self._pipeline, query, picture, trace, cancel, name)
        if answer.error is not None:
            self._log_failure(query, answer)
        self._publish_answer(answer)
        failed = answer.result is None
        trace.close(ReasoningTrace.FAILED if failed else ReasoningTrace.DONE)
        self._tell(Status.READY, "ready; the last query failed" if failed else "ready")

    def _publish_answer(self, answer: Answer) -> None:
        """Publish the pictures first, so that they are there when the result is heard."""
        if answer.result is not None:
            header = answer.msg.header
            self._publish(self._mask_pub, mask_to_msg(answer.result.segmentation.union(), header))
            self._publish(self._instances_pub, instances_to_msg(answer.result, header))
        self._publish(self._result_pub, answer.msg)
        try:
            self._publish_overlay(answer)
        except Exception:  # the result is out: a second one would contradict it
            self.log_defect("while drawing the overlay")

    def _publish_overlay(self, answer: Answer) -> None:
        """Draw only for somebody who looks."""
        if answer.result is None or answer.picture is None:
            return
        if not read_config(self).publish_overlay or not self._overlay_pub.get_subscription_count():
            return
        from segzero_core import draw_overlay

        result = answer.result
        overlay = draw_overlay(answer.picture, result.segmentation, result.reasoning.prompts)
        self._publish(self._overlay_pub, msg_from_array(overlay, "rgb8", answer.msg.header))

    # From any thread.

    @property
    def newest_picture(self) -> Picture | None:
        """What the next query will be about."""
        return self._picture

    def _trace(self, query: Query) -> TraceWriter:
        trace = TraceWriter(query.id, functools.partial(self._publish, self._trace_pub))
        trace.header = header_of(self._picture)
        return trace

    def _refuse(self, query: Query, trace: TraceWriter, code: int, reason: str) -> None:
        """Publish why a query is not answered."""
        self.get_logger().warning(f"query {query.id} refused (error code {code}): {reason}")
        msg = failure_to_msg(query, code, reason, header_of(self._picture))
        msg.model, msg.answered_by = self._config.model, self.get_fully_qualified_name()
        self._publish(self._result_pub, msg)
        trace.close(ReasoningTrace.FAILED)

    def _tell(self, state: int, detail: str, query: Query | None = None) -> None:
        """Publish the node's state."""
        status = Status(state=state, detail=detail, model=self._config.model)
        if self._pipeline is not None:
            status.encoder_backend = self._pipeline.identity.encoder_backend
        if query is not None:
            status.active_query_id = query.id
        with self._status_lock:
            self._publish(self._status_pub, status)

    def _publish(self, publisher: Any, msg: Any) -> None:
        """Publish, unless the node has been shut down meanwhile."""
        try:
            publisher.publish(msg)
        except Exception:
            if self.context.ok():
                raise

    def _log_failure(self, query: Query, answer: Answer) -> None:
        """Log one line for an expected failure, and the traceback for any other."""
        if answer.msg.error_code != SegmentationResult.MODEL_FAILURE:
            self.get_logger().warning(f"query {query.id}: {answer.msg.error_msg}")
            return
        trace = "".join(traceback.format_exception(answer.error))
        self.get_logger().error(f"query {query.id}: {trace}")

    def log_defect(self, where: str) -> None:
        """Log the exception that is being handled."""
        self.get_logger().error(f"{where}: {traceback.format_exc()}")

    def close(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop the worker, answering the query that still waits.

        Args:
            timeout_s: How long the answer that runs may take to notice it [s].

        Returns:
            Whether the worker has ended; a load that cannot be interrupted may still run.
        """
        waiting = self._worker.stop(timeout_s)
        if waiting is not None:
            reason = "the node is shutting down"
            self._refuse(waiting, self._trace(waiting), SegmentationResult.INACTIVE, reason)
        if self.context.ok():
            self._result_pub.wait_for_all_acked(Duration(seconds=FAREWELL_TIMEOUT_S))
        return not self._worker.is_alive


def main(
    args: Sequence[str] | None = None, load: Callable[[NodeConfig], Pipeline] = load_pipeline
) -> int:
    """Run the node until it is interrupted.

    Args:
        args: The command line; None takes the process's own.
        load: Makes the pipeline, in place of the model that the parameters name.

    Returns:
        0 after an interrupt, 2 when an argument or a parameter is not allowed.
    """
    logging.captureWarnings(capture=True)
    ends = _notice_signals()
    try:
        _init(args)
        node = SegZeroNode(load)
    except (ConfigError, rclpy.exceptions.ParameterException) as error:
        print(f"segzero: {' '.join(str(error).split())}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    spinner = Spinner(node, on_error=ends.put)
    end = ends.get()
    node.close()
    spinner.stop()
    node.destroy_node()
    rclpy.try_shutdown()
    if end is not None:
        raise end
    return 0


def _init(args: Sequence[str] | None) -> None:
    """Let ROS read the command line.

    Raises:
        ConfigError: It cannot, or the middleware does not start.
    """
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # the root of rclpy's own errors
        raise ConfigError(f"ROS cannot start with these arguments: {error}") from error


def _notice_signals() -> queue.SimpleQueue[BaseException | None]:
    """Put None into the queue that is returned whenever the process is told to end.

    In place of rclpy's handlers. Those raise KeyboardInterrupt at any line, also before there is
    somebody to catch it and while the node is being closed (a terminal and `ros2 launch` both
    send the interrupt); they lose a SIGTERM that comes while the executor is about to wait; and
    they end the context first, so that a query that waits could not be answered any more.
    """
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ends.put(None))
    return ends


def run_process(load: Callable[[NodeConfig], Pipeline] = load_pipeline) -> NoReturn:
    """Run `main` with the process's own arguments, and end the process at once.

    The interpreter's own end takes torch down object by object: many seconds on a busy machine,
    while `ros2 launch` kills a node five seconds after the interrupt. It must not happen at all
    while the worker is inside a load that cannot be interrupted.
    """
    code = main(load=load)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run_process()
