"""The action ~/segment: a goal is a query that can be followed, cancelled and limited in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from action_msgs.msg import GoalStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from segzero_core.limits import MAX_TIMEOUT_S
from segzero_ros import qos
from segzero_ros.action import Segment
from segzero_ros.camera.image_buffer import CameraFrame, is_empty
from segzero_ros.diagnostics.guard import Guard
from segzero_ros.executor import wake
from segzero_ros.msg import ReasoningTrace, SegmentationResult
from segzero_ros.queries.job import Job
from segzero_ros.queries.manager import QueryManager

RESULT_KEPT_S: Final = 10
"""How long a client may take to fetch a result. rclpy's own 15 minutes keep every mask so long."""


class _ActionServer(ActionServer):
    """rclpy's, which forgets an accepted goal when the client cannot be told of it any more.

    Args:
        on_unreachable: Called with the handle of such a goal.
    """

    def __init__(
        self, *args: Any, on_unreachable: Callable[[ServerGoalHandle], None], **options: Any
    ):
        self._on_unreachable = on_unreachable
        super().__init__(*args, **options)

    async def _execute_goal_request(self, taken: Any) -> None:
        await super()._execute_goal_request(taken)
        handle = self._goal_handles.get(bytes(taken[1].goal_id.uuid))
        if handle is not None and handle.status == GoalStatus.STATUS_ACCEPTED:
            self._on_unreachable(handle)


class SegmentServer:
    """Turns goals into queries, and their traces and results into feedback and results.

    All states of goals change in the executor's thread, so that a cancellation and an answer that
    come at the same time cannot collide.
    """

    def __init__(self, node: Node, queries: QueryManager, guard: Guard) -> None:
        self._node = node
        self._queries = queries
        self._guard = guard
        self._runs: dict[bytes, tuple[Job, Future]] = {}  # the future gets the result
        self._server = _ActionServer(
            node,
            Segment,
            "~/segment",
            self._execute,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
            goal_service_qos_profile=qos.GOAL,
            result_service_qos_profile=qos.GOAL,
            cancel_service_qos_profile=qos.GOAL,
            result_timeout=RESULT_KEPT_S,
            on_unreachable=self._on_unreachable,
        )

    def close(self) -> None:
        """Destroy the action server; the executor must not spin any more."""
        self._server.destroy()

    def _on_goal(self, goal: Segment.Goal) -> GoalResponse:
        with self._guard("while looking at a goal"):
            refusal = self._queries.why_refused(goal.query)
            if not 0.0 <= goal.timeout_s <= MAX_TIMEOUT_S:
                reason = f"timeout_s: expected 0 to {MAX_TIMEOUT_S:g} s, got {goal.timeout_s:g}"
                refusal = (SegmentationResult.INVALID_QUERY, reason)
            if refusal is None:
                return GoalResponse.ACCEPT
            # ROS 2 actions carry no rejection reason; it is published on ~/result.
            self._queries.refuse(self._queries.new_job(goal.query), *refusal)
        return GoalResponse.REJECT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        job = self._begin(handle)
        try:
            self._queries.submit(job)
        except Exception as error:
            self._guard.report("while taking a goal", error)
            reason = "the node could not take the goal; its log has the traceback"
            self._queries.refuse(job, SegmentationResult.INTERNAL_ERROR, reason)

    def _on_unreachable(self, handle: ServerGoalHandle) -> None:
        reason = "the client went away before it could be told that its goal was accepted"
        self._queries.refuse(self._begin(handle), SegmentationResult.CANCELLED, reason)

    def _begin(self, handle: ServerGoalHandle) -> Job:
        """Return the job of a goal, which is executing from now on."""
        goal, future = handle.request, Future(executor=self._node.executor)

        def on_trace(trace: ReasoningTrace) -> None:
            feedback: Any = Segment.Feedback(
                stage=trace.stage,
                thinking=trace.thinking,
                elapsed_s=job.query.age_ms() / 1000.0,
            )
            if self._node.context.ok():
                handle.publish_feedback(feedback)

        def on_result(msg: SegmentationResult) -> None:
            future.set_result(msg)
            wake(self._node.executor)

        job = self._queries.new_job(
            goal.query,
            frame=None if is_empty(goal.image) else CameraFrame(goal.image),
            timeout_s=goal.timeout_s,
            on_trace=on_trace,
            on_result=on_result,
        )
        self._runs[bytes(handle.goal_id.uuid)] = job, future
        handle.execute()
        return job

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        job, _ = self._runs.get(bytes(handle.goal_id.uuid), (None, None))
        if job is None or job.is_concluded:
            return CancelResponse.REJECT
        self._queries.cancel(job, "cancelled by the client of the goal")
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Segment.Result:
        key = bytes(handle.goal_id.uuid)
        msg = await self._runs[key][1]
        del self._runs[key]
        if msg.error_code == SegmentationResult.OK:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return Segment.Result(result=msg)
