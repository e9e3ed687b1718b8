"""Quality of service of every topic, by name, and how to mend what does not fit."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rclpy.topic_endpoint_info import TopicEndpointInfo


def _profile(
    depth: int,
    reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
    durability: DurabilityPolicy = DurabilityPolicy.VOLATILE,
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
    )


NEWEST_IMAGE: Final = _profile(1, ReliabilityPolicy.BEST_EFFORT)
"""Input from a camera: hears reliable and best-effort publishers, and keeps no old picture."""

QUERY: Final = _profile(10)
"""Questions: none is lost, and none is answered that was asked before the node ran."""

RESULT: Final = _profile(10)
"""Answers: heard by reliable and best-effort subscribers."""

TRACE: Final = _profile(100)
"""The stream of thinking: deeper, so that a slow subscriber misses no piece."""

LATCHED: Final = _profile(1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""State: whoever comes later still hears the last one."""


def overridable(profile: QoSProfile) -> dict[str, object]:
    """Return the arguments that make a topic with this profile and its `qos_overrides`.

    rclpy writes the overrides into the very profile it is given, which must not be the shared one.
    """
    return {
        "qos_profile": copy.copy(profile),
        "qos_overriding_options": QoSOverridingOptions.with_default_policies(),
    }


def mismatch(offered: QoSProfile, requested: QoSProfile) -> str | None:
    """Say why a publisher and a subscription do not hear each other, if they do not."""
    if (
        requested.reliability == ReliabilityPolicy.RELIABLE
        and offered.reliability == ReliabilityPolicy.BEST_EFFORT
    ):
        return "the publisher offers best_effort, the subscription asks for reliable"
    if (
        requested.durability == DurabilityPolicy.TRANSIENT_LOCAL
        and offered.durability == DurabilityPolicy.VOLATILE
    ):
        return "the publisher offers volatile, the subscription asks for transient_local"
    return None


def fix_for_subscription(
    topic: str, own: QoSProfile, publishers: Iterable[TopicEndpointInfo]
) -> list[str]:
    """Say how a subscription of this node gets to hear each publisher that it cannot.

    Args:
        topic: Full name.
        own: Profile of the subscription.
        publishers: Of that topic.
    """
    return [
        f"{topic}: node {_full_name(info)} cannot be heard: {reason}; publish reliable there, or "
        "start this node with "
        f"-p qos_overrides.{topic}.subscription.reliability:=best_effort"
        for info in publishers
        if (reason := mismatch(info.qos_profile, own)) is not None
    ]


def fix_for_publisher(
    topic: str, own: QoSProfile, subscriptions: Iterable[TopicEndpointInfo]
) -> list[str]:
    """Say how each subscription that cannot hear a publisher of this node gets to hear it."""
    lines = []
    for info in subscriptions:
        reason = mismatch(own, info.qos_profile)
        if reason is None:
            continue
        if info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL != own.durability:
            advice = "subscribe there with durability volatile"
        else:
            advice = (
                "subscribe there with reliability best_effort, or start this node with "
                f"-p qos_overrides.{topic}.publisher.reliability:=reliable"
            )
        lines.append(f"{topic}: node {_full_name(info)} hears nothing: {reason}; {advice}")
    return lines


def _full_name(info: TopicEndpointInfo) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
