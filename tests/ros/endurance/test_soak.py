"""Many queries in a row, with cancels, preemptions and lifecycle cycles by chance.

The whole run: SOAK_QUERIES=1000 scripts/in_env.sh python -m pytest -m slow tests/ros/endurance
"""

from __future__ import annotations

import collections
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition

from segzero_core.testing.fakes import fake_segzero
from segzero_ros.diagnostics.health import resident_mb
from segzero_ros.diagnostics.memory import release_memory
from segzero_ros.msg import SegmentationResult
from tests.ros.queries.test_action_server import Sender
from tests.ros.scripted import SIZE_WH, TWO_OBJECTS

SHORT, WHOLE = 60, int(os.environ.get("SOAK_QUERIES", "1000"))
SETTLED = 100
MAX_GROWTH_MB = 20.0
CYCLE = (
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(WHOLE, id="whole", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_every_query_ends_with_one_result_and_nothing_is_left(
    start_node: Callable[..., Any], client: Any, count: int
) -> None:
    chance = random.Random(count)
    node = start_node(fake_segzero(TWO_OBJECTS, delay_s=0.0005), deactivate_timeout_s=0.0)
    client.connect()
    sender = Sender(client)
    goals, asked, settled_mb = [], 0, 0.0
    for number in range(count):
        if number % 10 == 0:
            client.send_image(node, SIZE_WH)
        if chance.random() < 0.5:
            client.ask(f"query {number}")
            asked += 1
        else:
            goals.append(sender.send(f"goal {number}"))
            if goals[-1].handle.accepted:
                goals[-1].follow()
                if chance.random() < 0.3:
                    goals[-1].cancel()
        if chance.random() < 0.6:  # else the next one comes while this one runs
            client.wait_until(lambda: node.queries.is_idle)
        if chance.random() < 0.02:
            done = node.begin_transitions(*CYCLE)
            client.wait_until(done.done)
            assert done.result()
            client.send_image(node, SIZE_WH)
        if number == SETTLED:
            release_memory()
            settled_mb = resident_mb()
    for goal in goals:
        if goal.handle.accepted:
            status, result = goal.result()
            assert status in (4, 5, 6)
            assert result.query.startswith("goal")
    heard = client.heard.all
    client.wait_until(lambda: len(heard("result")) == asked + len(goals))
    twice = [
        query
        for query, times in collections.Counter(m.query for m in heard("result")).items()
        if times > 1
    ]
    assert not twice
    client.wait_until(lambda: node.queries.is_idle)  # counted down after its result is out
    assert node.queries.is_idle
    codes = {msg.error_code for msg in heard("result")}
    assert codes <= {
        SegmentationResult.OK,
        SegmentationResult.CANCELLED,
        SegmentationResult.INACTIVE,
    }
    if count > SETTLED:
        client.heard.forget()  # the client lives in the same process
        goals.clear()
        release_memory()
        grown_mb = resident_mb() - settled_mb
        print(f"grew by {grown_mb:.1f} MB after the first {SETTLED}")  # shown by pytest -s
        assert grown_mb < MAX_GROWTH_MB, f"{grown_mb:.1f} MB"
