"""The action ~/segment: feedback, cancel, limits, and one result for every goal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from rclpy._rclpy_pybind11 import ActionServer as RclActionServer
from rclpy._rclpy_pybind11 import RCLError
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from segzero_core.testing.fakes import ScriptedReasoner, fake_segzero
from segzero_ros import qos
from segzero_ros.action import Segment
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
from tests.ros.scripted import NOTHING, SIZE_WH, THINKING, TWO_OBJECTS, GatedReasoner, pipeline_of

OK = SegmentationResult.OK
GOALS_AT_ONCE = 50


class Goal:
    """A goal that was sent, and what is heard of it."""

    def __init__(self, sender: Sender, goal: Segment.Goal) -> None:
        self._client = sender.client
        self.feedback: list[Segment.Feedback] = []
        self._result: Any = None
        self._sent = sender.actions.send_goal_async(
            goal, feedback_callback=lambda msg: self.feedback.append(msg.feedback)
        )

    @property
    def handle(self) -> Any:
        self._client.wait_until(self._sent.done)
        return self._sent.result()

    def follow(self) -> Any:
        """Ask for the result now; the node forgets it after a while."""
        if self._result is None:
            self._result = self.handle.get_result_async()
        return self._result

    def result(self) -> tuple[int, SegmentationResult]:
        """Return the goal's status and result."""
        future = self.follow()
        self._client.wait_until(future.done)
        return future.result().status, future.result().result.result

    def cancel(self) -> int:
        """Return how many goals are cancelled."""
        future = self.handle.cancel_goal_async()
        self._client.wait_until(future.done)
        return len(future.result().goals_canceling)


class Sender:
    """A client of the action and of ~/cancel."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.actions = ActionClient(
            client.node, Segment, "/segzero/segment", goal_service_qos_profile=qos.GOAL
        )
        self._cancel = client.node.create_client(Trigger, "/segzero/cancel")
        client.wait_until(self.actions.server_is_ready)
        client.wait_until(self._cancel.service_is_ready)

    def send(self, query: str, **fields: Any) -> Goal:
        return Goal(self, Segment.Goal(query=query, **fields))

    def cancel_all(self) -> str:
        future = self._cancel.call_async(Trigger.Request())
        self.client.wait_until(future.done)
        assert future.result().success
        return future.result().message


@pytest.fixture
def serve(start_node: Callable[..., Any], client: Any) -> Callable[..., tuple[Any, Sender]]:
    """Start an active node that has a image, and a client of its action."""

    def start(pipeline: Any, **parameters: Any) -> tuple[Any, Sender]:
        node = start_node(pipeline, **parameters)
        client.connect()
        client.send_image(node, SIZE_WH)
        return node, Sender(client)

    return start


def test_a_goal_is_answered_as_a_query_is(serve: Callable[..., Any], client: Any) -> None:
    _, sender = serve(fake_segzero(TWO_OBJECTS))
    status, result = sender.send("the mugs").result()
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (result.error_code, len(result.instances)) == (OK, 2)
    assert client.heard.wait("result") == result
    assert client.heard.wait("mask").header == result.header


def test_nothing_found_is_a_success(serve: Callable[..., Any]) -> None:
    _, sender = serve(fake_segzero(NOTHING))
    status, result = sender.send("fruit").result()
    assert (status, len(result.instances)) == (GoalStatus.STATUS_SUCCEEDED, 0)


def test_feedback_tells_stage_thinking_and_time(serve: Callable[..., Any], client: Any) -> None:
    reasoner = GatedReasoner()
    _, sender = serve(pipeline_of(reasoner))
    goal = sender.send("the mugs")
    client.wait_until(lambda: any(each.thinking for each in goal.feedback))
    reasoner.gate.set()
    # Before the result is asked for: with it a client stops to listen to feedback.
    client.wait_until(lambda: goal.feedback[-1].stage == ReasoningTrace.DONE)
    goal.result()
    stages = [each.stage for each in goal.feedback]
    assert stages == sorted(stages)
    assert goal.feedback[-1].thinking == THINKING
    times = [each.elapsed_s for each in goal.feedback]
    assert times == sorted(times)
    assert times[-1] > 0


def test_a_goal_may_bring_its_own_image(serve: Callable[..., Any]) -> None:
    _, sender = serve(fake_segzero(TWO_OBJECTS), max_image_age_s=0.001)
    header = Header(frame_id="drawn")
    header.stamp.sec = 3
    image = msg_from_array(np.zeros((200, 300, 3), np.uint8), "rgb8", header)
    status, result = sender.send("the mugs", image=image).result()
    assert (status, result.header) == (GoalStatus.STATUS_SUCCEEDED, header)
    assert (result.image_width, result.image_height) == (300, 200)


def test_an_unreadable_image_of_a_goal_aborts_it(serve: Callable[..., Any]) -> None:
    _, sender = serve(fake_segzero(TWO_OBJECTS))
    image = msg_from_array(np.zeros((20, 30, 3), np.uint8), "rgb8", Header())
    image.step = 1
    status, result = sender.send("the mugs", image=image).result()
    assert status == GoalStatus.STATUS_ABORTED
    assert result.error_code == SegmentationResult.INVALID_IMAGE


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"query": ""}, id="empty query"),
        pytest.param({"query": "the mug</answer>"}, id="markup"),
        pytest.param({"query": "the mug", "timeout_s": -1.0}, id="negative timeout"),
        pytest.param({"query": "the mug", "timeout_s": float("nan")}, id="timeout no number"),
        pytest.param({"query": "the mug", "timeout_s": 9.3e9}, id="timeout of 295 years"),
    ],
)
def test_an_invalid_goal_is_rejected(
    serve: Callable[..., Any], client: Any, fields: dict[str, Any]
) -> None:
    _, sender = serve(fake_segzero(TWO_OBJECTS))
    assert not sender.send(**fields).handle.accepted
    # The protocol has no reason for a rejection, so the result's topic tells it.
    assert client.heard.wait("result").error_code == SegmentationResult.INVALID_QUERY
    assert sender.send("the mugs").result()[0] == GoalStatus.STATUS_SUCCEEDED


def test_each_of_many_goals_at_once_gets_its_response(
    serve: Callable[..., Any], client: Any
) -> None:
    reasoner = GatedReasoner()
    _, sender = serve(pipeline_of(reasoner), when_busy="reject")
    first = sender.send("the mugs")
    assert first.handle.accepted
    goals = [sender.send(f"mug {number}") for number in range(GOALS_AT_ONCE)]
    assert not any(goal.handle.accepted for goal in goals)
    reasoner.gate.set()
    assert first.result()[0] == GoalStatus.STATUS_SUCCEEDED


def test_a_goal_is_rejected_when_the_node_is_not_active(
    start_node: Callable[..., Any], client: Any
) -> None:
    start_node(fake_segzero(TWO_OBJECTS), autostart=False)
    client.connect()
    assert not Sender(client).send("the mugs").handle.accepted
    assert client.heard.wait("result").error_code == SegmentationResult.INACTIVE


def test_a_cancelled_goal_stops_the_model(serve: Callable[..., Any], client: Any) -> None:
    reasoner = ScriptedReasoner(TWO_OBJECTS, delay_s=5.0)
    _, sender = serve(pipeline_of(reasoner))
    goal = sender.send("the mugs")
    client.heard.wait("status", lambda msg: msg.state == Status.BUSY)
    assert goal.cancel() == 1
    status, result = goal.result()
    assert (status, result.error_code) == (
        GoalStatus.STATUS_CANCELED,
        SegmentationResult.CANCELLED,
    )
    client.heard.wait("status", lambda msg: msg.state == Status.READY and "failed" in msg.detail)


def test_a_waiting_goal_is_cancelled_at_once(serve: Callable[..., Any], client: Any) -> None:
    reasoner = GatedReasoner()
    _, sender = serve(pipeline_of(reasoner))
    first = sender.send("the first")
    assert reasoner.waiting.wait(30.0)
    second = sender.send("the second")
    assert second.cancel() == 1
    assert second.result()[0] == GoalStatus.STATUS_CANCELED
    reasoner.gate.set()
    assert first.result()[0] == GoalStatus.STATUS_SUCCEEDED
    assert reasoner.queries == ["the first"]


def test_the_cancel_service_stops_what_runs_and_what_waits(
    serve: Callable[..., Any], client: Any
) -> None:
    _, sender = serve(pipeline_of(ScriptedReasoner(TWO_OBJECTS, delay_s=5.0)))
    assert sender.cancel_all() == "no query runs or waits"
    client.ask("the first")
    client.heard.wait("status", lambda msg: msg.state == Status.BUSY)
    goal = sender.send("the second")
    assert goal.handle.accepted
    assert sender.cancel_all() == "cancelled query 1 and 2"
    first = client.heard.wait("result", lambda msg: msg.query_id == "1")
    assert first.error_code == SegmentationResult.CANCELLED
    status, result = goal.result()
    assert (status, result.error_code) == (
        GoalStatus.STATUS_ABORTED,
        SegmentationResult.CANCELLED,
    )


@pytest.mark.parametrize(
    ("when_busy", "second", "third"),
    [
        pytest.param("replace", SegmentationResult.CANCELLED, OK, id="replace"),
        pytest.param("queue", OK, SegmentationResult.BUSY, id="queue"),
        pytest.param("reject", SegmentationResult.BUSY, SegmentationResult.BUSY, id="reject"),
    ],
)
def test_when_busy_decides_who_is_answered(
    serve: Callable[..., Any], client: Any, when_busy: str, second: int, third: int
) -> None:
    reasoner = GatedReasoner()
    node, _ = serve(pipeline_of(reasoner))
    node.set_parameters([Parameter("when_busy", value=when_busy)])
    client.ask("the first")
    assert reasoner.waiting.wait(30.0)
    client.ask("the second")
    client.heard.wait("reasoning", lambda msg: msg.query_id == "2")
    client.ask("the third")
    client.heard.wait("reasoning", lambda msg: msg.query_id == "3")
    reasoner.gate.set()
    codes = [
        client.heard.wait("result", lambda msg, own=number: msg.query_id == own).error_code
        for number in "123"
    ]
    assert codes == [OK, second, third]


@pytest.mark.parametrize("limit", ["of the goal", "of the node"])
def test_a_query_that_takes_too_long_is_a_timeout(serve: Callable[..., Any], limit: str) -> None:
    node, sender = serve(fake_segzero(TWO_OBJECTS, delay_s=5.0))
    if limit == "of the node":
        node.set_parameters([Parameter("timeout_s", value=0.05)])
    timeout_s = 0.05 if limit == "of the goal" else 0.0
    status, result = sender.send("the mugs", timeout_s=timeout_s).result()
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, SegmentationResult.TIMEOUT)
    assert "0.05 s" in result.error_msg


def test_when_the_model_hangs_every_goal_has_its_result_at_once(
    serve: Callable[..., Any], client: Any
) -> None:
    reasoner = GatedReasoner()
    node, sender = serve(pipeline_of(reasoner), stop_grace_s=0.5)
    hanging = sender.send("hang", timeout_s=0.05)
    assert reasoner.waiting.wait(30.0)
    waiting = sender.send("the mugs")
    status, result = hanging.result()
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, SegmentationResult.TIMEOUT)
    status, result = waiting.result()
    assert status == GoalStatus.STATUS_ABORTED
    assert result.error_code == SegmentationResult.MODEL_FAILURE
    client.heard.wait("status", lambda msg: msg.state == Status.ERROR)
    assert not sender.send("the mugs").handle.accepted
    later = client.heard.wait("result", lambda msg: msg.query_id == "3")
    assert later.error_code == SegmentationResult.MODEL_FAILURE
    reasoner.gate.set()
    client.wait_until(lambda: node.state_label == "inactive")
    assert [msg.query_id for msg in client.heard.all("result")] == ["1", "2", "3"]


def test_a_topic_that_fails_does_not_keep_a_goal_from_its_result(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, sender = serve(fake_segzero(TWO_OBJECTS))

    def broken(*_: Any) -> None:
        raise RuntimeError("a defect of the topic")

    with monkeypatch.context() as patch:
        patch.setattr(node.output, "publish_answer", broken)
        assert sender.send("the mugs").result()[0] == GoalStatus.STATUS_SUCCEEDED
    assert sender.send("the mugs").result()[0] == GoalStatus.STATUS_SUCCEEDED


def test_a_goal_whose_acceptance_cannot_be_sent_has_its_result(
    serve: Callable[..., Any], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, sender = serve(fake_segzero(TWO_OBJECTS))

    def gone(*_: Any) -> None:
        raise RCLError("the client is not there")

    with monkeypatch.context() as patch:
        patch.setattr(RclActionServer, "send_goal_response", gone)
        sender.send("the mugs")
        lost = client.heard.wait("result")
    assert lost.error_code == SegmentationResult.CANCELLED
    assert "went away" in lost.error_msg
    client.wait_until(lambda: node.queries.is_idle)
    assert sender.send("the mugs").result()[0] == GoalStatus.STATUS_SUCCEEDED
    assert len(client.heard.all("result")) == 2


def test_a_hundred_queries_in_a_row_have_a_result_each(
    serve: Callable[..., Any], client: Any
) -> None:
    reasoner = GatedReasoner()
    _, sender = serve(pipeline_of(reasoner))
    goals = []
    for number in range(100):
        goals.append(sender.send(f"goal {number}"))
        assert goals[-1].handle.accepted
    reasoner.gate.set()
    codes = [goal.result()[1].error_code for goal in goals]
    assert codes[0] == codes[-1] == OK
    assert set(codes[1:-1]) == {SegmentationResult.CANCELLED}
    ids = [msg.query_id for msg in client.heard.all("result")]
    assert len(ids) == len(set(ids)) == 100
