"""The node's state, changed by several threads."""

from __future__ import annotations

import threading

from segzero_ros.diagnostics.status import StatusReporter
from segzero_ros.msg import Status

TIMEOUT_S = 10.0


class Topic:
    """Records what is published, and keeps the first publication waiting if it is asked to."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.inside, self.gate = threading.Event(), threading.Event()
        self.published: list[Status] = []
        if is_open:
            self.gate.set()

    def publish(self, status: Status) -> None:
        self.inside.set()
        assert self.gate.wait(TIMEOUT_S)
        self.published.append(status)


def test_a_state_that_was_expected_is_replaced_and_another_stays() -> None:
    topic = Topic()
    status = StatusReporter("tabletop", topic.publish)
    status.report(Status.READY, "ready")
    assert status.compare_and_set((Status.READY, ""), Status.BUSY, "answering", "1")
    assert not status.compare_and_set((Status.READY, ""), Status.READY, "ready; 2 are followed")
    assert not status.compare_and_set((Status.BUSY, "2"), Status.READY, "ready")
    assert (status.status.state, status.status.active_query_id) == (Status.BUSY, "1")
    assert [each.state for each in topic.published] == [Status.READY, Status.BUSY]


def test_the_tracking_never_overwrites_that_the_node_is_busy() -> None:
    topic = Topic()
    status = StatusReporter("tabletop", topic.publish)
    status.report(Status.READY, "ready")
    topic.inside.clear()
    topic.gate.clear()

    def track() -> None:
        status.compare_and_set((Status.READY, ""), Status.READY, "ready; 2 are followed")

    def answer() -> None:
        status.compare_and_set((Status.READY, ""), Status.BUSY, "answering", "1")

    tracking = threading.Thread(target=track, daemon=True)
    tracking.start()
    assert topic.inside.wait(TIMEOUT_S)
    answering = threading.Thread(target=answer, daemon=True)
    answering.start()
    topic.gate.set()
    for thread in (tracking, answering):
        thread.join(TIMEOUT_S)
    assert topic.published[-1] is status.status
    assert (status.status.state, status.status.active_query_id) == (Status.BUSY, "1")


def test_loading_is_repeated_with_the_time_until_something_else_is_reported() -> None:
    topic = Topic()
    status = StatusReporter("tabletop", topic.publish)
    status.report_loading()
    status.repeat_loading()
    status.repeat_loading()
    assert [each.detail for each in topic.published] == [
        "loading tabletop",
        "loading tabletop, 0 s so far",
        "loading tabletop, 0 s so far",
    ]
    status.report(Status.INACTIVE, "configured, not active")
    status.repeat_loading()
    assert status.status.state == Status.INACTIVE
