"""`segzero doctor --ros`: each thing that can be wrong on a graph is named with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from segzero_cli.doctor import ros_graph
from segzero_cli.doctor.ros_graph import lost_share, run
from segzero_core.testing.fakes import fake_segzero
from tests.ros.scripted import SIZE_WH, TWO_OBJECTS

PATIENCE_S = 4.0


def examine(
    capsys: pytest.CaptureFixture[str], target: str = "/segzero", patience_s: float = PATIENCE_S
) -> tuple[bool, str]:
    well = run(target, patience_s)
    return well, capsys.readouterr().out


def test_a_missing_node_is_reported(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    well, said = examine(capsys, "/nobody")
    assert not well
    assert "no /nobody in this domain" in said


def test_a_node_that_is_not_active_is_reported_with_the_command_that_helps(
    start_node: Callable[..., Any], client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    start_node(fake_segzero(TWO_OBJECTS), autostart=False)
    client.connect()
    well, said = examine(capsys)
    assert not well
    assert "unconfigured: not configured; ros2 lifecycle set /segzero configure" in said


def test_two_nodes_of_one_name_are_reported(
    start_node: Callable[..., Any], client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        start_node(fake_segzero(TWO_OBJECTS))
    client.connect()
    client.wait_until(lambda: client.node.count_publishers("/segzero/status") == 2)
    well, said = examine(capsys)
    assert not well
    assert "are called /segzero, and each answers" in said


def test_a_camera_under_another_name_is_reported_with_the_remapping(
    graph: Any,
    start_node: Callable[..., Any],
    make_client: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_node(fake_segzero(TWO_OBJECTS))
    client = make_client(camera_topic="/cam/image_raw")
    client.connect()
    well, said = examine(capsys)
    assert not well
    assert "nobody publishes /image" in said
    assert "/cam/image_raw" in said


def test_a_healthy_graph_passes_and_tells_what_was_asked(
    answering: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    node, client = answering
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", 0)
    timer = client.node.create_timer(0.05, client.publish_image)
    well, said = examine(capsys, patience_s=20.0)  # nothing is missing, so nothing is waited for
    client.node.destroy_timer(timer)
    assert well, said
    assert "100x100 rgb8" in said or "64x48 rgb8" in said
    assert "1 ok" in said
    assert "clocks that differ" in said  # the stamps of the test are of 1970


@pytest.mark.parametrize(
    ("numbers", "share"),
    [([], 0.0), ([None, None], 0.0), ([7], 0.0), ([7, 8, 9, 10], 0.0), ([1, 3, 4, 8], 0.5)],
    ids=str,
)
def test_what_is_lost_is_counted_by_the_publishers_numbers(
    numbers: list[int | None], share: float
) -> None:
    assert lost_share(numbers) == share


def test_images_that_are_lost_are_reported_with_the_cure(
    answering: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ros_graph, "MAX_LOST_SHARE", -1.0)  # none is too many
    _, client = answering
    timer = client.node.create_timer(0.05, client.publish_image)
    well, said = examine(capsys)
    client.node.destroy_timer(timer)
    assert not well
    assert "% of the images of /image do not arrive; start the camera with" in said
    assert "config/fastdds.xml" in said


def test_a_publisher_of_queries_that_cannot_be_heard_is_reported(
    answering: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    node, client = answering
    profile = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    client.node.create_publisher(String, "/segzero/query", profile)
    client.wait_until(lambda: node.count_publishers("/segzero/query") == 2)
    well = run("/segzero", 2 * PATIENCE_S)
    said = capfd.readouterr()
    assert not well
    fix = "qos_overrides./segzero/query.subscription.reliability:=best_effort"
    assert fix in said.out
    assert fix in said.err  # and in the node's own log
