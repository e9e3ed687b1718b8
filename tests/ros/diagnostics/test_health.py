"""/diagnostics and quality of service: why nothing comes can be seen from outside."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from segzero_core.errors import SegmentationError
from segzero_core.reasoner.fallback import NamedReasoner
from segzero_core.segmenter.encoder_selection import FallbackEncoder
from segzero_core.testing.fakes import FakeEncoder, ScriptedReasoner, fake_segzero
from segzero_core.types import ModelIdentity
from segzero_ros import qos
from segzero_ros.diagnostics.health import gpu_mb
from segzero_ros.diagnostics.memory import release_memory
from segzero_ros.msg import SegmentationResult
from tests.ros.scripted import SIZE_WH, THINKING, TWO_OBJECTS, GatedReasoner, pipeline_of


@pytest.fixture
def watched(client: Any) -> Any:
    """The client, hearing the diagnostics too."""
    client.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda msg: client.heard.add("diagnostics", msg), 10
    )
    return client


def part(array: DiagnosticArray, name: str) -> DiagnosticStatus:
    return next(each for each in array.status if each.name == f"segzero: {name}")


def values(array: DiagnosticArray, name: str) -> dict[str, str]:
    return {each.key: each.value for each in part(array, name).values}


def test_diagnostics_come_while_the_model_works(
    start_node: Callable[..., Any], watched: Any
) -> None:
    reasoner = GatedReasoner()
    node = start_node(pipeline_of(reasoner))
    watched.connect()
    watched.send_image(node, SIZE_WH)
    watched.ask("the mugs")
    assert reasoner.waiting.wait(30.0)
    for _ in range(2):
        before = len(watched.heard.all("diagnostics"))
        watched.wait_until(lambda own=before: len(watched.heard.all("diagnostics")) > own)
    reported = watched.heard.all("diagnostics")[-1]
    assert values(reported, "model")["state"] == "BUSY"
    assert float(values(reported, "model")["memory_mb"]) > 0
    reasoner.gate.set()


def test_diagnostics_tell_latency_backend_and_the_last_error(
    start_node: Callable[..., Any], watched: Any
) -> None:
    node = start_node(fake_segzero([TWO_OBJECTS, "prose"]))
    watched.connect()
    watched.send_image(node, SIZE_WH)
    watched.ask_and_wait("the mugs", SegmentationResult.OK)
    watched.ask_and_wait("the mugs", SegmentationResult.UNUSABLE_ANSWER)
    reported = watched.heard.wait(
        "diagnostics", lambda msg: "results_unusable_answer" in values(msg, "model")
    )
    model = values(reported, "model")
    assert (model["results_ok"], model["encoder_backend"]) == ("1", "fake")
    assert 0 < float(model["latency_p50_ms"]) <= float(model["latency_p95_ms"])
    assert model["last_error"].startswith("query 2: ")
    assert float(values(reported, "camera")["age_s"]) >= 0
    assert int(values(reported, "camera")["images"]) >= 1


class FailingEncoder:
    backend = "tensorrt"

    def encode(self, image: Any) -> Any:
        raise SegmentationError("the engine stopped")


def test_an_encoder_that_fails_while_it_runs_is_replaced_and_every_place_says_so(
    start_node: Callable[..., Any], watched: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = FallbackEncoder(FailingEncoder(), FakeEncoder())
    pipeline = pipeline_of(ScriptedReasoner([TWO_OBJECTS]), encoder)
    identity = ModelIdentity("scripted", "0" * 16, "tensorrt", "the fastest that is there")
    node = start_node(replace(pipeline, identity=identity))
    watched.connect()
    before = watched.heard.wait("diagnostics", lambda msg: values(msg, "model")["encoder_reason"])
    assert values(before, "model")["encoder_backend"] == "tensorrt"
    watched.send_image(node, SIZE_WH)

    results = [watched.ask_and_wait("the mugs", SegmentationResult.OK) for _ in range(2)]

    assert [result.encoder_backend for result in results] == ["fake", "fake"]
    assert [instance.area_px for instance in results[0].instances] == [600, 1400]
    reported = watched.heard.wait(
        "diagnostics", lambda msg: values(msg, "model")["encoder_backend"] == "fake"
    )
    assert "tensorrt failed" in values(reported, "model")["encoder_reason"]
    assert capfd.readouterr().err.count("the engine stopped") == 1


def test_a_fallback_answers_in_time_and_every_place_says_so(
    start_node: Callable[..., Any], watched: Any
) -> None:
    hung = ScriptedReasoner(TWO_OBJECTS, delay_s=3600.0)
    pipeline = pipeline_of(hung, FakeEncoder())
    second = NamedReasoner(
        ModelIdentity("second", "1" * 16, "fake"), ScriptedReasoner([TWO_OBJECTS])
    )
    node = start_node(replace(pipeline, fallbacks=(second,)), timeout_s=4.0)
    watched.connect()
    watched.send_image(node, SIZE_WH)

    results = [watched.ask_and_wait("the mugs", SegmentationResult.OK) for _ in range(3)]

    assert {(result.model, result.answered_by) for result in results} == {("second", "second")}
    assert len(hung.queries) == 2  # then it is left alone
    reported = watched.heard.wait(
        "diagnostics", lambda msg: values(msg, "reasoner 2").get("answered") == "3"
    )
    assert part(reported, "reasoner 1").level == DiagnosticStatus.WARN
    first = values(reported, "reasoner 1")
    assert (first["state"], first["failed"]) == ("open", "2")
    assert "no text within" in first["last_error"]
    assert part(reported, "reasoner 2").level == DiagnosticStatus.OK


def test_the_core_s_log_is_the_node_s(
    start_node: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    start_node(fake_segzero(TWO_OBJECTS))
    logging.getLogger("segzero_core.loading").info("image encoder torch: it was asked for")
    assert "[segzero]: image encoder torch: it was asked for" in capfd.readouterr().err


def test_memory_can_be_asked_for_while_torch_is_being_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert gpu_mb() == 0.0
    release_memory()


def test_a_camera_that_stops_is_an_error(start_node: Callable[..., Any], watched: Any) -> None:
    node = start_node(fake_segzero(TWO_OBJECTS), max_image_age_s=0.01)
    watched.connect()
    watched.send_image(node, SIZE_WH)
    reported = watched.heard.wait(
        "diagnostics", lambda msg: part(msg, "camera").level == DiagnosticStatus.ERROR
    )
    assert "the last image came" in part(reported, "camera").message


def test_a_topic_that_cannot_be_heard_is_logged_with_its_remedy(
    answering: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    _, client = answering
    profile = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    client.node.create_subscription(Image, "/segzero/mask", lambda _: None, profile)
    logged: list[str] = []

    def is_logged() -> bool:
        logged.append(capfd.readouterr().err)
        return "subscribe there with durability volatile" in "".join(logged)

    client.wait_until(is_logged)
    assert "/segzero/mask" in "".join(logged)


def test_diagnostics_name_any_policy_that_does_not_match(
    start_node: Callable[..., Any], watched: Any
) -> None:
    start_node(fake_segzero(TWO_OBJECTS))
    watched.connect()
    profile = QoSProfile(depth=1, deadline=Duration(seconds=1))
    watched.node.create_subscription(Image, "/segzero/mask", lambda _: None, profile)
    reported = watched.heard.wait(
        "diagnostics", lambda msg: "/segzero/mask" in values(msg, "connections")
    )
    advice = values(reported, "connections")["/segzero/mask"]
    assert "Subscription deadline is less than publisher deadline" in advice
    assert "subscribe there with the default deadline" in advice


def test_the_reliability_of_a_topic_can_be_overridden(graph: Any) -> None:
    from segzero_ros.node import SegZeroNode

    name = "qos_overrides./segzero/mask.publisher.reliability"
    arguments = ["--ros-args", "-p", f"{name}:=best_effort"]
    node = SegZeroNode(
        lambda _: fake_segzero(TWO_OBJECTS), context=graph.context, cli_args=arguments
    )
    graph.spin(node)
    graph.wait_until(lambda: node.count_publishers("/segzero/mask"))
    (info,) = node.get_publishers_info_by_topic("/segzero/mask")
    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert qos.RESULT.reliability == ReliabilityPolicy.RELIABLE  # the shared one stays


def test_two_nodes_of_other_names_run_side_by_side(graph: Any) -> None:
    from segzero_ros.node import SegZeroNode

    nodes = [
        SegZeroNode(
            lambda _: fake_segzero(TWO_OBJECTS),
            context=graph.context,
            cli_args=["--ros-args", "-r", f"__node:={name}", "-r", "__ns:=/robot"],
        )
        for name in ("left", "right")
    ]
    for node in nodes:
        graph.spin(node)
    graph.wait_until(lambda: all(node.state_label == "active" for node in nodes))
    for name in ("left", "right"):
        assert nodes[0].count_publishers(f"/robot/{name}/result") == 1


def test_markers_show_the_reasoning_to_whoever_looks(answering: Any) -> None:
    node, client = answering
    client.node.create_subscription(
        MarkerArray, "/segzero/markers", lambda msg: client.heard.add("markers", msg), 10
    )
    client.wait_until(lambda: node.count_subscribers("/segzero/markers"))
    header = client.send_image(node, SIZE_WH)
    client.ask("the mugs")
    markers = client.heard.wait("markers").markers
    assert all(marker.header == header for marker in markers)
    assert THINKING.split()[-1] in markers[1].text


def test_a_simulated_clock_may_stand_still_and_jump_back(
    start_node: Callable[..., Any], watched: Any
) -> None:
    """Waiting, ages and diagnostics go by the monotonic clock; only headers tell the ROS time."""
    node = start_node(fake_segzero(TWO_OBJECTS), use_sim_time=True, max_image_age=5.0)
    watched.connect()
    clock = watched.node.create_publisher(Clock, "/clock", 10)
    watched.wait_until(clock.get_subscription_count)

    for sec in (5000, 10):
        now = Time(sec=sec)
        clock.publish(Clock(clock=now))
        watched.wait_until(lambda now=now: node.get_clock().now().to_msg() == now)
        header = watched.send_image(node, SIZE_WH)
        result = watched.ask_and_wait("the mugs", SegmentationResult.OK)
        assert result.header == header
        before = len(watched.heard.all("diagnostics"))
        watched.wait_until(lambda own=before: len(watched.heard.all("diagnostics")) > own)
        assert watched.heard.all("diagnostics")[-1].header.stamp == now
