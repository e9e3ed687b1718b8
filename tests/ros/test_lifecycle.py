"""Every transition, legal and illegal, and what the node answers in each state."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState

from segzero_core.errors import ModelLoadError
from segzero_core.testing.fakes import ScriptedReasoner, fake_segzero
from segzero_ros.diagnostics.health import resident_mb
from segzero_ros.msg import SegmentationResult, Status
from tests.ros.scripted import SIZE_WH, TWO_OBJECTS, GatedReasoner, pipeline_of

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
SHUTDOWN = {
    "unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
    "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
}
WAY = {
    "unconfigured": [],
    "inactive": [CONFIGURE],
    "active": [CONFIGURE, ACTIVATE],
    "finalized": [SHUTDOWN["unconfigured"]],
}
LEGAL = {
    ("unconfigured", CONFIGURE): "inactive",
    ("inactive", ACTIVATE): "active",
    ("inactive", CLEANUP): "unconfigured",
    ("active", DEACTIVATE): "inactive",
    **{(state, SHUTDOWN[state]): "finalized" for state in SHUTDOWN},
}
TRANSITIONS = [CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, *SHUTDOWN.values(), 0, 99]


class Manager:
    """Plays the lifecycle manager."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._change = client.node.create_client(ChangeState, "/segzero/change_state")
        self._get = client.node.create_client(GetState, "/segzero/get_state")
        client.wait_until(self._change.service_is_ready)
        client.wait_until(self._get.service_is_ready)

    def begin(self, transition: int = 0, label: str = "") -> Any:
        request = ChangeState.Request(transition=Transition(id=transition, label=label))
        return self._change.call_async(request)

    def change(self, transition: int = 0, label: str = "") -> bool:
        return self._result(self.begin(transition, label)).success

    def state(self) -> str:
        return self._result(self._get.call_async(GetState.Request())).current_state.label

    def _result(self, future: Any) -> Any:
        self._client.wait_until(future.done)
        return future.result()


@pytest.fixture
def managed(start_node: Callable[..., Any], client: Any) -> Callable[..., Any]:
    def start(pipeline: Any, **parameters: Any) -> tuple[Any, Manager]:
        node = start_node(pipeline, autostart=False, **parameters)
        return node, Manager(client)

    return start


@pytest.mark.parametrize("start", WAY)
def test_an_illegal_transition_is_refused_and_the_node_stays_as_it_was(
    managed: Callable[..., Any], start: str
) -> None:
    _, manager = managed(fake_segzero(TWO_OBJECTS))
    bring_to(manager, start)
    for transition in [each for each in TRANSITIONS if (start, each) not in LEGAL]:
        assert not manager.change(transition)
        assert manager.state() == start


def bring_to(manager: Manager, state: str) -> None:
    if manager.state() != state:
        assert all(manager.change(each) for each in WAY[state])


@pytest.mark.parametrize(("start", "transition"), LEGAL, ids=lambda value: str(value))
def test_a_legal_transition_leads_where_it_should(
    managed: Callable[..., Any], start: str, transition: int
) -> None:
    _, manager = managed(fake_segzero(TWO_OBJECTS))
    bring_to(manager, start)
    assert manager.change(transition)
    assert manager.state() == LEGAL[start, transition]


def test_a_transition_may_be_asked_for_by_its_label(managed: Callable[..., Any]) -> None:
    _, manager = managed(fake_segzero(TWO_OBJECTS))
    assert manager.change(label="configure")
    assert not manager.change(label="no such thing")
    assert manager.state() == "inactive"


def test_others_are_served_while_a_model_loads_and_a_second_transition_is_refused(
    managed: Callable[..., Any], client: Any
) -> None:
    may_load = threading.Event()

    def load(_: Any) -> Any:
        assert may_load.wait(30.0)
        return fake_segzero(TWO_OBJECTS)

    _, manager = managed(load)
    first = manager.begin(CONFIGURE)
    client.heard.wait("status", lambda msg: msg.state == Status.LOADING)
    assert manager.state() == "configuring"
    assert not manager.change(CONFIGURE)
    assert not first.done()
    may_load.set()
    client.wait_until(first.done)
    assert first.result().success


def test_a_load_that_fails_can_be_tried_again(managed: Callable[..., Any], client: Any) -> None:
    tries = []

    def load(_: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise ModelLoadError("no weights; make them")
        if len(tries) == 2:
            raise RuntimeError("a defect")
        return fake_segzero(TWO_OBJECTS)

    node, manager = managed(load)
    for reason in ("no weights; make them", "a defect"):
        assert not manager.change(CONFIGURE)
        assert manager.state() == "unconfigured"
        client.heard.wait(
            "status", lambda msg, own=reason: msg.state == Status.ERROR and own in msg.detail
        )
    assert manager.change(CONFIGURE)
    assert manager.change(ACTIVATE)
    client.connect()
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", SegmentationResult.OK)


@pytest.mark.parametrize("step", ["do_activate", "do_deactivate", "do_shutdown"])
def test_an_exception_in_a_transition_is_logged_and_leads_to_unconfigured(
    managed: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    step: str,
) -> None:
    node, manager = managed(fake_segzero(TWO_OBJECTS))
    wanted = {
        "do_activate": ("inactive", ACTIVATE),
        "do_deactivate": ("active", DEACTIVATE),
        "do_shutdown": ("active", SHUTDOWN["active"]),
    }

    def broken() -> None:
        raise RuntimeError("a defect of ours")

    start, transition = wanted[step]
    bring_to(manager, start)
    with monkeypatch.context() as patch:
        patch.setattr(node, step, broken)
        assert not manager.change(transition)
    assert manager.state() == "unconfigured"
    assert "a defect of ours" in capfd.readouterr().err
    bring_to(manager, "active")


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "finalized"])
def test_a_query_to_a_node_that_is_not_active_is_reported_so(
    managed: Callable[..., Any], client: Any, state: str
) -> None:
    _, manager = managed(fake_segzero(TWO_OBJECTS))
    bring_to(manager, state)
    client.connect()
    result = client.ask_and_wait("the mugs", SegmentationResult.INACTIVE)
    assert state in result.error_msg


def test_deactivation_lets_the_running_query_finish_and_refuses_the_waiting_one(
    managed: Callable[..., Any], client: Any
) -> None:
    reasoner = GatedReasoner()
    node, manager = managed(pipeline_of(reasoner), deactivate_timeout_s=30.0)
    bring_to(manager, "active")
    client.connect()
    client.send_image(node, SIZE_WH)
    client.ask("the first")
    assert reasoner.waiting.wait(30.0)
    client.ask("the second")
    client.heard.wait("reasoning", lambda msg: msg.query_id == "2")
    changing = manager.begin(DEACTIVATE)
    second = client.heard.wait("result", lambda msg: msg.query_id == "2")
    assert second.error_code == SegmentationResult.INACTIVE
    reasoner.gate.set()
    first = client.heard.wait("result", lambda msg: msg.query_id == "1")
    assert first.error_code == SegmentationResult.OK
    client.wait_until(changing.done)
    assert manager.state() == "inactive"


def test_deactivation_cancels_a_query_that_takes_too_long(
    managed: Callable[..., Any], client: Any
) -> None:
    reasoner = ScriptedReasoner(TWO_OBJECTS, delay_s=5.0)
    node, manager = managed(pipeline_of(reasoner), deactivate_timeout_s=0.0)
    bring_to(manager, "active")
    client.connect()
    client.send_image(node, SIZE_WH)
    client.ask("the first")
    client.heard.wait("status", lambda msg: msg.state == Status.BUSY)
    assert manager.change(DEACTIVATE)
    result = client.heard.wait("result")
    assert result.error_code == SegmentationResult.CANCELLED
    assert "deactivated" in result.error_msg


def test_after_reactivation_no_image_of_the_time_before_is_answered(
    managed: Callable[..., Any], client: Any
) -> None:
    node, manager = managed(fake_segzero(TWO_OBJECTS), max_image_age_s=0.0)
    bring_to(manager, "active")
    client.connect()
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", SegmentationResult.OK)
    assert manager.change(DEACTIVATE)
    assert manager.change(ACTIVATE)
    client.ask_and_wait("the mugs", SegmentationResult.NO_IMAGE)
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", SegmentationResult.OK)


def test_cleanup_gives_the_memory_of_the_model_back(managed: Callable[..., Any]) -> None:
    weights_mb = 200

    def load(_: Any) -> Any:
        pipeline = fake_segzero(TWO_OBJECTS)
        pipeline.encoder.weights = np.ones(weights_mb * 125_000)
        return pipeline

    _, manager = managed(load)
    before = resident_mb()
    assert manager.change(CONFIGURE)
    loaded = resident_mb()
    assert loaded - before > 0.9 * weights_mb
    assert manager.change(CLEANUP)
    assert resident_mb() - before < 0.1 * weights_mb


def test_many_cycles_leave_no_thread_behind(managed: Callable[..., Any], client: Any) -> None:
    _, manager = managed(fake_segzero(TWO_OBJECTS))
    before = threading.active_count()
    for _ in range(5):
        bring_to(manager, "active")
        assert manager.change(DEACTIVATE)
        assert manager.change(CLEANUP)
    client.wait_until(lambda: threading.active_count() <= before)
