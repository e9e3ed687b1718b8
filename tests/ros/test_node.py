"""The node's contract with a scripted model: topics, headers, streaming, one worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from segzero_core import SegZero
from segzero_core.images.encodings import array_from_msg
from segzero_core.testing.fakes import fake_segzero
from segzero_ros.msg import ReasoningTrace, SegmentationResult, Status
from tests.ros.scripted import (
    NOTHING,
    SIZE_WH,
    THINKING,
    TWO_OBJECTS,
    GatedReasoner,
    pipeline_of,
)

OK = SegmentationResult.OK


def test_a_query_brings_a_result_with_the_masks_of_all_objects(answering: Any) -> None:
    node, client = answering
    client.send_image(node, SIZE_WH)
    result = client.ask_and_wait("the mugs", OK)
    assert result.query == "the mugs"
    assert result.thinking == THINKING
    assert result.completion == TWO_OBJECTS
    assert [list(instance.box_xyxy) for instance in result.instances] == [
        [10, 10, 30, 40],
        [50, 60, 90, 95],
    ]
    first = result.instances[0]
    assert (first.id, first.label, first.area_px) == (1, "the mugs", 20 * 30)
    assert (first.mask_x_offset, first.mask_y_offset) == (10, 10)
    assert (first.mask.width, first.mask.height) == (20, 30)
    assert [(point.x, point.y) for point in first.points] == [(20.0, 25.0)]
    assert not first.has_pose
    assert not first.grasps


def test_a_result_says_where_it_comes_from(answering: Any) -> None:
    node, client = answering
    client.send_image(node, SIZE_WH)
    result = client.ask_and_wait("the mugs", OK)
    assert (result.model, result.model_hash) == ("scripted", "0" * 16)
    assert (result.encoder_backend, result.answered_by) == ("fake", "scripted")
    assert (result.image_width, result.image_height) == SIZE_WH
    assert result.total_ms >= result.reasoner_ms >= result.first_token_ms > 0.0
    assert result.wait_ms >= 0.0
    assert result.tokens > 0


def test_mask_and_instances_are_images_of_the_camera_s_size(answering: Any) -> None:
    node, client = answering
    client.send_image(node, SIZE_WH)
    client.ask("the mugs")
    mask, instances = client.heard.wait("mask"), client.heard.wait("instances")
    expected = np.zeros((100, 100), np.uint16)
    expected[10:40, 10:30] = 1
    expected[60:95, 50:90] = 2
    assert (mask.encoding, instances.encoding) == ("mono8", "mono16")
    np.testing.assert_array_equal(array_from_msg(instances), expected)
    np.testing.assert_array_equal(array_from_msg(mask), np.where(expected, 255, 0))


def test_every_message_carries_the_header_of_the_image_answered_about(answering: Any) -> None:
    node, client = answering
    for _ in range(2):
        header = client.send_image(node, SIZE_WH)
        result = client.ask_and_wait("the mugs", OK)
        assert result.header == header
        assert all(instance.mask.header == header for instance in result.instances)
        done = client.heard.wait(
            "reasoning", lambda msg, own=result: msg.done and msg.query_id == own.query_id
        )
        assert done.header == header
        for topic in ("mask", "instances"):
            assert client.heard.wait(topic, lambda msg, own=header: msg.header == own)


def test_a_image_that_comes_while_the_model_thinks_does_not_change_the_header(
    start_node: Callable[..., Any], client: Any
) -> None:
    reasoner = GatedReasoner()
    node = start_node(pipeline_of(reasoner))
    client.connect()
    asked_about = client.send_image(node, SIZE_WH)
    client.ask("the mugs")
    assert reasoner.waiting.wait(30.0)
    assert client.send_image(node, SIZE_WH) != asked_about
    reasoner.gate.set()
    assert client.heard.wait("result").header == asked_about


def test_nothing_found_is_a_success_with_an_empty_mask(
    start_node: Callable[..., Any], client: Any
) -> None:
    node = start_node(fake_segzero(NOTHING))
    client.connect()
    client.send_image(node, SIZE_WH)
    result = client.ask_and_wait("all the fruit", OK)
    assert not result.instances
    assert not array_from_msg(client.heard.wait("mask")).any()
    assert not array_from_msg(client.heard.wait("instances")).any()


def test_the_thinking_is_streamed_before_the_answer_is_there(
    start_node: Callable[..., Any], client: Any
) -> None:
    reasoner = GatedReasoner()
    node = start_node(pipeline_of(reasoner))
    client.connect()
    client.send_image(node, SIZE_WH)
    client.ask("the mugs")
    early = client.heard.wait(
        "reasoning", lambda msg: msg.stage == ReasoningTrace.THINKING and msg.delta
    )
    assert THINKING.startswith(early.thinking)
    assert not client.heard.all("result")
    reasoner.gate.set()
    client.heard.wait("reasoning", lambda msg: msg.done)
    traces = client.heard.all("reasoning")
    stages = [trace.stage for trace in traces]
    assert stages == sorted(stages)
    assert stages[0] == ReasoningTrace.WAITING
    assert stages[-1] == ReasoningTrace.DONE
    assert [trace.done for trace in traces] == [False] * (len(traces) - 1) + [True]
    assert traces[-1].thinking == THINKING


def test_the_pieces_of_the_stream_add_up_to_thinking_and_answer(answering: Any) -> None:
    node, client = answering
    client.send_image(node, SIZE_WH)
    client.ask("the mugs")
    client.heard.wait("reasoning", lambda msg: msg.done)
    text = "".join(trace.delta for trace in client.heard.all("reasoning"))
    assert text == THINKING + TWO_OBJECTS.partition("<answer>")[2].removesuffix("</answer>")


def test_the_executor_answers_while_the_model_thinks(
    start_node: Callable[..., Any], client: Any
) -> None:
    reasoner = GatedReasoner()
    node = start_node(pipeline_of(reasoner))
    client.connect()
    client.send_image(node, SIZE_WH)
    client.ask("the mugs")
    assert reasoner.waiting.wait(30.0)
    # With the model still at work: a image arrives, and a bad query is refused at once.
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("", SegmentationResult.INVALID_QUERY)
    assert client.heard.wait("status", lambda msg: msg.state == Status.BUSY).active_query_id == "1"
    reasoner.gate.set()
    assert client.heard.wait("result", lambda msg: msg.error_code == OK).query_id == "1"


def test_a_newer_query_replaces_the_one_that_waits(
    start_node: Callable[..., Any], client: Any
) -> None:
    reasoner = GatedReasoner()
    node = start_node(pipeline_of(reasoner))
    client.connect()
    client.send_image(node, SIZE_WH)
    client.ask("the first")
    assert reasoner.waiting.wait(30.0)
    client.ask("the second")
    client.heard.wait("reasoning", lambda msg: msg.query_id == "2")
    result = client.ask_and_wait("the third", SegmentationResult.CANCELLED)
    assert (result.query, result.query_id) == ("the second", "2")
    assert "replaced by the newer query 3" in result.error_msg
    failed = client.heard.wait("reasoning", lambda msg: msg.done and msg.query_id == "2")
    assert failed.stage == ReasoningTrace.FAILED
    reasoner.gate.set()
    client.heard.wait("result", lambda msg: msg.query_id == "3" and msg.error_code == OK)
    assert client.heard.wait("result", lambda msg: msg.query_id == "1").error_code == OK
    assert reasoner.queries == ["the first", "the third"]


def test_a_query_that_comes_while_the_model_is_loaded_is_refused_at_once(
    start_node: Callable[..., Any], client: Any
) -> None:
    may_load = threading.Event()

    def load(_: Any) -> SegZero:
        assert may_load.wait(30.0)
        return fake_segzero(TWO_OBJECTS)

    node = start_node(load)
    client.connect()
    client.heard.wait("status", lambda msg: msg.state == Status.LOADING)
    result = client.ask_and_wait("the mugs", SegmentationResult.INACTIVE)
    assert "loading" in result.error_msg
    may_load.set()
    client.heard.wait("status", lambda msg: msg.state == Status.READY)
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", OK)


def test_the_overlay_is_drawn_when_somebody_looks(
    start_node: Callable[..., Any], graph: Any, make_client: Callable[..., Any]
) -> None:
    client = make_client(overlay=True)
    node = start_node(fake_segzero(TWO_OBJECTS))
    client.connect()
    client.wait_until(lambda: node.count_subscribers("/segzero/overlay"))
    header = client.send_image(node, SIZE_WH)
    client.ask("the mugs")
    overlay = client.heard.wait("overlay")
    assert (overlay.header, overlay.encoding) == (header, "rgb8")
    assert array_from_msg(overlay).shape == (100, 100, 3)
    assert array_from_msg(overlay).std() > 0


def test_the_overlay_is_not_drawn_for_nobody(
    answering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, client = answering
    drawn = []
    monkeypatch.setattr("segzero_core.draw_overlay", lambda *_: drawn.append(True))
    client.send_image(node, SIZE_WH)
    for query_id in ("1", "2"):
        client.ask_and_wait("the mugs", OK)
        # The trace is closed after the overlay.
        client.heard.wait("reasoning", lambda msg, own=query_id: msg.done and msg.query_id == own)
    assert not drawn


RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


@pytest.mark.parametrize(
    ("topic", "type_name", "reliability", "durability"),
    [
        ("result", "segzero_ros/msg/SegmentationResult", RELIABLE, VOLATILE),
        ("mask", "sensor_msgs/msg/Image", RELIABLE, VOLATILE),
        ("instances", "sensor_msgs/msg/Image", RELIABLE, VOLATILE),
        ("overlay", "sensor_msgs/msg/Image", RELIABLE, VOLATILE),
        ("reasoning", "segzero_ros/msg/ReasoningTrace", RELIABLE, VOLATILE),
        ("status", "segzero_ros/msg/Status", RELIABLE, TRANSIENT_LOCAL),
    ],
)
def test_a_topic_is_published_as_promised(
    answering: Any, topic: str, type_name: str, reliability: Any, durability: Any
) -> None:
    _, client = answering
    name = f"/segzero/{topic}"
    client.wait_until(lambda: client.node.count_publishers(name))
    (found,) = client.node.get_publishers_info_by_topic(name)
    assert found.topic_type == type_name
    assert found.qos_profile.reliability == reliability
    assert found.qos_profile.durability == durability


@pytest.mark.parametrize(
    ("topic", "type_name", "reliability"),
    [
        ("/image", "sensor_msgs/msg/Image", BEST_EFFORT),
        ("/segzero/query", "std_msgs/msg/String", RELIABLE),
    ],
)
def test_a_topic_is_heard_as_promised(
    answering: Any, topic: str, type_name: str, reliability: Any
) -> None:
    _, client = answering
    (found,) = client.node.get_subscriptions_info_by_topic(topic)
    assert found.topic_type == type_name
    assert found.qos_profile.reliability == reliability
    assert found.qos_profile.durability == VOLATILE


def test_a_late_subscriber_still_hears_the_state(
    answering: Any, graph: Any, make_client: Callable[..., Any]
) -> None:
    _, client = answering
    client.heard.wait("status", lambda msg: msg.state == Status.READY)
    late = make_client(name="late")
    assert late.heard.wait("status").state == Status.READY


def test_compressed_images_are_answered_like_raw_ones(
    start_node: Callable[..., Any], client: Any
) -> None:
    node = start_node(fake_segzero(TWO_OBJECTS), image_transport="compressed")
    client.connect(image_topic="/image/compressed")
    msg = client.compressed_image(SIZE_WH)
    client.send_msg(msg, node)
    result = client.ask_and_wait("the mugs", OK)
    assert result.header == msg.header
    assert len(result.instances) == 2


def test_the_compressed_topic_follows_the_remapping_of_the_image(graph: Any) -> None:
    from segzero_ros.node import SegZeroNode

    arguments = [
        "--ros-args",
        "-r",
        "image:=/camera/color/image_raw",
        "-p",
        "image_transport:=compressed",
    ]
    node = SegZeroNode(lambda _: fake_segzero(NOTHING), context=graph.context, cli_args=arguments)
    graph.spin(node)
    watcher = Node("watcher", context=graph.context)
    assert watcher.count_subscribers("/camera/color/image_raw") == 0
    graph.spin(watcher)
    graph.wait_until(lambda: watcher.count_subscribers("/camera/color/image_raw/compressed"))


@pytest.mark.slow
def test_the_real_model_code_answers_on_the_graph(
    start_node: Callable[..., Any], client: Any, tmp_path: Path
) -> None:
    """Qwen2.5-VL and SAM 2 of a few thousand weights, through the loader that users get."""
    from segzero_ros.queries.answer import load_pipeline
    from tests.tiny_models import TINY_REPLY, save_tiny_model

    node = start_node(load_pipeline, model=str(save_tiny_model(tmp_path)), device="cpu")
    client.connect()
    header = client.send_image(node, (160, 120))
    client.ask("the red mug")
    result = client.heard.wait("result", timeout_s=120.0)
    assert result.error_code == OK, result.error_msg
    assert result.completion == TINY_REPLY
    assert (result.header, result.encoder_backend) == (header, "torch")
    mask = client.heard.wait("mask")
    assert (mask.width, mask.height) == (160, 120)
    assert result.thinking == client.heard.wait("reasoning", lambda msg: msg.done).thinking
