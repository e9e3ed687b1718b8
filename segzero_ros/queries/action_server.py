"""The action ~/segment: a goal is a query that can be followed, cancelled and limited in time."""

from __future__ import annotations

from typing import Any, Final

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
        self._server = ActionServer(
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
        try:
            self._queries.submit(job)
        except Exception as error:
            self._guard.report("while taking a goal", error)
            reason = "the node could not take the goal; its log has the traceback"
            self._queries.refuse(job, SegmentationResult.INTERNAL_ERROR, reason)

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
