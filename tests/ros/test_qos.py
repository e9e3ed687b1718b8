"""How many images wait, and advice about endpoints whose QoS does not match."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.context import Context
from rclpy.duration import Duration, Infinite
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

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


def test_what_a_camera_sends_while_the_executor_is_away_all_arrives() -> None:
    context, heard = Context(), []
    context.init()
    executor = SingleThreadedExecutor(context=context)
    camera, node = (Node(name, context=context) for name in ("camera", "segzero"))
    publisher = camera.create_publisher(String, "image", qos.CAMERA)
    node.create_subscription(String, "image", lambda msg: heard.append(msg.data), qos.CAMERA)
    executor.add_node(node)
    while not publisher.get_subscription_count():
        executor.spin_once(timeout_sec=0.1)

    sent = ["1", "2", "3"]
    for data in sent:
        publisher.publish(String(data=data))
    for _ in sent:
        executor.spin_once(timeout_sec=1.0)
    context.shutdown()

    assert heard == sent
