"""The manual's tables say what the code does."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

import segzero_core
from segzero_core.testing.fakes import fake_segzero
from tests.setup.scripts import ROOT, load_script

tables = load_script("write_tables")
OF_ROS = ("/rosout", "/parameter_events", "/transition_event", "/_action/")
ROW = re.compile(r"\| (in|out) \| `(\S+?)`[^|]* \| (\w+)/(\w+)[^|]* \| ([^|]+) \|")


def test_the_tables_from_the_code_are_current(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["write_tables.py", "--check"])
    assert tables.main() == 0, capsys.readouterr().out


def test_a_table_goes_between_its_marks_and_nowhere_else() -> None:
    page = "before\n<!-- table: a -->\nold\n<!-- end of the table -->\nafter\n"
    new = tables.with_table(page, "a", "new\n")
    assert new == "before\n<!-- table: a -->\n\nnew\n\n<!-- end of the table -->\nafter\n"
    with pytest.raises(ValueError, match="one table 'b', found 0"):
        tables.with_table(page, "b", "new")


def test_topics_of_the_manual_are_those_of_the_node(start_node: Callable[..., Any]) -> None:
    node = start_node(fake_segzero("<answer>[]</answer>"))
    optional = {"~/detections", "~/detections_3d", "image/compressed"}
    documented = {}
    for way, topic, package, kind, policy in ROW.findall((ROOT / "docs/topics.md").read_text()):
        if topic not in optional:
            name = topic.replace("~", f"/{node.get_name()}")
            name = name if name.startswith("/") else f"/{name}"
            documented[way, name] = f"{package}/msg/{kind}", policy
    found = {}
    for way, ends in (("out", node.publishers), ("in", node.subscriptions)):
        for end in ends:
            topic, package = end.topic_name, end.msg_type.__module__.split(".")[0]
            if not any(part in topic for part in (*OF_ROS, "/detections")):
                kind = f"{package}/msg/{end.msg_type.__name__}"
                found[way, topic] = kind, policy_words(topic, end.qos_profile)
    assert found == {key: (kind, how.split(",")[0]) for key, (kind, how) in documented.items()}


def policy_words(topic: str, profile: Any) -> str:
    is_latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert is_latched == topic.endswith("/status")
    return "best effort" if profile.reliability == ReliabilityPolicy.BEST_EFFORT else "reliable"


def test_depths_of_the_manual_are_those_of_the_profiles() -> None:
    from segzero_ros import qos

    depths = {
        topic: int(re.search(r", (\d+)", policy)[1])
        for _, topic, _, _, policy in ROW.findall((ROOT / "docs/topics.md").read_text())
    }
    profiles = {"~/query": qos.QUERY, "~/reasoning": qos.TRACE, "~/status": qos.LATCHED}
    cameras = {"image", "image/compressed", "depth/image", "camera_info"}
    assert depths == {
        topic: (qos.CAMERA if topic in cameras else profiles.get(topic, qos.RESULT)).depth
        for topic in depths
    }


def test_the_reference_shows_every_public_name() -> None:
    page = (ROOT / "docs/python.md").read_text("utf-8")
    shown = set(re.findall(r"^::: segzero_core\.(\w+)$", page, re.MULTILINE))
    assert shown - {"depth"} == set(segzero_core.__all__)
