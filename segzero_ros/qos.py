"""Quality of service of every topic, and what to do about endpoints that do not match."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from rclpy.duration import Infinite
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.topic_endpoint_info import TopicEndpointInfo

from segzero_core.errors import ConfigError
from segzero_core.limits import MAX_WAITING_QUERIES
from segzero_ros.diagnostics.guard import Guard

# rclpy's own defaults: keep the last, reliable, volatile.
CAMERA: Final = QoSProfile(depth=4, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Input from a camera: matches reliable and best-effort publishers; none of its messages is lost
while the executor is away for a moment, and the newest is never more than a moment behind."""

QUERY: Final = QoSProfile(depth=MAX_WAITING_QUERIES)
"""Questions: none is lost, and none is answered that was asked before the node ran."""

GOAL: Final = QoSProfile(depth=MAX_WAITING_QUERIES)
"""Services of the action: each goal gets its response, also of many at once."""

RESULT: Final = QoSProfile(depth=10)
"""Answers: match reliable and best-effort subscribers."""

TRACE: Final = QoSProfile(depth=100)
"""The stream of thinking: deeper, so that a slow subscriber misses no message."""

LATCHED: Final = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""State: a late subscriber still receives the last one."""


@dataclass(frozen=True)
class Endpoints:
    """Makes the publishers and subscriptions of a node, with overridable QoS.

    `on_mismatch` is called with a topic and lines of advice when a peer's QoS is incompatible.
    """

    node: Node
    on_mismatch: Callable[[str, list[str]], None]
    guard: Guard

    def publisher(self, kind: Any, topic: str, profile: QoSProfile) -> Any:
        """Make a publisher."""

        def mismatched(_: Any) -> None:
            name = publisher.topic_name
            peers = self.node.get_subscriptions_info_by_topic(name)
            self.on_mismatch(name, fix_for_publisher(name, publisher.qos_profile, peers))

        events = PublisherEventCallbacks(incompatible_qos=mismatched)
        with _override_errors(topic):
            publisher = self.node.create_publisher(
                kind, topic, event_callbacks=events, **_overridable(profile)
            )
        return publisher

    def subscribe(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        profile: QoSProfile,
        **options: Any,
    ) -> None:
        """Make a subscription whose callback cannot end the node."""

        def mismatched(_: Any) -> None:
            name = subscription.topic_name
            peers = self.node.get_publishers_info_by_topic(name)
            self.on_mismatch(name, fix_for_subscription(name, subscription.qos_profile, peers))

        def guarded(msg: Any) -> None:
            with self.guard(f"in the callback of {topic}"):  # rclpy would end the node
                callback(msg)

        events = SubscriptionEventCallbacks(incompatible_qos=mismatched)
        with _override_errors(topic):
            subscription = self.node.create_subscription(
                kind, topic, guarded, event_callbacks=events, **options, **_overridable(profile)
            )


@contextmanager
def _override_errors(topic: str) -> Iterator[None]:
    """Turn what rclpy raises about a `qos_overrides` parameter into a `ConfigError`."""
    try:
        yield
    except Exception as error:  # RuntimeError, TypeError, ValueError, its own
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"{topic} cannot be made: {reason}; look at its qos_overrides parameters"
        ) from error


def _overridable(profile: QoSProfile) -> dict[str, Any]:
    """Return the arguments that make a topic with this profile and its `qos_overrides`.

    rclpy writes the overrides into the very profile it is given, which must not be the shared one.
    """
    return {
        "qos_profile": copy.copy(profile),
        "qos_overriding_options": QoSOverridingOptions.with_default_policies(),
    }


def mismatch(offered: QoSProfile, requested: QoSProfile) -> str | None:
    """Say why a publisher and a subscription do not match, in rclpy's words, if they do not."""
    compatibility, reasons = qos_check_compatible(_explicit(offered), _explicit(requested))
    if compatibility != QoSCompatibility.ERROR:  # a warning: the peer's policy is not known
        return None
    return "; ".join(part.removeprefix("ERROR: ") for part in reasons.split(";") if part)


def _explicit(profile: QoSProfile) -> QoSProfile:
    """Return a profile that says what unspecified policies mean, as discovered profiles do.

    rclpy's check takes an unspecified policy and its own meaning for two different ones.
    """
    explicit = copy.copy(profile)
    for name in ("deadline", "liveliness_lease_duration"):
        if not getattr(profile, name).nanoseconds:
            setattr(explicit, name, Infinite)
    if profile.liveliness == LivelinessPolicy.SYSTEM_DEFAULT:
        explicit.liveliness = LivelinessPolicy.AUTOMATIC
    return explicit


def fix_for_subscription(
    topic: str, own: QoSProfile, publishers: Iterable[TopicEndpointInfo]
) -> list[str]:
    """Say how a subscription of this node gets to match each publisher that it does not."""
    return [
        f"{topic}: nothing is received from node {full_name(info)}: {reason}; publish reliable "
        "there, or start this node with "
        f"-p qos_overrides.{topic}.subscription.reliability:=best_effort"
        for info in publishers
        if (reason := mismatch(info.qos_profile, own)) is not None
    ]


def fix_for_publisher(
    topic: str, own: QoSProfile, subscriptions: Iterable[TopicEndpointInfo]
) -> list[str]:
    """Say how each subscription that does not match a publisher of this node gets to match it."""
    lines = []
    for info in subscriptions:
        reason, theirs = mismatch(own, info.qos_profile), info.qos_profile
        if reason is None:
            continue
        if theirs.durability == DurabilityPolicy.TRANSIENT_LOCAL != own.durability:
            advice = "subscribe there with durability volatile"
        elif theirs.reliability == ReliabilityPolicy.RELIABLE != own.reliability:
            advice = (
                "subscribe there with reliability best_effort, or start this node with "
                f"-p qos_overrides.{topic}.publisher.reliability:=reliable"
            )
        else:  # this node promises no deadline, liveliness or lease
            advice = "subscribe there with the default deadline, liveliness and lease"
        lines.append(f"{topic}: node {full_name(info)} receives nothing: {reason}; {advice}")
    return lines


def full_name(info: TopicEndpointInfo) -> str:
    """Return the name of an endpoint's node, with its namespace."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
