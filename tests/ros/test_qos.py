"""Advice about endpoints whose QoS does not match, by every policy that ROS knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.duration import Duration, Infinite
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

from segzero_ros import qos


def peer(**policies: Any) -> Any:
    """An endpoint of another node, as discovery shows it: with infinite durations."""
    durations = {"deadline": Infinite, "liveliness_lease_duration": Infinite}
    profile = QoSProfile(depth=1, **(durations | policies))
    return SimpleNamespace(node_namespace="/", node_name="peer", qos_profile=profile)


@pytest.mark.parametrize(
    ("policies", "advice"),
    [
        pytest.param(
            {"durability": DurabilityPolicy.TRANSIENT_LOCAL},
            "durability volatile",
            id="durability",
        ),
        pytest.param({"deadline": Duration(seconds=1)}, "default deadline", id="deadline"),
        pytest.param(
            {"liveliness_lease_duration": Duration(seconds=1)}, "liveliness and lease", id="lease"
        ),
        pytest.param(
            {"liveliness": LivelinessPolicy.MANUAL_BY_TOPIC}, "liveliness", id="liveliness"
        ),
    ],
)
def test_a_subscriber_that_asks_for_more_than_is_offered_is_reported_what_to_change(
    policies: dict[str, Any], advice: str
) -> None:
    (line,) = qos.fix_for_publisher("/mask", qos.RESULT, [peer(), peer(**policies)])
    assert line.startswith("/mask: node /peer receives nothing: ")
    assert advice in line


def test_a_best_effort_publisher_is_reported_to_a_reliable_subscription() -> None:
    best_effort = peer(reliability=ReliabilityPolicy.BEST_EFFORT)
    (line,) = qos.fix_for_subscription("/query", qos.QUERY, [peer(), best_effort])
    assert "Best effort publisher and reliable subscription" in line
    assert "qos_overrides./query.subscription.reliability:=best_effort" in line
